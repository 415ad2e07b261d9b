"""Write the network for the perceptual term of `resshift train`, see `restoration.features`.

    python scripts/feature_network.py training/features.pt2

Users of the models do not need it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor, nn

from resshift_cli.restoration.features import FeatureNetwork


class Directions(nn.Module):
    """`FeatureNetwork.directions` as a module."""

    def __init__(self) -> None:
        super().__init__()
        self.of = FeatureNetwork()

    def forward(self, images: Tensor) -> list[Tensor]:
        """Features of (N, 3, H, W) in [0, 1]."""
        return self.of.directions(images.contiguous(memory_format=torch.channels_last))


def main(
    file: Path,
    crop: Annotated[int, typer.Option(help="Side of the crops of the training.")] = 256,
) -> None:
    """Export the network for crops of one size, any number of them."""
    crops = torch.rand(2, 3, crop, crop)
    shapes = ({0: torch.export.Dim("count", min=1)},)
    torch.export.save(torch.export.export(Directions(), (crops,), dynamic_shapes=shapes), file)


if __name__ == "__main__":
    typer.run(main)
