"""What a batch would do, and what it would take."""

from __future__ import annotations

import json
import re
from pathlib import Path

from batch_folder import make_animation
from command_line import Run, make_photo
from command_line import files as files_of
from image_files import half_floats
from PIL import Image


def test_a_dry_run_tells_what_it_would_take_and_writes_nothing(batch: Run, folder: Path) -> None:
    before = files_of(folder.parent)
    ran = batch(folder, "--dry-run")
    assert (ran.code, ran.out) == (0, "")
    assert "3 to do, 0 finished before" in ran.err
    told = r"About \d+ \w+ on \w+ in \w+, \d+ MB of memory at the peak, and up to about .* free"
    assert re.search(told, ran.err)
    assert files_of(folder.parent) == before


def test_a_dry_run_knows_what_is_finished_and_what_would_be_refused(
    batch: Run, folder: Path
) -> None:
    batch(folder)
    output = folder.with_name("in_x4")
    (output / "b.jpg").write_bytes(b"edited")
    make_photo(folder / "d.png", 9, 9)
    before = files_of(output)
    report = json.loads(batch(folder, "--dry-run", "--json").out)
    assert report["counts"]["skipped"] == 2
    assert report["dry_run"]["images"] == 1
    assert [refused["input"] for refused in report["dry_run"]["refused"]] == ["b.jpg"]
    assert report["dry_run"]["disk_bytes"] == 16 * (folder / "d.png").stat().st_size
    assert files_of(output) == before


def test_a_dry_run_finds_what_headers_can_tell(batch: Run, folder: Path) -> None:
    (folder / "empty.png").touch()
    (folder / "text.png").write_text("no image")
    Image.new("CMYK", (8, 8)).save(folder / "ink.jpg")
    (folder / "hdr.dds").write_bytes(half_floats())
    make_animation(folder / "moving.gif")
    (folder / "nowhere.png").symlink_to("nothing")
    before = files_of(folder.parent)
    ran = batch(folder, "--dry-run", "--format", "jpg")
    assert "4 to do, 0 finished before, 5 that can't be done" in ran.err
    for words in ("empty.png is empty", "text.png is not an image", "hdr.dds is an HDR image"):
        assert words in ran.err
    assert "moving.gif.jpg: JPEG is written without animation" in ran.err
    assert files_of(folder.parent) == before
