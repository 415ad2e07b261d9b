"""Batches whose images, results and ledgers are in a store."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lossy_proxy
import pytest
from batch_folder import results
from command_line import Run, make_photo, posix, start
from PIL import Image
from stores import SECRET

from resshift_cli.batch import ledger
from resshift_cli.batch.ledger import Ledger
from resshift_cli.batch.shards import Shard
from resshift_cli.system import leases, patience

IN, OUT = "s3://photos/in", "s3://photos/out"


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is dead is seen to be so soon, and what fails is asked for again at once."""
    for name, seconds in {"RENEWED": 0.3, "DEAD": 5.0, "LOOK": 0.1}.items():
        monkeypatch.setattr(leases, name, seconds)
    monkeypatch.setattr(patience, "BACK_OFF", 0.01)


@pytest.fixture
def send(s3: Any) -> Callable[[Path], None]:
    """Puts the images of a folder where `IN` is."""

    def send(folder: Path) -> None:
        for name, content in results(folder).items():
            if content is not None:
                s3.pipe_file(f"photos/in/{name}", content)

    return send


def there(s3: Any, place: str = OUT) -> dict[str, bytes]:
    """All results in a place, without its ledger."""
    root = place.removeprefix("s3://")
    found = {path[len(root) + 1 :]: s3.cat_file(path) for path in s3.find(root)}
    return {name: content for name, content in found.items() if "resshift-batch" not in name}


def here(folder: Path) -> dict[str, bytes]:
    found = {name: data for name, data in results(folder).items() if data is not None}
    return {name: data for name, data in found.items() if "resshift-batch" not in name}


def test_from_store_to_store_the_results_are_those_of_folders_bit_for_bit(
    batch: Run, alike: Path, s3: Any, send: Callable[[Path], None]
) -> None:
    send(alike)
    ran, local = batch(IN, "-o", OUT), batch(alike, "-o", alike.with_name("out"))
    assert (ran.code, local.code) == (0, 0), ran.err
    assert there(s3) == here(alike.with_name("out")) and len(there(s3)) == 13
    assert f"13 images in {IN}: 13 done, 0 finished before, 0 failed" in ran.err
    again = batch(IN, "-o", OUT, "--json", "--report", "s3://photos/told.csv")
    assert again.code == 0 and '"skipped": 13' in again.out
    assert s3.cat_file("photos/told.csv").count(b"finished before") == 13
    proof = batch(IN, "-o", OUT, "--verify")
    assert (proof.code, "13 proven, 0 problems" in proof.err) == (0, True)
    whole = b"".join(s3.cat_file(path) for path in s3.find("photos"))
    assert SECRET.encode() not in whole and SECRET not in ran.err + again.out + proof.err


def test_one_end_may_be_here_and_the_other_in_a_store(
    batch: Run, folder: Path, s3: Any, send: Callable[[Path], None]
) -> None:
    send(folder)
    assert batch(folder).code == 0
    assert batch(folder, "-o", OUT).code == batch(IN, "-o", folder.with_name("got")).code == 0
    assert there(s3) == here(folder.with_name("got")) == here(folder.with_name("in_x4"))
    told = batch(IN, "-o", folder.with_name("got"), "--dry-run")
    assert "0 to do, 3 finished before" in told.err
    assert batch(IN).code == 0 and there(s3, "s3://photos/in_x4") == there(s3)


def test_a_store_that_fails_one_request_in_five_gets_the_same(
    batch: Run, folder: Path, s3: Any, lossy: lossy_proxy.Lossy, send: Callable[[Path], None]
) -> None:
    send(folder)
    ran = batch(IN, "-o", OUT)
    assert (ran.code, "3 done" in ran.err) == (0, True), ran.err
    assert "0 done, 3 finished before" in batch(IN, "-o", OUT).err
    assert "3 proven, 0 problems" in batch(IN, "-o", OUT, "--verify").err
    assert batch(folder).code == 0
    assert there(s3) == here(folder.with_name("in_x4"))
    assert len(lossy.faults) == len(lossy_proxy.FAULTS)


def begun(weights: Path) -> Any:
    """A batch in a process of its own that has made two results."""
    process = start("batch", IN, "-o", OUT, "--weights", weights, "--steps", 1)
    assert process.stdout is not None
    for _ in range(2):
        process.stdout.readline()
    return process


@posix
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT])
def test_whatever_ends_it_the_same_command_goes_on(
    batch: Run,
    dozen: Path,
    s3: Any,
    send: Callable[[Path], None],
    tiny_weights: Path,
    sent: signal.Signals,
) -> None:
    send(dozen)
    process = begun(tiny_weights)
    process.send_signal(sent)
    process.communicate(timeout=60)
    done = len(Ledger(OUT).results)
    assert process.returncode == (130 if sent == signal.SIGINT else -9) and 2 <= done < 12
    ran = batch(IN, "-o", OUT)
    assert (ran.code, f"{12 - done} done, {done} finished before" in ran.err) == (0, True), ran.err
    assert batch(dozen, "-o", dozen.with_name("out")).code == 0
    assert there(s3) == here(dozen.with_name("out"))
    assert ledger.files(OUT) == [ledger.ALL] and not s3.glob("photos/out/.*")


