"""The model's card: a draft from what a run knows of itself, as the Hub reads it; no torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from resshift_cli.system import atomic

if TYPE_CHECKING:
    from resshift_cli.training.recipe import RunSpec

_OPEN = "license: unknown"


def is_draft(path: Path) -> bool:
    """Whether nobody has filled in the licence of a card yet."""
    text = path.read_text(encoding="utf-8", errors="replace")
    front = text.split("\n---", 1)[0].splitlines()
    return any(line.startswith(_OPEN) for line in front)


def draft(
    path: Path,
    run: RunSpec,
    latest: Mapping[str, float],
    *,
    training: int,
    held_out: int,
    start: str = "",
    autoencoder: str = "",
) -> None:
    """Write a draft, unless somebody has filled in the licence of the one that is there.

    Args:
        path: README.md, beside the weights.
        run: the configuration.
        latest: what was last measured, by name.
        training: pictures trained on.
        held_out: pictures kept for validation.
        start: name of the weight file that the run started from, or "".
        autoencoder: name of the file that the autoencoder's weights are from, or "".

    Raises:
        OutputError: it can't be written.
    """
    if path.exists() and not is_draft(path):
        return
    facts = _facts(run, latest) | {"pictures": f"{training} to train on, {held_out} held out"}
    rows = "\n".join(f"| {name} | {value} |" for name, value in facts.items())
    part = ""
    if start:
        part = f"\nThe training started from `{start}`, whose licence may bind this model.\n"
    if autoencoder:
        part += f"\nThe file holds the autoencoder of `{autoencoder}`, under that one's licence.\n"
    atomic.write(path, _CARD.format(licence=_OPEN, rows=rows, part=part).encode())


def _facts(run: RunSpec, latest: Mapping[str, float]) -> dict[str, object]:
    """What a card tells of a run, as it is to be read."""
    model, train = run.model, run.train
    chain, unet, codec = model.schedule, model.denoiser, model.autoencoder
    widths = ", ".join(str(unet.model_channels * mult) for mult in unet.channel_mult)
    facts: dict[str, object] = {
        "enlarges by": model.scale,
        "network": f"Swin U-Net of widths {widths}; it predicts {model.predict}",
        "autoencoder": f"{codec.kind}, 1/{codec.factor} of the side, {codec.channels} channels",
        "chain": f"{chain.steps} steps, kappa {chain.kappa:g}, p {chain.p:g}",
        "training": f"{latest['step']:.0f} of {train.steps} steps, {train.batch} crops of "
        f"{train.crop} px each, objective {train.objective}",
        "degradation": train.degrade.kind,
    }
    if "gain_db" in latest:
        facts["PSNR-Y over bicubic, one step"] = (
            f"{latest['gain_db']:+.2f} dB on held-out pictures (worst {latest['worst_db']:+.2f} dB)"
        )
    return facts


_CARD = """---
{licence}  # to be filled in: without a licence nobody else may use the model
library_name: resshift
pipeline_tag: image-to-image
tags:
- super-resolution
- resshift
---

# A ResShift model

`model.safetensors` says in its metadata how its networks are built and which chain they walk:

    resshift upscale photo.jpg --weights model.safetensors

| | |
|---|---|
{rows}
{part}
To be filled in: the licence above, what pictures it was trained on and under which terms, what it
is good for, and where it fails.

Method: Yue, Wang, Loy, *ResShift: Efficient Diffusion Model for Image Super-resolution by Residual
Shifting*, NeurIPS 2023, arXiv:2307.12348.
"""
