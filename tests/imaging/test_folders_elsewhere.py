"""Images of folders in stores are those of the same folders here, in their order."""

from __future__ import annotations

import tracemalloc
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from command_line import make_photo
from memory import apart

from resshift_cli.errors import InputMissingError
from resshift_cli.imaging import elsewhere
from resshift_cli.imaging.elsewhere import inputs_at
from resshift_cli.imaging.files import Handling, load
from resshift_cli.imaging.folders import Beside, Selection
from resshift_cli.imaging.opening import read_header
from resshift_cli.system import sorting
from resshift_cli.system.storage import Remote

NAMES = (
    "b.png",
    "a/z.jpg",
    "a.png",
    "a/b/c.png",
    "B.png",
    "ä.png",
    "a/.h.png",
    "n.txt",
    "out/r.png",
)
IN = "s3://photos/in"


@pytest.mark.parametrize(
    "options", [{}, {"hidden": True}, {"exclude": ["a/*"]}, {"include": ["*.txt", "c*"]}]
)
def test_they_come_as_those_of_a_folder_here(
    s3: Any, tmp_path: Path, options: dict[str, Any]
) -> None:
    for name in NAMES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"1")
        s3.pipe_file(f"photos/in/{name}", b"1")
    selection, told = Selection(**options), [Beside(), Beside()]
    here = inputs_at(tmp_path, tmp_path / "out", selection)
    there = inputs_at(f"{IN}/", f"{IN}/out", selection)
    assert [*here.images(told[0])] == [*there.images(told[1])]
    assert told[0] == told[1]
    assert [here.has(name) for name in NAMES] == [there.has(name) for name in NAMES]
    assert not there.has("none.png") and (there.said, there.root) == (IN, IN)


def test_names_that_lead_elsewhere_are_told_of(s3: Any) -> None:
    for key in ("../a.png", "./b.png", "/c.png", "x/../d.png", "e.png"):
        s3.call_s3("put_object", Bucket="photos", Key=f"in/{key}", Body=b"1")
    beside = Beside()
    assert [*inputs_at(IN).images(beside)] == ["e.png"]
    assert set(beside.unreadable) == {"..", ".", "", "x/.."}
    assert (
        str(beside.unreadable["x/.."])
        == "'..' in s3://photos/in/x is a name that no file can have."
    )


def test_a_header_is_read_from_what_was_asked_for_at_a_time(
    s3: Any, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3.put_file(str(photo), "photos/in/a.png")
    there = inputs_at(IN)
    there.ahead([*there.images(), "gone.png"])
    monkeypatch.setattr(Remote, "system", None)  # nothing more is asked for
    header = read_header(there.header("a.png"))
    assert (header.width, header.height) == (20, 12)
    assert there.source("a.png").state() == there.header("a.png").state()


def test_what_is_fetched_is_read_as_a_file_here(s3: Any, tmp_path: Path) -> None:
    photo = make_photo(tmp_path / "a.png", 20, 12)
    s3.put_file(str(photo), "photos/in/a.png")
    source = inputs_at(IN).source("a.png")
    loaded = load(source.fetched(), Handling())
    assert (
        loaded.picture.pixels
        == load(inputs_at(tmp_path).source("a.png"), Handling()).picture.pixels
    ).all()
    assert loaded.source.fetched() is loaded.source and loaded.source.digest() == source.digest()
    state = source.state()
    assert state is not None and loaded.state is not None
    assert state.version == loaded.state.version and not source.is_file_at(photo)


def test_what_is_gone_is_told_by_its_address(s3: Any) -> None:
    source = inputs_at(IN).source("a.png")
    assert source.state() is None
    for read in (source.open, source.digest, source.fetched):
        with pytest.raises(InputMissingError, match="There is no s3://photos/in/a.png"):
            read()


class Endless:
    """A store of S3's kind whose only folder has so many files, by pages of a thousand."""

    def __init__(self, count: int) -> None:
        self.count = count

    def call_s3(self, method: str, **asked: str) -> dict[str, Any]:
        first = int(asked.get("ContinuationToken", 0))
        following = min(first + 1000, self.count)
        keys = (f"{asked['Prefix']}{number:09}.jpg" for number in range(first, following))
        page = [{"Key": key, "Size": 9, "ETag": f'"{key:>40}"'} for key in keys]
        more = following < self.count
        return {"Contents": page, "IsTruncated": more, "NextContinuationToken": str(following)}


def most(count: int) -> int:
    """Bytes that are taken at most while so many names are gone through."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Remote, "system", lambda self: (Endless(count), "bucket/in"))
        patch.setattr(elsewhere, "in_order", partial(sorting.in_order, at_once=2000))
        tracemalloc.start()
        assert sum(1 for _ in inputs_at("s3://bucket/in").images()) == count
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return peak


def test_memory_does_not_grow_with_the_number_of_files() -> None:
    assert apart(most, 20_000) < apart(most, 10_000) + 500_000
