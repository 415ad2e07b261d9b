"""Which models exist, and what is refused when they are described."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from resshift_cli.diffusion.specs import TileSpec, VQSpec
from resshift_cli.errors import (
    InputMissingError,
    ModelUnavailableError,
    UnknownModelError,
    UsageError,
)
from resshift_cli.weights import registry, store
from resshift_cli.weights.registry import (
    BundledSource,
    HubSource,
    LocalSource,
    ReleaseSource,
    WeightFile,
)
from resshift_cli.weights.store import Files

# Every checkpoint there is: scale, steps, steps of the schedule, and how windows shift.
PUBLISHED = {
    "nacre-x4": (4, 4, 4, "standard"),
    "realsr-x4-v1": (4, 15, 15, "reference"),
    "realsr-x4-v2": (4, 15, 15, "reference"),
    "realsr-x4-v3": (4, 4, 4, "reference"),
    "bicubic-x4": (4, 4, 4, "reference"),
    "inpaint-imagenet": (1, 4, 4, "reference"),
    "inpaint-face": (1, 4, 4, "reference"),
    "face": (1, 4, 4, "reference"),
    "deblur": (1, 4, 4, "reference"),
    "sinsr-x4": (4, 1, 15, "reference"),
    "sinsr-x4-v2": (4, 1, 15, "reference"),
    "rsd-x4": (4, 1, 15, "reference"),
    "rsd-x2": (2, 1, 15, "reference"),
}
UNQUANTIZED = {"nacre-x4", "rsd-x4", "rsd-x2"}

NET = """
[models.net]
description = "one line"
task = "real-world"
homepage = "https://example.org"
citation = "none"
[models.net.weights]
sources = [{ kind = "hub", repo = "me/net", file = "net.safetensors", revision = "main" }]
licence = "MIT"
sha256 = ""
bytes = 0
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "config" / "models.toml"
    monkeypatch.setenv(registry.OWN_REGISTRY, str(path))
    return path


def written(folder: Path, text: str) -> Path:
    path = folder / "extra.toml"
    path.write_text(text, encoding="utf-8")
    return path


# The models of the package


def test_every_published_checkpoint_is_registered_as_its_authors_run_it() -> None:
    models = registry.models()
    assert models.keys() == PUBLISHED.keys() | {"tiny-x4", "chain-x4", "tiny-x1"}
    for name, expected in PUBLISHED.items():
        spec = models[name].spec
        assert spec is not None
        found = (spec.scale, spec.steps, spec.schedule.steps, spec.denoiser.swin)
        assert found == expected, name
        assert isinstance(spec.autoencoder, VQSpec)
        assert spec.autoencoder.quantize == (name not in UNQUANTIZED)
        assert spec.clip_lq == (name == "nacre-x4")


def test_official_weights_come_from_the_release_first_and_the_mirror_next() -> None:
    for name in ("realsr-x4-v2", "inpaint-face", "face"):
        entry = registry.find(name)
        for file in filter(lambda file: file is not entry.detector, entry.files):
            release, mirror = file.sources
            assert isinstance(release, ReleaseSource)
            assert isinstance(mirror, HubSource)
            assert release.name == mirror.name == file.name
            assert release.url.startswith("https://github.com/zsyOAOA/ResShift/releases/download/")


def test_what_finds_faces_is_known_by_its_checksum_and_comes_with_any_model_for_them() -> None:
    face, mine = registry.find("face"), registry.find("tiny-x4")
    assert face.detector is not None and face.files[-1] is face.detector
    assert len(face.detector.sha256) == 64 and not face.detector.is_pickled
    assert registry.finding_faces(face) is face
    assert registry.finding_faces(mine).detector == face.detector
    assert [licence.id for licence in face.licences] == ["S-Lab-1.0", "S-Lab-1.0", "MIT"]


def test_files_of_one_s_own_are_found_with_what_finds_faces_and_checked(tmp_path: Path) -> None:
    for name in ("mine.safetensors", "finds.onnx"):
        (tmp_path / name).write_bytes(name.encode())
    finder = WeightFile((LocalSource(str(tmp_path / "finds.onnx")),), "MIT", "", 0)
    entry = registry.of_file(tmp_path / "mine.safetensors")
    found = store.located(replace(entry, detector=finder))
    assert found == Files(tmp_path / "mine.safetensors", None, tmp_path / "finds.onnx")
    wrong = replace(finder, sha256="0" * 64)
    assert store.located(replace(entry, detector=wrong)) is None


