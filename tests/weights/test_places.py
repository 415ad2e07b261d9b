"""Disks that are full, caches that can't be written, and what is deleted."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from download_bench import (
    BOTH,
    SIZE,
    Bench,
    Client,
    Kind,
    on_record,
    sha256,
    source_of,
)
from server_faults import ClaimLength, ClaimLinkedSize

from resshift_cli.system import cache
from resshift_cli.weights import download
from resshift_cli.weights.download import Fetched
from resshift_cli.weights.registry import (
    BundledSource,
    LocalSource,
    Source,
    WeightFile,
)

# A full disk, and caches that can't be written.


@pytest.mark.parametrize("kind", BOTH)
def test_a_disk_that_fills_up_is_one_clear_error(bench: Bench, kind: Kind) -> None:
    offer = bench.offer(kind)
    answer = bench.fetch(offer.file, largest=SIZE // 2)
    assert answer.code == 6 and answer.error.startswith("The disk is full: ")
    assert ("HF_HOME" if kind == "hub" else "RESSHIFT_CACHE") in answer.hint
    assert bench.cached(offer.file).path == ""
    answer = bench.fetch(offer.file)
    assert answer.sha256 == sha256(offer.content)
    if kind == "release":
        assert offer.downloads[-1] == f"bytes={SIZE // 2}-"


@pytest.mark.parametrize("kind", BOTH)
def test_a_file_larger_than_the_free_space_is_not_begun(bench: Bench, kind: Kind) -> None:
    huge = 10**16
    offer = bench.offer(kind, ClaimLinkedSize(huge) if kind == "hub" else ClaimLength(huge))
    answer = bench.fetch(offer.file)
    assert answer.code == 6
    assert "There is no room for weights.safetensors" in answer.error
    assert "10,000,000,000 MB are needed" in answer.error
    assert not list(bench.cache.glob("downloads/*/*"))


@pytest.mark.parametrize("kind", BOTH)
def test_a_cache_folder_that_cannot_be_made_names_the_variable(bench: Bench, kind: Kind) -> None:
    offer = bench.offer(kind)
    answer = bench.client.do("fetch", offer.file, bench.content(1) / "cache")
    assert answer.code == 6 and "RESSHIFT_CACHE" in answer.hint
    assert offer.sent == 0


def test_a_cache_of_the_hub_that_cannot_be_made_names_its_variable(
    bench: Bench, another_client: Callable[..., Client]
) -> None:
    offer = bench.offer("hub")
    client = another_client(HF_HOME=str(bench.content(1) / "hf"))
    answer = client.do("fetch", offer.file, bench.cache)
    assert answer.code == 6 and "HF_HOME" in answer.hint
    assert str(bench.folder) in answer.error


@pytest.mark.parametrize("kind", BOTH)
def test_a_read_only_cache_that_has_the_file_serves_it(bench: Bench, kind: Kind) -> None:
    offer, missing = bench.offer(kind), bench.offer(kind)
    cache = bench.site.home / f"cache of {kind}"
    there = bench.client.do("fetch", offer.file, cache)
    (cache / "hashes.json").unlink()  # which it would like to write
    with read_only(cache):
        found = bench.client.do("fetch", offer.file, cache, as_nobody=True)
        failed = bench.client.do("fetch", missing.file, cache, as_nobody=True)
        assert not (cache / "hashes.json").exists()
    assert (found.path, found.sha256) == (there.path, there.sha256)
    assert failed.code == 6 and "RESSHIFT_CACHE" in failed.hint


def test_a_file_that_cannot_be_deleted_is_an_error(bench: Bench) -> None:
    offer = bench.offer("hub")
    path = Path(bench.fetch(offer.file).path)
    open_to_all = bench.site.home / "cache of all"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    with read_only(path.parent):
        answer = bench.client.do("discard", offer.file, open_to_all, as_nobody=True)
    assert answer.code == 6 and "HF_HOME" in answer.hint
    assert path.read_bytes() == offer.content


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Let nobody write in a folder; the owner of all, root, has to become somebody else."""
    paths = [folder, *folder.rglob("*")]
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        yield
    finally:
        for path in paths:
            path.chmod(0o755 if path.is_dir() else 0o644)


# Deleting.


@pytest.mark.parametrize("kind", BOTH)
def test_discarding_frees_a_file_and_forgets_its_checksum(bench: Bench, kind: Kind) -> None:
    offer = bench.offer(kind)
    path = Path(bench.fetch(offer.file).path)
    assert bench.client.do("discard", offer.file, bench.cache).value == SIZE
    assert not path.exists()
    assert bench.cached(offer.file).path == ""
    assert on_record(bench.cache) == {}
    assert bench.client.do("discard", offer.file, bench.cache).value == 0


def test_discarding_leaves_the_other_files_of_a_repository(bench: Bench) -> None:
    offer = bench.offer("hub")
    repo = offer.name.rpartition("/")[0]
    bench.site.hub.add_file(repo, "other.safetensors", bench.content())
    source = source_of("hub", repo, "other.safetensors")
    other = bench.fetch(WeightFile((source,), "MIT", "", 0))
    blob = Path(bench.fetch(offer.file).path).resolve()
    bench.client.do("discard", offer.file, bench.cache)
    assert not blob.exists()
    assert len(Path(other.path).read_bytes()) == SIZE


def test_discarding_deletes_parts_and_refused_files(bench: Bench) -> None:
    offer = bench.offer("release")
    bench.fetch(dataclasses.replace(offer.file, sha256="ab" * 32))
    bench.fetch(offer.file, largest=SIZE // 2)
    assert len(list(bench.cache.glob("downloads/*/*"))) == 3
    assert bench.client.do("discard", offer.file, bench.cache).value > 1.5 * SIZE
    assert not list(bench.cache.glob("downloads/*"))


def test_bundled_and_local_files_are_used_where_they_lie(own_cache: Path, tmp_path: Path) -> None:
    bundled = BundledSource("tiny-x4.safetensors")
    (tmp_path / "own.safetensors").write_bytes(b"weights")
    local = LocalSource(str(tmp_path / "own.safetensors"))
    sources: list[tuple[Source, Path]] = [(bundled, bundled.path), (local, Path(local.path))]
    for source, path in sources:
        file = WeightFile((source,), "MIT", "", 0)
        expected = Fetched(path, source, sha256(path.read_bytes()))
        assert download.fetch(file, offline=True) == expected
        assert download.reachable(file, within=1)
        assert download.discard(file) == 0 and path.exists()


def test_the_cache_lies_where_the_variable_says(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cache.folder() == own_cache
    monkeypatch.delenv("RESSHIFT_CACHE")
    assert "resshift" in cache.folder().parts