def test_shards_make_what_one_makes_and_their_ledgers_become_one(
    batch: Run, alike: Path, s3: Any, send: Callable[[Path], None], tiny_weights: Path
) -> None:
    send(alike)
    one = (IN, "-o", OUT, "--weights", tiny_weights, "--steps", 1, "--shard", "2/2")
    other = start("batch", *one)
    assert batch(IN, "-o", OUT, "--shard", "1/2").code == 0
    assert (other.communicate()[1][-5:], other.returncode) == ("/out\n", 0)
    names = ledger.files(OUT)
    assert [name.split(".")[1] for name in names] == ["1-of-2", "2-of-2"]
    assert "0 done, 13 finished before" in batch(IN, "-o", OUT).err
    assert ledger.files(OUT) == [ledger.ALL] and len(Ledger(OUT).results) == 13
    assert batch(alike, "-o", alike.with_name("out")).code == 0
    assert there(s3) == here(alike.with_name("out"))


def test_what_changed_or_is_gone_is_made_again_and_what_is_not_ours_is_left(
    batch: Run, folder: Path, s3: Any, send: Callable[[Path], None]
) -> None:
    send(folder)
    assert batch(IN, "-o", OUT).code == 0
    make_photo(folder / "a.png", 8, 9)
    s3.put_file(str(folder / "a.png"), "photos/in/a.png")
    s3.rm_file("photos/out/b.jpg")
    s3.pipe_file("photos/out/sub/c.png", b"precious")
    ran = batch(IN, "-o", OUT)
    assert (ran.code, "2 done, 0 finished before, 1 failed" in ran.err) == (1, True), ran.err
    assert f"{OUT}/sub/c.png was changed since it was made" in ran.err
    assert s3.cat_file("photos/out/sub/c.png") == b"precious"
    assert "has a result that was changed" in batch(IN, "-o", OUT, "--verify").err
    assert batch(IN, "-o", OUT, "--overwrite").code == batch(folder).code == 0
    assert there(s3) == here(folder.with_name("in_x4"))


def test_an_image_is_known_by_its_etag_and_neither_by_size_nor_time(
    batch: Run, folder: Path, s3: Any, send: Callable[[Path], None]
) -> None:
    Image.new("RGB", (8, 9), "red").save(folder / "red.bmp")
    Image.new("RGB", (8, 9), "blue").save(folder / "blue.bmp")
    send(folder)
    assert batch(IN, "-o", OUT).code == 0
    s3.put_file(str(folder / "blue.bmp"), "photos/in/red.bmp")  # as large
    s3.put_file(str(folder / "a.png"), "photos/in/a.png")  # as it was
    ran = batch(IN, "-o", OUT)
    assert (ran.code, "1 done, 4 finished before" in ran.err) == (0, True), ran.err
    assert s3.cat_file("photos/out/red.bmp") == s3.cat_file("photos/out/blue.bmp")
    states = {s3.info(f"{IN}/{name}")["ETag"].strip('"') for name in ("red.bmp", "a.png")}
    assert states < {record.input_version for record in Ledger(OUT).results.values()}


