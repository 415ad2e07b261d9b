"""Texts are sorted, however many there are."""

from __future__ import annotations

import random

import pytest

from resshift_cli.system.sorting import in_order


@pytest.mark.parametrize("count", [0, 1, 9, 10, 11, 35])
def test_texts_come_in_order_whether_or_not_they_are_held(count: int) -> None:
    texts = [f"{number:03}\udcff\n" for number in range(count)]
    mixed = random.Random(0).sample(texts, count)
    assert list(in_order(iter(mixed), at_once=10)) == texts


def test_what_goes_wrong_while_they_are_taken_is_told_at_once() -> None:
    def broken() -> object:
        yield "a"
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        in_order(broken())  # type: ignore[arg-type]  # a generator is one
