"""A folder may be cut anywhere: the parts make the whole, bit for bit."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from batch_folder import results
from command_line import Run

from resshift_cli.batch import ledger
from resshift_cli.batch.groups import units
from resshift_cli.batch.ledger import Ledger
from resshift_cli.batch.shards import MOST, Shard, pages
from resshift_cli.errors import OutputError

NAMES = [f"{number:05}.png" for number in range(4000)]


def test_pages_hold_all_names_and_none_too_many() -> None:
    cut = list(pages(NAMES))
    assert [name for page in cut for name in page] == NAMES
    assert max(map(len, cut)) <= MOST and 20 < len(cut) < 50
    assert len(list(pages(NAMES[:64]))) == 1


def test_a_name_more_or_less_changes_few_pages() -> None:
    before = {tuple(page) for page in pages(NAMES)}
    for place in random.Random(0).sample(range(4000), 20):
        after = {tuple(page) for page in pages(NAMES[:place] + NAMES[place + 1 :])}
        assert len(before - after) <= 6


@pytest.mark.parametrize("of", [1, 2, 3, 16, 17, 40])
def test_every_unit_is_one_shard_s(of: int) -> None:
    taken = []
    for number in range(1, of + 1):
        for page in pages(NAMES):
            share = Shard(number, of).share(page)
            taken += [name for place, name in enumerate(page) if share and place in share]
    assert sorted(taken) == NAMES


def test_a_small_folder_is_shared_by_all() -> None:
    page = NAMES[:20]
    shares = [Shard(number, 8).share(page) for number in range(1, 9)]
    counts = [sum(place in share for place in range(20)) for share in shares if share is not None]
    assert len(counts) == 8 and set(counts) == {2, 3}


def test_units_depend_on_names_and_sizes_alone() -> None:
    sizes = [(8, 8) if number % 3 else None for number in range(12)]
    names = [str(number) for number in range(12)]
    made = units(names, sizes, lambda size: 4)
    assert [unit.names for unit in made] == [
        *(["0"], ["1", "2", "4", "5"], ["3"], ["6"], ["7", "8", "10", "11"], ["9"])
    ]
    assert [unit.count for unit in made] == [1, 4, 1, 1, 4, 1]


def test_shards_make_what_one_process_makes_and_their_ledgers_become_one(
    batch: Run, alike: Path
) -> None:
    whole, parts = alike.with_name("whole"), alike.with_name("parts")
    assert batch(alike, "-o", whole).code == 0
    counts = []
    for number in (2, 1, 3):
        ran = batch(alike, "-o", parts, "--shard", f"{number}/3")
        assert ran.code == 0
        counts.append(len(Ledger(parts).results))
    assert counts[-1] == 13 and 0 < counts[0] < counts[1] < 13
    assert len(ledger.files(parts)) == 3
    assert "13 proven, 0 problems" in batch(alike, "-o", parts, "--verify").err
    assert "0 done, 13 finished before" in batch(alike, "-o", parts).err
    assert ledger.files(parts) == [ledger.ALL]
    assert "0 done, 13 finished before" in batch(alike, "-o", parts).err
    assert "13 proven, 0 problems" in batch(alike, "-o", parts, "--verify").err
    kept = {name: data for name, data in results(parts).items() if "resshift-batch" not in name}
    assert kept == results(whole)


def test_shards_of_one_cut_may_be_at_work_beside_each_other_and_nobody_else(
    tmp_path: Path,
) -> None:
    def refused(shard: Shard) -> bool:
        try:
            with ledger.locked(tmp_path, shard):
                return False
        except OutputError:
            return True

    with ledger.locked(tmp_path, Shard(1, 4)):
        assert not refused(Shard(2, 4))
        assert refused(Shard(1, 4)) and refused(Shard(1, 3)) and refused(Shard())
    with ledger.locked(tmp_path):
        assert refused(Shard(1, 4))
    assert not refused(Shard(1, 3))
    with ledger.locked_part(tmp_path, Shard(1, 4), Shard(2, 2)):  # of a shard that was killed
        assert refused(Shard()) and refused(Shard(1, 3)) and not refused(Shard(2, 4))


@pytest.mark.parametrize("words", ["0/3", "4/3", "3", "1/0", "a/3", "auto/3"])
def test_what_is_no_part_is_refused(
    batch: Run, folder: Path, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    monkeypatch.delenv("SLURM_ARRAY_TASK_ID", raising=False)
    monkeypatch.delenv("JOB_COMPLETION_INDEX", raising=False)
    ran = batch(folder, "--shard", words)
    assert (ran.code, len(ran.err.splitlines())) == (2, 1)
    assert not folder.with_name("in_x4").exists()


@pytest.mark.parametrize(
    "said",
    [{"SLURM_ARRAY_TASK_ID": "5", "SLURM_ARRAY_TASK_MIN": "4"}, {"JOB_COMPLETION_INDEX": "1"}],
)
def test_a_scheduler_may_say_which_part_it_is(
    batch: Run, folder: Path, monkeypatch: pytest.MonkeyPatch, said: dict[str, str]
) -> None:
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    ran = batch(folder, "--shard", "auto/2")
    assert ran.code == 0
    assert (folder.with_name("in_x4") / "resshift-batch.2-of-2.jsonl").exists()