def test_an_image_is_asked_for_once_and_its_first_bytes_twice(
    batch: Run, folder: Path, s3: Any, send: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    send(folder)
    call, asked = type(s3)._call_s3, []

    async def heard(self: Any, method: str, *arguments: Any, **options: Any) -> Any:
        asked.append((method, options.get("Key")))
        return await call(self, method, *arguments, **options)

    monkeypatch.setattr(type(s3), "_call_s3", heard)
    assert batch(IN, "-o", OUT).code == 0
    count = Counter(asked)
    assert (count["get_object", "in/a.png"], count["put_object", "out/a.png"]) == (3, 1), count


def test_what_was_left_half_written_is_removed_and_nothing_else(
    batch: Run, folder: Path, s3: Any
) -> None:
    stale = [".a.png.0123abcd.tmp", "sub/.c.png.ffffffff.tmp", "..resshift-batch.lock.01234567.tmp"]
    kept = [".a.png.tmp", ".a.png.0123abcX.tmp", ".other.0123abcd.tmp", "other/.c.png.ffffffff.tmp"]
    for name in (*stale, *kept):
        s3.pipe_file(f"photos/out/{name}", b"half")
    assert batch(folder, "-o", OUT).code == 0
    assert there(s3).keys() == {*kept, "a.png", "b.jpg", "sub/c.png"}


def test_names_that_lead_elsewhere_fail_by_name_and_the_others_are_done(
    batch: Run, photo: Path, s3: Any, tmp_path: Path
) -> None:
    good = ["ü é.png", "#[a]*%20.png", "x::file.png"]
    for key in (*good, "../out.png", "./b.png", "/c.png", "", "d/"):
        body = photo.read_bytes() if key.endswith(".png") else b""
        s3.call_s3("put_object", Bucket="photos", Key=f"in/{key}", Body=body)
    for place in (tmp_path / "deep" / "got", OUT):
        ran = batch(IN, "-o", place)
        assert ran.code == 1
        assert "3 done, 0 finished before, 3 failed" in ran.err, ran.err
        assert ran.err.count("is a name that no file can have") == 3
    assert sorted(there(s3)) == sorted(here(tmp_path / "deep" / "got")) == sorted(good)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["got"]


@pytest.mark.parametrize(
    "arguments, code, words",
    [
        (["s3://photos/none"], 3, "There is nothing in s3://photos/none."),
        (["s3://missing/in"], 3, "There is no s3://missing/in."),
        ([IN, "-o", "s3://missing/out"], 6, "There is no s3://missing/out."),
        ([IN, "-o", "https://host/out"], 2, "Nothing can be written to https://host/out."),
        ([IN, "-o", OUT, "--report", "https://host/a.csv"], 2, "Nothing can be written to https:"),
        ([IN, "-o", "hf://datasets/a/b"], 2, "Nothing can be written to hf://datasets/a/b."),
        (["https://host/in"], 2, "https://host/in"),
        (["gopher://host/in"], 2, "There is no way to gopher://host/in"),
        ([IN, "-o", IN], 2, "would fall among the inputs"),
        (["s3://photos"], 2, "Beside s3://photos there is no place for results."),
        ([IN, "--verify"], 2, "Name them with -o"),
        ([IN, "-o", OUT, "--verify"], 3, "There is no resshift-batch.jsonl in s3://photos/out"),
    ],
)
def test_what_can_not_be_is_said_in_a_line(
    batch: Run, photo: Path, s3: Any, arguments: list[str], code: int, words: str
) -> None:
    s3.put_file(str(photo), "photos/in/a.png")
    ran = batch(*arguments)
    assert (ran.code, words in ran.err) == (code, True), ran.err
    assert len(ran.err.splitlines()) == 1
    assert s3.find("photos") == ["photos/in/a.png"]


def test_without_a_login_nothing_is_read_and_none_is_named(
    batch: Run, folder: Path, s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(folder / "none"))
    type(s3).clear_instance_cache()
    for arguments, code in (([IN], 3), ([folder, "-o", OUT], 6)):
        ran = batch(*arguments)
        assert (ran.code, len(ran.err.splitlines())) == (code, 1), ran.err
        assert "no permission" in ran.err and "login" in ran.err


def test_another_batch_at_work_in_a_store_is_not_disturbed(
    batch: Run, folder: Path, s3: Any
) -> None:
    with ledger.locked(OUT):
        ran = batch(folder, "-o", OUT)
        assert (ran.code, f"Another batch is at work in {OUT}." in ran.err) == (6, True)
    assert batch(folder, "-o", OUT).code == 0
    assert len(there(s3)) == 3


def test_what_a_process_had_that_is_known_to_have_ended_is_free_at_once(
    s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "DEAD", 1000.0)
    parts = Shard(1, 2), Shard(3, 4)
    s3.pipe_file(f"photos/out/{ledger.lock_name(*parts)}", b"of a process that was killed")
    ledger.release(OUT, *parts)
    with ledger.locked_part(OUT, *parts):
        assert s3.find("photos/out") == [f"photos/out/{ledger.lock_name(*parts)}"]
    assert s3.find("photos") == []


def test_what_is_in_memory_of_this_process_is_a_store_too(batch: Run, folder: Path) -> None:
    from fsspec import filesystem

    memory = filesystem("memory")
    memory.store.clear()
    for name, content in here(folder).items():
        memory.pipe_file(f"/in/{name}", content)
    assert batch("memory://in", "-o", "memory://out").code == batch(folder).code == 0
    assert "0 done, 3 finished before" in batch("memory://in", "-o", "memory://out").err
    made = here(folder.with_name("in_x4"))
    assert {name: memory.cat_file(f"/out/{name}") for name in made} == made
    memory.store.clear()


def test_processes_of_one_machine_share_what_is_in_a_store(
    batch: Run, alike: Path, s3: Any, send: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    send(alike)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    began = time.time()
    ran = batch(IN, "-o", OUT, "--devices", "cpu,cpu")
    assert (ran.code, "13 done" in ran.err) == (0, True), (ran.err, time.time() - began)
    assert "0 done, 13 finished before" in batch(IN, "-o", OUT).err
    assert ledger.files(OUT) == [ledger.ALL]
