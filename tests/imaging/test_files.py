"""One file in, one out: what becomes of it between reading and writing."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from memory import needs_proc, peak_over
from numpy.typing import NDArray
from PIL import Image

from resshift_cli.errors import ImageUnreadableError, UsageError
from resshift_cli.imaging import files, rows, targets
from resshift_cli.imaging.files import Handling, Loaded, Result
from resshift_cli.imaging.formats import SaveOptions
from resshift_cli.imaging.sources import Source

Pixels = NDArray[np.float32]


def twice(
    rows: Iterable[Pixels], shape: tuple[int, int, int], told: Callable[[int, int], None]
) -> Iterator[Pixels]:
    """Enlarge in two steps of work, each of which gives a band."""
    pixels = np.concatenate(list(rows))
    assert pixels.shape == shape
    for number, half in enumerate(np.array_split(pixels, 2), 1):
        told(number, 2)
        yield half.repeat(2, 0).repeat(2, 1)


def make_animation(path: Path) -> Path:
    frames = [Image.new("RGB", (6, 4), colour) for colour in ("red", "lime", "blue")]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=70, loop=0)
    return path


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    Image.new("RGB", (6, 4), "teal").save(tmp_path / "a.png")
    return tmp_path / "a.png"


def load(path: Path, *, first_frame: bool = False, allow_truncated: bool = False) -> Loaded:
    handling = Handling(first_frame=first_frame, allow_truncated=allow_truncated)
    return files.load(Source(path), handling)


def enlarged(loaded: Loaded, name: str, told: list[tuple[int, int]] | None = None) -> Result:
    return files.enlarge(
        loaded,
        twice,
        lambda done, total: None if told is None else told.append((done, total)),
        size=(2 * loaded.size[0], 2 * loaded.size[1]),
        note="by a test",
        target=Path(name),
        options=SaveOptions(),
    )


def content(result: Result) -> bytes:
    file = io.BytesIO()
    given = result.content()
    if callable(given):
        given(file)
    else:
        file.write(given)
    return file.getvalue()


def test_an_image_is_enlarged_with_its_progress_told(photo: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    result = enlarged(load(photo), "b.png", told)
    assert (result.size, told) == ((8, 12), [(1, 2), (2, 2)])
    (tmp_path / "b.png").write_bytes(content(result))
    assert load(tmp_path / "b.png").size == (8, 12)


@pytest.mark.parametrize("name", ["b.png", "b.jpg", "b.tif"])
def test_a_large_result_is_computed_as_it_is_written(
    photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """And is the same image, with the same beside it."""
    loaded = load(photo)
    small = content(enlarged(loaded, name))
    monkeypatch.setattr(files, "LARGE", 10)
    told: list[tuple[int, int]] = []
    result = enlarged(loaded, name, told)
    assert result.encode is None and told == []
    large = content(result)
    assert told == [(1, 2), (2, 2)]
    pictures = []
    for part in (small, large):
        (tmp_path / name).write_bytes(part)
        pictures.append(load(tmp_path / name).picture)
    assert np.abs(pictures[0].pixels - pictures[1].pixels).max() <= 2 / 255
    assert pictures[0].exif == pictures[1].exif
    assert b"by a test" in (pictures[1].exif or b"")


def test_a_large_result_of_another_format_is_held(
    photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "LARGE", 10)
    assert enlarged(load(photo), "b.webp").encode is not None


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that counts as large, of which one row is read at a time."""
    Image.effect_noise((30, 40), 90).convert("RGB").save(tmp_path / "large.png")
    monkeypatch.setattr(rows, "LARGE", 1000)
    monkeypatch.setattr(rows, "_BAND", 30)
    return tmp_path / "large.png"


