"""Files that are not what they were, or what they have to be, and what is on record of them."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest
from download_bench import (
    BOTH,
    SIZE,
    Bench,
    Kind,
    either,
    on_record,
    sha256,
)

from resshift_cli.errors import ModelUnavailableError
from resshift_cli.weights import checksums, download
from resshift_cli.weights.registry import (
    LocalSource,
    WeightFile,
)

# Checksums.


@pytest.mark.parametrize("kind", BOTH)
def test_a_checksum_other_than_the_registrys_is_refused_and_the_file_kept_aside(
    bench: Bench, kind: Kind
) -> None:
    offer = bench.offer(kind)
    file = dataclasses.replace(offer.file, sha256="ab" * 32)
    for name in ("weights.safetensors.refused", "weights.safetensors.refused1"):
        answer = bench.fetch(file)
        (aside,) = bench.cache.glob(f"downloads/*/{name}")
        assert answer.code == 7
        assert (
            f"{sha256(offer.content)[:12]} instead of {'ab' * 6}, kept as {aside}" in answer.error
        )
        assert "`sha256` in the registry" in answer.hint
        assert aside.read_bytes() == offer.content
        assert bench.cached(file).path == bench.cached(offer.file).path == ""


@pytest.mark.parametrize("kind", BOTH)
def test_a_file_that_differs_from_its_first_download_is_refused_until_that_is_forgotten(
    bench: Bench, kind: Kind
) -> None:
    offer = bench.offer(kind)
    first = bench.fetch(offer.file)
    Path(first.path).unlink()
    offer.served.replace(bench.content())
    refused = bench.fetch(offer.file)
    assert f"instead of {first.sha256[:12]}" in refused.error
    assert "`resshift models rm MODEL`" in refused.hint
    bench.client.do("discard", offer.file, bench.cache)
    assert bench.fetch(offer.file).sha256 == sha256(offer.content)


def test_a_source_with_another_checksum_gives_way_to_one_with_the_right_one(bench: Bench) -> None:
    wrong, right = bench.offer("release"), bench.offer("hub")
    file = dataclasses.replace(either(wrong, right), sha256=sha256(right.content))
    assert bench.fetch(file).source == "hub"
    assert [p.read_bytes() for p in bench.cache.glob("**/*.refused")] == [wrong.content]


@pytest.mark.parametrize("kind", BOTH)
def test_a_file_cut_short_on_disk_is_not_here_and_comes_anew(bench: Bench, kind: Kind) -> None:
    offer = bench.offer(kind)
    path = Path(bench.fetch(offer.file).path)
    os.truncate(path, SIZE // 2)
    assert bench.cached(offer.file).path == ""
    assert bench.fetch(offer.file).sha256 == sha256(offer.content)
    assert path.read_bytes() == offer.content


@pytest.mark.parametrize("kind", BOTH)
def test_a_file_is_not_read_again_while_its_size_and_time_stay(bench: Bench, kind: Kind) -> None:
    offer = bench.offer(kind)
    path = Path(bench.fetch(offer.file).path)
    status = path.stat()
    path.write_bytes(b"?" * SIZE)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert bench.cached(offer.file).sha256 == sha256(offer.content)
    os.utime(path)
    assert bench.cached(offer.file).path == ""


def test_a_file_that_another_program_put_into_the_hubs_cache_is_taken(bench: Bench) -> None:
    offer = bench.offer("hub")
    bench.fetch(offer.file)
    (bench.cache / "digests.json").unlink()
    assert bench.fetch(offer.file, offline=True).sha256 == sha256(offer.content)
    assert on_record(bench.cache) == {offer.file.key: sha256(offer.content)}


def test_a_local_file_may_change_unless_the_registry_says_what_it_is(
    own_cache: Path, tmp_path: Path
) -> None:
    path = tmp_path / "own.safetensors"
    path.write_bytes(b"first")
    file = WeightFile((LocalSource(str(path)),), "MIT", "", 0)
    download.fetch(file)
    path.write_bytes(b"second")
    assert download.fetch(file).sha256 == sha256(b"second")
    with pytest.raises(ModelUnavailableError, match="or is not the file of the registry"):
        download.fetch(dataclasses.replace(file, sha256=sha256(b"first")))
    path.unlink()
    with pytest.raises(ModelUnavailableError, match=f"{path}: no such file"):
        download.fetch(file, offline=True)


def test_a_record_can_be_read_back_and_replaced(own_cache: Path) -> None:
    assert checksums.recorded("a key") is None
    checksums.record("a key", "ab" * 32)
    checksums.record("a key", "cd" * 32)
    assert checksums.recorded("a key") == "cd" * 32


@pytest.mark.parametrize("content", ["{", "[]", ""])
def test_a_damaged_record_is_named(own_cache: Path, content: str) -> None:
    own_cache.mkdir()
    (own_cache / "digests.json").write_text(content)
    with pytest.raises(ModelUnavailableError, match="digests.json is damaged") as caught:
        checksums.recorded("a key")
    assert "Delete it" in caught.value.hint
