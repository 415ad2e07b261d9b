"""A checkpoint of the published kind, as small as can be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from goldens_support import (
    small_unet_spec,
    small_vq_spec,
)
from tiny_model import tiny_networks, tiny_spec

from resshift_cli.weights import convert

# As the published models, but for its size; there are masks in its state dict.
SPEC = tiny_spec(
    predict="x0",
    precondition=False,
    denoiser=small_unet_spec(channel_mult=(1,), num_res_blocks=1, swin_levels=()),
    autoencoder=small_vq_spec(ch_mult=(1, 1, 1), num_res_blocks=(1, 1, 1), codes=16),
)
EXPECTED = convert.shapes_of_denoiser(SPEC)


def state() -> dict[str, Any]:
    """A state dict of `SPEC`'s denoiser, the same every time."""
    return tiny_networks(SPEC)[0].network.state_dict()


def save(content: object, path: Path, archive: bool = True) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=archive)
    return path