@pytest.mark.parametrize("name", ["b.png", "b.jpg", "b.tif", "b.bmp", "b.webp"])
def test_a_large_input_gives_the_same_file(
    large: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    loaded = load(large)
    assert isinstance(loaded.rows, rows.InFile)
    assert (loaded.size, loaded.shape) == ((40, 30), (40, 30, 3))
    streamed = content(enlarged(loaded, name))
    monkeypatch.undo()
    loaded = load(large)
    assert not isinstance(loaded.rows, rows.InFile)
    assert content(enlarged(loaded, name)) == streamed


def change(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def replace_by_nonsense(path: Path) -> None:
    path.write_bytes(b"nonsense")


@pytest.mark.parametrize("spoil", [change, replace_by_nonsense])
@pytest.mark.parametrize("while_written", [False, True])
def test_a_large_file_that_changes_after_it_was_loaded_is_refused(
    large: Path,
    monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[[Path], None],
    while_written: bool,
) -> None:
    loaded = load(large)
    if while_written:
        monkeypatch.setattr(files, "LARGE", 10)
    spoil(large)
    with pytest.raises(ImageUnreadableError, match="changed while it was read"):
        content(enlarged(loaded, "b.png"))


def test_nothing_is_written_if_a_large_file_changes_meanwhile(
    large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load(large)
    monkeypatch.setattr(files, "LARGE", 10)
    result = enlarged(loaded, "b.png")
    change(large)
    with pytest.raises(ImageUnreadableError):
        targets.save(result.content(), large.with_name("b.png"), overwrite=False)
    assert list(large.parent.iterdir()) == [large]


def test_an_animation_is_enlarged_frame_by_frame_with_one_progress(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    loaded = load(make_animation(tmp_path / "a.gif"))
    assert (loaded.frames, loaded.size) == (3, (4, 6))
    result = enlarged(loaded, "b.png", told)
    assert result.size == (8, 12)
    assert told == [(number, 6) for number in range(1, 7)]
    (tmp_path / "b.png").write_bytes(content(result))
    assert load(tmp_path / "b.png").frames == 3
    assert load(tmp_path / "b.png", first_frame=True).frames == 1


@pytest.mark.parametrize("moving", [False, True])
def test_a_file_that_is_damaged_because_it_is_still_written_is_called_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moving: bool
) -> None:
    path = tmp_path / "a.gif"
    make_animation(path)
    path.write_bytes(path.read_bytes()[:-40])
    states = iter([Source(path).state(), None])
    monkeypatch.setattr(Source, "state", lambda self: next(states))
    with pytest.raises(ImageUnreadableError, match="changed while it was read"):
        load(path, first_frame=not moving)


def test_an_animation_that_changes_while_it_is_enlarged_is_refused(tmp_path: Path) -> None:
    loaded = load(make_animation(tmp_path / "a.webp"))

    def slowly(
        rows: Iterable[Pixels], shape: tuple[int, int, int], told: Callable[[int, int], None]
    ) -> Iterator[Pixels]:
        with (tmp_path / "a.webp").open("ab") as file:
            file.write(b"more")
        yield from rows

    with pytest.raises(ImageUnreadableError, match="changed while it was read"):
        files.enlarge(
            loaded,
            slowly,
            lambda done, total: None,
            size=loaded.size,
            note="",
            target=Path("b.webp"),
            options=SaveOptions(),
        )


def test_an_animation_is_not_for_every_format(tmp_path: Path) -> None:
    loaded = load(make_animation(tmp_path / "a.gif"))
    with pytest.raises(UsageError, match="without animation"):
        files.check(loaded, Path("b.jpg"), size=(8, 12), options=SaveOptions())
    files.check(loaded, Path("b.webp"), size=(8, 12), options=SaveOptions())


@pytest.mark.parametrize(
    "name, options, expected",
    [
        ("a.png", {}, "png"),
        ("a.jpg", {}, "jpg"),
        ("a.tif", {}, "tif"),
        ("a.bmp", {}, "bmp"),
        ("a.avif", {}, "avif"),
        ("a.gif", {}, "png"),
        ("a.jpg", {"format": "webp"}, "webp"),
    ],
)
def test_a_result_without_a_name_is_of_the_format_that_is_due(
    tmp_path: Path, name: str, options: dict[str, str], expected: str
) -> None:
    Image.new("RGB", (6, 4)).save(tmp_path / name)
    given = SaveOptions(format=options.get("format"), quality=50)
    found = files.without_a_name(load(tmp_path / name), given)
    assert (found.format, found.quality) == (expected, 50)


def test_what_goes_in_damaged_is_warned_of(photo: Path) -> None:
    assert load(photo).warnings == []
    photo.write_bytes(photo.read_bytes()[:-30])
    (warning,) = load(photo, allow_truncated=True).warnings
    assert str(photo) in warning


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "a.webp", "a.bmp"])
def test_a_small_image_is_opened_and_identified_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    Image.new("RGB", (8, 6)).save(tmp_path / name)
    opened: list[int] = []
    identified: list[int] = []
    monkeypatch.setattr(Source, "open", _counting(Source.open, opened))
    monkeypatch.setattr(Image, "open", _counting(Image.open, identified))
    load(tmp_path / name)
    assert (len(opened), len(identified)) == (1, 1)


def _counting(function: Any, calls: list[int]) -> Any:
    def counted(*given: Any, **options: Any) -> Any:
        calls.append(1)
        return function(*given, **options)

    return counted


@needs_proc
def test_an_animation_of_hundreds_of_frames_is_not_held_as_floats(tmp_path: Path) -> None:
    frames = [Image.effect_noise((200, 200), 99) for _ in range(120)]
    path = tmp_path / "m.webp"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=70, quality=1)
    loaded = files.load(Source(path), Handling())
    as_floats = 120 * 200 * 200 * 3 * 4

    def work() -> None:
        result = files.enlarge(
            loaded,
            lambda rows, shape, told: iter(rows),
            lambda done, total: None,
            size=loaded.size,
            note="",
            target=Path("a.webp"),
            options=SaveOptions(quality=1),
        )
        content = result.content()
        assert not callable(content) and len(content) > 1000

    work()
    assert peak_over(work) < 2 * as_floats / 3


def test_a_small_file_is_kept_from_the_check_to_the_work(photo: Path) -> None:
    loader = files.Loader(Handling())
    checked = loader.load(Source(photo))
    assert loader.take(Source(photo)) is checked
    assert loader.take(Source(photo)) is not checked, "it is handed out once"


def test_a_file_that_changed_since_the_check_or_is_large_is_read_again(
    photo: Path, large: Path
) -> None:
    loader = files.Loader(Handling())
    loader.load(Source(photo))
    Image.new("RGB", (9, 9)).save(photo)
    assert loader.take(Source(photo)).size == (9, 9)
    loader.room = 0
    checked = loader.load(Source(photo))
    assert loader.take(Source(photo)) is not checked
    kept = loader.load(Source(large))  # whose pixels are in the file
    assert loader.take(Source(large)) is kept
