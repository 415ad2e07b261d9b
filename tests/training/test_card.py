from __future__ import annotations

import re
from pathlib import Path

import pytest
from tiny_run import RUN

from resshift_cli.training import card

MEASURED = {"step": 6.0, "loss": 0.5, "gain_db": 0.25, "worst_db": -1.0}


def drafted(folder: Path, measured: dict[str, float], autoencoder: str = "") -> str:
    path = folder / "README.md"
    card.draft(path, RUN, measured, training=9, held_out=1, autoencoder=autoencoder)
    return path.read_text()


def test_a_draft_tells_what_was_trained_and_how_well_it_does(tmp_path: Path) -> None:
    rows = dict(
        re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", drafted(tmp_path, MEASURED), re.MULTILINE)
    )
    assert rows == {
        "enlarges by": "4",
        "network": "Swin U-Net of widths 32; it predicts residual",
        "autoencoder": "space-to-depth, 1/4 of the side, 48 channels",
        "chain": "4 steps, kappa 2, p 0.3",
        "training": "6 of 6 steps, 2 crops of 64 px each, objective balanced",
        "degradation": "mild",
        "PSNR-Y over bicubic, one step": "+0.25 dB on held-out pictures (worst -1.00 dB)",
        "pictures": "9 to train on, 1 held out",
    }


def test_before_the_first_validation_nothing_is_claimed(tmp_path: Path) -> None:
    assert "PSNR" not in drafted(tmp_path, {"step": 2.0, "loss": 0.5})


@pytest.mark.parametrize("name", ["", "vq.safetensors"])
def test_an_autoencoder_that_is_part_of_the_file_is_named_with_its_licence(
    tmp_path: Path, name: str
) -> None:
    text = drafted(tmp_path, MEASURED, name)
    assert ("holds the autoencoder of `vq.safetensors`, under that one's licence" in text) == bool(
        name
    )


@pytest.mark.parametrize(
    ("text", "draft"),
    [
        ("---\nlicense: unknown  # to be filled in\n---\n", True),
        ("---\nlibrary_name: resshift\nlicense: unknown\n---\n", True),
        ("---\nlicense: mit\n---\nIt said `license: unknown`:\nlicense: unknown\n", False),
        ("A card without front matter.\n", False),
    ],
)
def test_a_card_is_a_draft_until_its_licence_is_filled_in(
    tmp_path: Path, text: str, draft: bool
) -> None:
    path = tmp_path / "README.md"
    path.write_text(text)
    assert card.is_draft(path) == draft
    assert (drafted(tmp_path, MEASURED) == text) != draft
