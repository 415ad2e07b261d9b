"""What stores have in their folders, and how their files begin."""

from __future__ import annotations

import os
from typing import Any

import lossy_proxy
import pytest

from resshift_cli.errors import InputMissingError, UsageError
from resshift_cli.system import listing, patience
from resshift_cli.system.storage import HEAD, Remote

FOLDER = Remote("s3://photos/in")


def put(store: Any, key: str, content: bytes = b"12345") -> None:
    """Put an object as it is called, whatever packages make of such names."""
    store.call_s3("put_object", Bucket="photos", Key=key, Body=content)


def names(folder: Remote, start: str = "") -> set[str]:
    return {entry.name + ("" if entry.known else "/") for entry in listing.entries(folder, start)}


def test_a_folder_has_its_files_and_the_folders_in_it_and_not_itself(s3: Any) -> None:
    for key in ("in/", "in/a.png", "in/b/c.png", "in/b/d/e.png", "in/q/", "into.png"):
        put(s3, key)
    assert names(FOLDER) == {"a.png", "b/", "q/"}
    assert names(FOLDER.below("b")) == {"c.png", "d/"}
    assert names(FOLDER, "a") == {"a.png"} and names(FOLDER.below("none")) == set()
    assert names(Remote("s3://photos")) == {"in/", "into.png"}


def test_what_no_file_can_be_called_is_shown_as_it_is(s3: Any) -> None:
    for key in ("in/../a.png", "in/./b.png", "in//c.png", "in/x::y.png", "in/[a]*?.png"):
        put(s3, key)
    assert names(FOLDER) == {"../", "./", "/", "x::y.png", "[a]*?.png"}


def test_what_comes_in_pages_is_all_there(s3: Any) -> None:
    from moto.s3.models import s3_backends

    bucket = s3_backends["123456789012"]["aws"]
    for number in range(1005):
        bucket.put_object("photos", f"in/{number:04}.png", b"")
    found = [entry.name for entry in listing.entries(FOLDER)]
    assert (len(found), len(set(found)), max(found)) == (1005, 1005, "1004.png")


def test_a_list_says_what_asking_for_the_file_says(s3: Any) -> None:
    put(s3, "in/a.png")
    (entry,) = listing.entries(FOLDER)
    assert entry.known == FOLDER.below("a.png").known()
    assert entry.known is not None and (entry.known.size, len(entry.known.version)) == (5, 32)


def test_the_first_bytes_of_many_files_come_whole_from_a_store_that_lies(
    s3: Any, lossy: lossy_proxy.Lossy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "BACK_OFF", 0.01)
    contents = [os.urandom(HEAD + 9 if number == 3 else 40 * number) for number in range(12)]
    files = [FOLDER.below(f"{number}.png") for number in range(12)]
    for number, content in enumerate(contents):
        put(s3, f"in/{number}.png", content)
    found = listing.heads(files, [len(content) for content in contents])
    assert found == [content[:HEAD] for content in contents]
    assert listing.heads([], []) == [] and listing.heads([FOLDER.below("none")], [9]) == [b""]


@pytest.mark.parametrize(
    "url, kind, words",
    [
        ("s3://missing/in", InputMissingError, "There is no s3://missing/in."),
        ("https://host/in", UsageError, "web servers do not say"),
        ("gopher://host/in", UsageError, "There is no way to gopher://host/in"),
    ],
)
def test_where_nothing_can_be_listed_that_is_said(
    s3: Any, url: str, kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words):
        next(listing.entries(Remote(url)))
