"""What the bundled model is held against is measured rightly."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def bars() -> Iterator[ModuleType]:
    scripts = str(REPOSITORY / "scripts")
    sys.path.insert(0, scripts)
    import measure_bars

    yield measure_bars
    sys.path.remove(scripts)


@pytest.mark.parametrize(
    ("read", "text", "errors"),
    [
        ("kitten", "kitten", 0),
        ("sitting", "kitten", 3),
        ("", "kitten", 6),
        ("kit ten", "kitten", 1),
        (" two\n\n words \n", "two words", 0),
        ("b", "a b c", 4),
    ],
)
def test_the_character_error_counts_edits_per_character(
    bars: ModuleType, read: str, text: str, errors: int
) -> None:
    assert bars.character_error(read, text) == pytest.approx(errors / len(text))
