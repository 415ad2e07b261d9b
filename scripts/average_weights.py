"""Average the weights of two models of one step, the second of which may be of fewer blocks.

    python scripts/average_weights.py DEEP.safetensors SHALLOW.safetensors MEAN.safetensors
    python scripts/average_weights.py SAMPLES.safetensors MEAN.safetensors FURTHER.safetensors \
        --share 1.035 --noise 1.4 --eight-bits --mean MEAN.safetensors

Two ends of a training that began with the same weights lie in one valley, and what is between them
is often better than either (arXiv:2203.05482). The shallower network is grown first, within a copy
of the deeper one: blocks that only that has pass through what they are given. A share above 1 goes
on beyond the first, away from the second. A mean that the first file has beside samples is kept,
unless another one is to take its place.

What noise adds is an error to training first of all, so that samples end with less of it than looks
real. With `--noise 1.4` the planes of noise count for so much more, by the first layer's weights.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Annotated

import torch
import typer

from resshift_cli.diffusion import specs
from resshift_cli.diffusion.denoiser import SwinUNet
from resshift_cli.training.growing import grown
from resshift_cli.training.network import FIRST
from resshift_cli.weights import checkpoint


def main(
    first: Annotated[Path, typer.Argument(help="A file of a run; its table is the result's.")],
    second: Annotated[Path, typer.Argument(help="One of the same layout, or of fewer blocks.")],
    target: Annotated[Path, typer.Argument(help="The file to write.")],
    share: Annotated[float, typer.Option(min=0, max=2, help="Of the first in the average.")] = 0.5,
    noise: Annotated[float, typer.Option(min=0, help="How much more noise counts.")] = 1.0,
    eight_bits: Annotated[bool, typer.Option(help="Write weights in eight bits.")] = False,
    mean: Annotated[Path | None, typer.Option(help="A mean's file, to go beside samples.")] = None,
) -> None:
    """Write the average of two models' weights."""
    spec = specs.read_spec(first)
    network = _network(first)
    ours, theirs = network.state_dict(), _as_large(_network(second), network).state_dict()
    average = {
        name: torch.lerp(theirs[name], weights, share)
        for name, weights in ours.items()
        if weights.is_floating_point()
    }
    if planes := spec.denoiser.noise_channels:
        average[FIRST][:, -planes:] *= noise  # they come last among what is shown
    beside = None
    if mean is not None:
        beside = _as_large(_network(mean), network)
    elif spec.mean:
        beside = SwinUNet(spec.denoiser)
        checkpoint.load_mean(beside, first)
    network.load_state_dict(ours | average)
    checkpoint.save_model(target, spec, network, mean=beside, bits=8 if eight_bits else 16)


def _as_large(network: SwinUNet, other: SwinUNet) -> SwinUNet:
    """A network grown to the size of another one, if it is smaller."""
    if network.spec == other.spec:
        return network
    into = copy.deepcopy(other)
    grown(network, into, planes_std=0.0)
    return into


def _network(path: Path) -> SwinUNet:
    network = SwinUNet(specs.read_spec(path).denoiser)
    checkpoint.load_network(network, path)
    return network


if __name__ == "__main__":
    typer.run(main)