def test_what_is_missing_of_a_file_of_one_s_own_is_fetched_by_the_name_of_a_model(
    tmp_path: Path,
) -> None:
    (tmp_path / "mine.safetensors").touch()
    entry = registry.finding_faces(registry.of_file(tmp_path / "mine.safetensors"))
    with pytest.raises(ModelUnavailableError, match="face_detection_yunet") as caught:
        store.obtain(entry, offline=True)
    assert caught.value.hint == "Run `resshift models pull face` when there is a network."


def test_what_others_host_is_pinned_where_a_revision_is_known() -> None:
    sources = {s for e in registry.shipped().values() for f in e.files for s in f.sources}
    mirrored = {s for s in sources if isinstance(s, HubSource) and s.repo.startswith("OwlMaster/")}
    assert len(mirrored) == 10
    assert {source.revision for source in mirrored} == {"9a99c28"}


def test_images_are_cut_as_the_models_authors_do() -> None:
    tiles = {name: entry.spec.tile for name, entry in registry.shipped().items() if entry.spec}
    assert tiles.pop("nacre-x4") == TileSpec(128, 32, margin=0)
    assert set(tiles.values()) == {TileSpec(512, 64, margin=0)}


def test_no_colours_are_corrected_that_the_models_authors_leave_alone() -> None:
    fixes = [entry.spec.color_fix for entry in registry.shipped().values() if entry.spec]
    assert len(fixes) > 10 and set(fixes) == {"none"}


def test_students_are_conditioned_and_started_in_their_own_way() -> None:
    for name, pixels in (("rsd-x4", 1), ("rsd-x2", 2)):
        spec = registry.find(name).spec
        assert spec is not None
        assert (spec.condition, spec.prior) == ("latent", "kappa")
        assert (spec.denoiser.noise_channels, spec.lq_pixels) == (1, pixels)


def test_only_permissive_weights_count_as_free_for_commercial_use() -> None:
    free = {name for name, entry in registry.models().items() if entry.commercial}
    assert free == {"tiny-x4", "chain-x4", "tiny-x1", "nacre-x4"}
    assert registry.find("nacre-x4").licence == "Apache-2.0, MIT"
    assert registry.find("sinsr-x4").licence == "CC-BY-NC-SA-4.0, S-Lab-1.0"


def test_the_bundled_file_is_there() -> None:
    (source,) = registry.find("tiny-x4").weights.sources
    assert isinstance(source, BundledSource)
    assert source.path.is_file()


def test_an_unknown_model_is_answered_with_the_nearest_name() -> None:
    with pytest.raises(UnknownModelError, match="tiny-x5") as caught:
        registry.find("tiny-x5")
    assert caught.value.hint == "Did you mean 'tiny-x4'?"


def test_a_name_like_no_other_is_answered_with_all_names() -> None:
    with pytest.raises(UnknownModelError) as caught:
        registry.find("Q")
    assert "tiny-x4" in caught.value.hint


# Other registries


def test_a_registry_of_the_user_s_adds_models_and_overrides_shipped_ones(own: Path) -> None:
    own.parent.mkdir()
    own.write_text(NET + '[models.tiny-x4]\nlike = "net"\ndescription = "mine"\n')
    models = registry.models()
    assert models["net"].weights.key == (
        "https://huggingface.co/me/net/resolve/main/net.safetensors"
    )
    assert models["tiny-x4"].description == "mine"
    assert models["tiny-x4"].weights == models["net"].weights
    assert "realsr-x4-v2" in models


def test_the_file_named_on_the_command_line_wins_over_the_user_s(own: Path, tmp_path: Path) -> None:
    own.parent.mkdir()
    own.write_text(NET)
    extra = written(tmp_path, NET.replace("one line", "another"))
    assert registry.find("net").description == "one line"
    assert registry.find("net", extra).description == "another"


