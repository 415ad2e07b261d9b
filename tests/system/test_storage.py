"""Files elsewhere: read as they are, written whole or not at all."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import lossy_proxy
import pytest

from resshift_cli.errors import InputMissingError, OutputError, UsageError
from resshift_cli.system import patience, storage
from resshift_cli.system.storage import Remote, is_url

MOST = 1 << 30


@pytest.mark.parametrize(
    "name, told",
    [
        ("s3://bucket/a b.png", True),
        ("https://host/a.png?sign=1", True),
        ("C:\\photos\\a.png", False),
        ("a.png", False),
        ("./s3:/a.png", False),
    ],
)
def test_a_url_is_no_path(name: str, told: bool) -> None:
    assert is_url(name) == told


@pytest.mark.parametrize(
    "url, shown, name",
    [
        (
            "https://me:secret@host:8/d/a%20b.png?sig=secret#x",
            "https://host:8/d/a%20b.png",
            "a b.png",
        ),
        ("sftp://me:secret@host/d/a.png", "sftp://host/d/a.png", "a.png"),
        ("s3://bucket/d/a?b.png", "s3://bucket/d/a?b.png", "a?b.png"),
        ("s3://bucket/d/", "s3://bucket/d/", ""),
        ("abfs://box@account.net/a.png", "abfs://box@account.net/a.png", "a.png"),
        ("https://host/a\x1b.png", "https://host/a\\x1b.png", "a\x1b.png"),
    ],
)
def test_neither_logins_nor_signatures_are_shown(url: str, shown: str, name: str) -> None:
    assert (Remote(url).shown, Remote(url).name) == (shown, name)


def test_what_packages_log_is_printed_only_where_somebody_asks_for_logs() -> None:
    program = (
        "import logging, sys\nfrom resshift_cli.system import storage\n"
        "if sys.argv[1:]: logging.basicConfig()\n"
        "for name in ('gcsfs', 'azure.core', 's3fs', 'fsspec.sftp', 'paramiko.transport'):\n"
        "    logging.getLogger(name).warning('no login')"
    )
    for asked in ([], ["asked"]):
        command = [sys.executable, "-c", program, *asked]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stderr
        assert told.count("no login") == 5 * len(asked)


@pytest.mark.parametrize("size", [0, 5, 12, 13])
def test_what_is_read_in_blocks_is_what_is_there(
    s3: Any, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(storage, "BLOCK", 4)
    content = os.urandom(size)
    s3.pipe_file("photos/a.png", content)
    file = io.BytesIO()
    version = Remote("s3://photos/a.png").fetch(file, MOST)
    assert file.getvalue() == content
    assert version == s3.info("photos/a.png")["ETag"].strip('"')


def test_what_is_there_is_only_replaced_when_asked(s3: Any, tmp_path: Path) -> None:
    file, place = tmp_path / "a.png", Remote("s3://photos/d/a.png")
    file.write_bytes(b"first")
    assert not place.exists()
    place.send(file, overwrite=False)
    file.write_bytes(b"second")
    with pytest.raises(OutputError, match=r"s3://photos/d/a\.png exists already"):
        place.send(file, overwrite=False)
    assert place.exists() and s3.cat_file("photos/d/a.png") == b"first"
    place.send(file, overwrite=True)
    assert s3.cat_file("photos/d/a.png") == b"second"
    assert s3.info("photos/d/a.png")["ContentType"] == "image/png"


def test_a_store_that_fails_one_request_in_five_loses_nothing(
    lossy: lossy_proxy.Lossy, s3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "BLOCK", 1000)
    monkeypatch.setattr(patience, "BACK_OFF", 0.01)
    for number in range(8):
        content, file = os.urandom(3000), tmp_path / f"{number}.png"
        file.write_bytes(content)
        Remote(f"s3://photos/{number}.png").send(file, overwrite=False)
        came = io.BytesIO()
        Remote(f"s3://photos/{number}.png").fetch(came, MOST)
        assert came.getvalue() == s3.cat_file(f"photos/{number}.png") == content
    assert lossy.faults.keys() == set(lossy_proxy.FAULTS)


def test_what_is_sent_in_parts_is_there_whole_or_not_at_all(
    lossy: lossy_proxy.Lossy, s3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "BACK_OFF", 0.01)
    monkeypatch.setattr("s3fs.core.calculate_chunksize", lambda *size, **options: 5 << 20)
    content, file = os.urandom((11 << 20) + 5), tmp_path / "a.png"
    file.write_bytes(content)
    place = Remote("s3://photos/a.png")
    place.send(file, overwrite=False)
    assert s3.cat_file("photos/a.png") == content and s3.info("photos/a.png")["ETag"][-3:-1] == "-3"
    file.write_bytes(content[::-1])
    with pytest.raises(OutputError, match="exists already"):
        place.send(file, overwrite=False)
    assert s3.cat_file("photos/a.png") == content


def test_parts_of_what_is_refused_are_not_kept(
    s3: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("s3fs.core.calculate_chunksize", lambda *size, **options: 5 << 20)
    (tmp_path / "a.png").write_bytes(bytes(11 << 20))
    s3.pipe_file("photos/a.png", b"there")
    with pytest.raises(OutputError, match="exists already"):
        Remote("s3://photos/a.png").send(tmp_path / "a.png", overwrite=False)
    assert s3.cat_file("photos/a.png") == b"there"
    assert not s3.call_s3("list_multipart_uploads", Bucket="photos").get("Uploads")


def test_a_file_elsewhere_is_read_by_pieces_as_one_here(s3: Any) -> None:
    content = os.urandom(storage.HEAD * 4 + 9)
    s3.pipe_file("photos/a::b.png", content)
    place = Remote("s3://photos/a::b.png")
    with place.open(len(content), content[: storage.HEAD]) as file:
        for start, size in ((5, 9), (storage.HEAD - 3, 20), (200_000, 7), (0, 4), (10, 150_000)):
            assert (file.seek(start), file.read(size)) == (start, content[start : start + size])
        assert file.seek(-9, os.SEEK_END) and file.read() == content[-9:] and not file.read(1)
    assert place.digest() == hashlib.sha256(content).hexdigest()


def test_a_small_file_is_put_once_where_that_was_asked_for(s3: Any) -> None:
    place = Remote("s3://photos/lock")
    assert [place.write(b"one", create=True), place.write(b"two", create=True)] == [True, False]
    assert place.write(b"two") and b"".join(place.blocks()) == b"two"
    place.remove()
    place.remove()
    assert place.known() is None and s3.find("photos") == []


def test_what_can_not_be_had_is_told_in_a_sentence(s3: Any, tmp_path: Path) -> None:
    file = io.BytesIO()
    with pytest.raises(InputMissingError, match=r"There is no s3://photos/none\.png\."):
        Remote("s3://photos/none.png").fetch(file, MOST)
    with pytest.raises(UsageError, match="There is no way to gopher://a/b here"):
        Remote("gopher://a/b").fetch(file, MOST)
    with pytest.raises(UsageError, match="gs:// needs packages") as caught:
        Remote("gs://a/b").fetch(file, MOST)
    assert "resshift[gs]" in caught.value.hint
    with pytest.raises(UsageError, match="Nothing can be written to https://a/b"):
        Remote("https://me:secret@a/b").exists()
