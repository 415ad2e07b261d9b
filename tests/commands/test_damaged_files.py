"""Damaged files, and what is no file at all, among good ones."""

from __future__ import annotations

import os
import random
import shutil
import socket
from contextlib import suppress
from itertools import islice
from pathlib import Path

import damage
import numpy as np
import pytest
from faults import COUNTS, FAULTS, among, errors_only, found_in, on_unix, run
from PIL import Image

from resshift_cli.batch import ledger
from resshift_cli.batch.record import record_of
from resshift_cli.commands import app as cli
from resshift_cli.errors import ImageUnreadableError, ResShiftError, UnsupportedImageError
from resshift_cli.imaging import read
from resshift_cli.imaging.picture import Picture
from resshift_cli.system.journal import Journal

pytestmark = on_unix


def no_files(folder: Path) -> None:
    """What has an image's name but is no regular file."""
    os.mkfifo(folder / "pipe.png")
    (folder / "device.png").symlink_to("/dev/zero")
    (folder / "nowhere.png").symlink_to("nothing")
    (folder / "itself.png").symlink_to("itself.png")
    with socket.socket(socket.AF_UNIX) as plug:
        here = Path.cwd()
        os.chdir(folder)  # a socket's path may not be long
        try:
            plug.bind("socket.png")
        finally:
            os.chdir(here)


NO_FILES = {"pipe.png": 2, "device.png": 2, "socket.png": 2, "nowhere.png": 3, "itself.png": 3}


def test_a_batch_does_every_good_file_among_hundreds_of_bad_ones(
    tmp_path: Path, quick: tuple[object, ...]
) -> None:
    folder, output = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    spoilt = islice(damage.spoilt(FAULTS), 0, None, 1 if FAULTS > 1 else 2)
    liars = islice(damage.lying(), 0, None, 1 if FAULTS > 1 else 5)
    bad = {file.name: file for file in (*spoilt, *liars, *damage.strange())}
    among(folder, list(bad.values()))
    no_files(folder)
    good = [f"good_{sample.kind.replace(' ', '_')}{sample.suffix}" for sample in damage.whole()]
    for name, sample in zip(good, damage.whole(), strict=True):
        (folder / name).write_bytes(sample.content)

    ran = run("batch", folder, "-o", output, *quick)

    assert (ran.code, ran.err.count("more, see")) == (1, 1)
    errors_only(ran.err)
    records = {}
    for line in map(record_of, Journal(output / ledger.NAME, hint="").lines()):
        records[line.input] = line
    assert records.keys() == {*bad, *good, *NO_FILES}
    done = {record.output: name for name, record in records.items() if record.status == "done"}
    assert found_in(output).keys() == done.keys()
    assert ran.out == ""
    for name, record in records.items():
        code = record.exit_code if record.status == "failed" else 0
        if name in good:
            assert code == 0, record.error
        else:
            ends = bad[name].ends if name in bad else {NO_FILES[name]}
            assert code in ends, f"{name}: {code}, {record.error}"
        COUNTS[f"files in a batch, exit code {code}"] += 1
    for name in done:
        with Image.open(output / name) as image:
            image.load()


def test_upscale_refuses_or_does_a_damaged_file_and_leaves_nothing_behind(
    tmp_path: Path, quick: tuple[object, ...], capfd: pytest.CaptureFixture[str]
) -> None:
    every = [*damage.spoilt(FAULTS, first=10_000), *damage.strange()]
    for file in random.Random(FAULTS).sample(every, min(len(every), 60 * FAULTS)):
        source, output = tmp_path / file.name, tmp_path / "out"
        source.write_bytes(file.content)
        code = cli.run([str(word) for word in ("upscale", source, "-o", f"{output}/", *quick)])
        out, err = capfd.readouterr()
        assert code in file.ends, f"{file.name}: {code}, {err}"
        assert len(errors_only(err)) == (code != 0), err
        assert len(out.splitlines()) == 0
        assert (len(found_in(output)) if output.exists() else -1) == (1 if code == 0 else -1)
        shutil.rmtree(output, ignore_errors=True)
        source.unlink()
        COUNTS[f"files by upscale, exit code {code}"] += 1


def kept(picture: Picture) -> tuple[object, ...]:
    return picture.icc, picture.exif, picture.xmp, picture.iptc, picture.dpi, picture.text


def test_a_file_without_its_end_is_refused_or_all_that_is_missing_is_of_no_consequence(
    tmp_path: Path,
) -> None:
    path = tmp_path / "image"
    whole = {}
    for sample in damage.whole():
        path.write_bytes(sample.content)
        whole[sample.kind] = read.read(path, first_frame=True)
    for file in damage.spoilt(4 * FAULTS, first=20_000):
        if file.cut and file.of is not None and not file.of.moves:
            path.write_bytes(file.content)
            before = whole[file.of.kind]
            with suppress(ImageUnreadableError, UnsupportedImageError):  # its profile is gone
                after = read.read(path)
                assert np.array_equal(after.pixels, before.pixels), file.name
                assert kept(after) == kept(before), file.name
            COUNTS["files cut short"] += 1


def test_no_decoder_speaks_for_itself(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "image.tif"
    for file in damage.spoilt(4 * FAULTS, first=30_000):
        if file.of is not None and file.of.suffix == ".tif":
            path.write_bytes(file.content)
            with suppress(ResShiftError):
                read.read(path)
            assert capfd.readouterr() == ("", ""), file.name
            COUNTS["damaged TIFFs read in silence"] += 1


@pytest.mark.parametrize(
    "name, code", [*NO_FILES.items(), ("folder.png", 2), ("none.png", 3), ("long", 3)]
)
def test_what_is_no_file_is_refused_at_once(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str, code: int
) -> None:
    no_files(tmp_path)
    (tmp_path / "folder.png").mkdir()
    source = tmp_path / (f"{'n' * 300}.png" if name == "long" else name)
    assert cli.run(["upscale", str(source), "--model", "tiny-x4", "--quiet"]) == code
    assert len(errors_only(capfd.readouterr().err)) == 1
    assert found_in(tmp_path) == {}


@pytest.mark.parametrize("name", ["bomb.png", "text_bomb.png", "zip.png", "tags_of_nothing.tif"])
def test_in_a_process_of_its_own_a_strange_file_is_refused_just_so(
    tmp_path: Path, name: str
) -> None:
    file = next(file for file in damage.strange() if file.name == name)
    (tmp_path / name).write_bytes(file.content)
    ran = run("upscale", tmp_path / name, "--model", "tiny-x4", "--quiet")
    assert (ran.code in file.ends, ran.out, len(errors_only(ran.err))) == (True, "", 1)
    assert list(found_in(tmp_path)) == [name]