def test_likeness_merges_tables_and_replaces_lists(tmp_path: Path) -> None:
    text = '[models.mine]\nlike = "realsr-x4-v1"\nspec = { denoiser = { channel_mult = [1, 2] } }'
    mine = registry.find("mine", written(tmp_path, text)).spec
    base = registry.find("realsr-x4-v1").spec
    assert mine is not None
    assert base is not None
    assert mine.denoiser.channel_mult == (1, 2)
    assert mine.denoiser.model_channels == base.denoiser.model_channels
    assert mine.schedule == base.schedule


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (NET.replace("bytes = 0", 'bytes = "0"'), r"\[models.net\].weights.bytes must be of type"),
        (NET.replace("bytes = 0", ""), r"\[models.net\].weights lacks the key 'bytes'"),
        (NET.replace("bytes", "size"), r"\[models.net\].weights has the unknown key 'size'"),
        (NET.replace("MIT", "mine"), r"\[models.net\].weights has the unknown licence 'mine'"),
        (NET.replace("real-world", "sky"), r"\[models.net\].task must be one of"),
        (NET.replace('"hub"', '"ftp"'), r"sources.kind must be one of hub, release"),
        (NET.replace('sha256 = ""', 'sha256 = "12"'), r"'12' is no SHA-256"),
        (NET.replace("\n[models.net.w", '\nname = "x"\n[models.net.w'), r"unknown key 'name'"),
        ('[models.a]\nlike = "b"\n[models.b]\nlike = "a"', r"like itself in the end"),
        ('[models.a]\nlike = "none"', r"\[models.a\] is like 'none', which is no model"),
        ("[models]\na = 1", r"\[models.a\] is not a table"),
        ("models = 1", r"\[models\] is not a table"),
        ("[model.a]", r"the unknown table \[model\]"),
        ("[models", "extra.toml is not TOML"),
    ],
)
def test_a_broken_registry_is_refused_by_file_and_table(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        registry.models(written(tmp_path, text))
    assert caught.value.hint


def test_a_registry_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "extra.toml"
    path.write_bytes(b'a = "\xff"')
    with pytest.raises(UsageError, match="is not TOML"):
        registry.models(path)


def test_a_registry_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputMissingError, match="none.toml"):
        registry.models(tmp_path / "none.toml")


# Adding models


def test_an_added_model_has_everything_of_the_one_that_it_is_like(own: Path) -> None:
    source = HubSource("me/net", 'deep/\u00e4 "net".safetensors', "v1")
    assert registry.add("my-x4", source, like="realsr-x4-v3", licence="MIT") == own
    mine, base = registry.find("my-x4"), registry.find("realsr-x4-v3")
    assert mine.weights.sources == (source,)
    assert (mine.spec, mine.autoencoder) == (base.spec, base.autoencoder)
    assert mine.licence == "MIT, S-Lab-1.0"


def test_models_are_added_after_what_the_user_wrote(own: Path) -> None:
    own.parent.mkdir()
    own.write_text("# my own words" + NET)
    registry.add("other", LocalSource("/models/o.safetensors"), like=None, licence="unknown")
    assert own.read_text().startswith("# my own words")
    assert {"net", "other"} <= registry.models().keys()
    assert not registry.find("other").commercial


@pytest.mark.parametrize(
    ("name", "path", "like", "licence", "kind", "message"),
    [
        ("tiny-x4", "a.safetensors", None, "MIT", UsageError, "is a model 'tiny-x4' already"),
        ("a b", "a.safetensors", None, "MIT", UsageError, "can't be a model's name"),
        ("a", "a.pth", None, "MIT", UsageError, "no safetensors file"),
        ("a", "a.safetensors", "tiny", "MIT", UnknownModelError, "no model named 'tiny'"),
        ("a", "a.safetensors", None, "mine", UsageError, "unknown licence 'mine'"),
    ],
)
def test_what_can_t_be_added_is_refused_and_nothing_is_written(
    own: Path,
    name: str,
    path: str,
    like: str | None,
    licence: str,
    kind: type[Exception],
    message: str,
) -> None:
    with pytest.raises(kind, match=message):
        registry.add(name, LocalSource(path), like=like, licence=licence)
    assert not own.parent.exists()


def test_the_user_s_registry_may_lie_below_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(registry.OWN_REGISTRY, "~/models.toml")
    assert registry.own_registry() == Path.home() / "models.toml"


def test_processes_that_add_models_at_once_add_all_of_them(own: Path) -> None:
    add = (
        "import sys; from resshift_cli.weights import registry as r\n"
        "for n in range(8):\n"
        "    s = r.LocalSource('/a.safetensors')\n"
        "    r.add(f'{sys.argv[1]}{n}', s, like=None, licence='MIT')"
    )
    adding = [subprocess.Popen([sys.executable, "-c", add, name]) for name in "abc"]
    assert [process.wait() for process in adding] == [0, 0, 0]
    assert {f"{name}{n}" for name in "abc" for n in range(8)} <= registry.models().keys()


def test_a_typo_of_the_user_s_is_no_weight_file_that_can_t_be_fetched(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        registry.models(written(tmp_path, NET.replace("licence", "license")))
    assert caught.value.exit_code == 2
