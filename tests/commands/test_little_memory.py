"""What memory is too small for is done otherwise, or refused."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import damage
import pytest
from command_line import as_from_a_shell
from faults import COUNTS, FAULTS, among, errors_only, found_in, make, on_unix, run_from_nothing

pytestmark = on_unix

limits_memory = pytest.mark.skipif(
    sys.platform != "linux", reason="other systems do not limit it so"
)


def no_memory_beyond(size: int) -> Callable[[], None]:
    def limit() -> None:
        import resource

        as_from_a_shell()
        resource.setrlimit(resource.RLIMIT_DATA, (size, size))

    return limit


LIARS = ("bmp_of_26x2147483647.bmp", "endless.png")


@limits_memory
@pytest.mark.parametrize("name", LIARS)
def test_a_header_that_claims_the_absurd_costs_a_batch_no_more_than_that_file(
    tmp_path: Path, quick: tuple[object, ...], name: str
) -> None:
    folder, output = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    among(folder, [f for f in (*damage.lying(), *damage.strange()) if f.name == name])
    make(folder / "good.png")
    loud = [word for word in quick if word != "--quiet"]
    limit = no_memory_beyond(600 << 20)
    ran = run_from_nothing("batch", folder, "-o", output, *loud, preexec_fn=limit)
    assert list(found_in(output)) == ["good.png"]
    assert (ran.code, ran.err.count("error: ")) == (1, 1)


@limits_memory
@pytest.mark.parametrize("megabytes", range(400, 400 + 60 * min(FAULTS, 5), 60))
def test_what_memory_is_too_small_for_is_done_otherwise_or_refused(
    tmp_path: Path, quick: tuple[object, ...], megabytes: int
) -> None:
    """After a large image the allocators may have too little left for a small one as well."""
    (tmp_path / "in").mkdir()
    photos = [make(tmp_path / "in" / f"{side}.png", side, side) for side in (700, 12)]
    output, limit = tmp_path / "out", no_memory_beyond(megabytes << 20)
    for words in (
        ("batch", tmp_path / "in", "-o", output),
        ("upscale", *photos, "-o", f"{output}/"),
    ):
        ran = run_from_nothing(*words, *quick, "--tile", 700, preexec_fn=limit)
        told = errors_only(ran.err)
        assert all("not enough memory" in line for line in told), ran
        done = len(found_in(output)) if output.exists() else 0
        assert (ran.code, done) == (int(bool(told)), 2 - len(told))
        shutil.rmtree(output, ignore_errors=True)
        COUNTS["images beyond the memory"] += 1
