"""Locks in stores: one at a time has them, and nobody who is dead."""

from __future__ import annotations

import threading
import time
from functools import partial
from typing import Any

import pytest

from resshift_cli.errors import OutputError
from resshift_cli.system import leases
from resshift_cli.system.storage import Remote

LOCK = Remote("s3://photos/.lock")
leased = partial(leases.leased, LOCK, busy="Somebody has it.", hint="Go elsewhere.")


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in {"RENEWED": 0.2, "DEAD": 5.0, "LOOK": 0.1}.items():
        monkeypatch.setattr(leases, name, seconds)


def test_who_lives_keeps_it_however_long_and_it_is_gone_afterwards(s3: Any) -> None:
    with leased():
        time.sleep(leases.DEAD + 1)
        with pytest.raises(OutputError, match="Somebody has it"), leased():
            pass
        assert LOCK.known() is not None
    assert s3.find("photos") == []


def test_who_waits_gets_it_when_it_is_let_go_of(s3: Any) -> None:
    ended = threading.Event()

    def have() -> None:
        with leased():
            began.set()
            ended.wait()

    began = threading.Event()
    other = threading.Thread(target=have)
    other.start()
    began.wait()
    threading.Timer(0.5, ended.set).start()
    with leased(patience=20):
        assert ended.is_set()
    other.join()


def test_a_signal_as_it_was_got_leaves_nothing_there(
    s3: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = threading.Thread.start

    def start_and_raise(self: threading.Thread) -> None:
        start(self)
        if self.name == "lease":
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(threading.Thread, "start", start_and_raise)
        with leased():
            pytest.fail("it is not had")
    assert s3.find("photos") == []


def test_what_a_dead_one_had_is_had_by_the_next_and_by_no_other(s3: Any) -> None:
    LOCK.write(b"of a process that was killed")
    with leased():
        assert not s3.cat_file("photos/.lock").startswith(b"of a process")
        with pytest.raises(OutputError, match="Somebody has it"), leased():
            pass
    assert s3.find("photos") == []


def test_who_was_taken_for_dead_leaves_it_to_who_has_it_now(s3: Any) -> None:
    with leased():
        LOCK.write(b"another's")
        time.sleep(1)
    assert s3.cat_file("photos/.lock") == b"another's"
