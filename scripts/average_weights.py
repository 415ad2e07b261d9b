"""Average the weights of two models of one step, the second of which may be of fewer blocks.

    python scripts/average_weights.py DEEP.safetensors SHALLOW.safetensors MEAN.safetensors
    python scripts/average_weights.py SAMPLES.safetensors MEAN.safetensors FURTHER.safetensors \
        --share 1.035 --eight-bits

Two ends of a training that began with the same weights lie in one valley, and what is between them
is often better than either (arXiv:2203.05482). The shallower network is grown first, within a copy
of the deeper one: blocks that only that has pass through what they are given. A share above 1 goes
on beyond the first, away from the second. A mean that the first file has beside samples is kept.
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
from resshift_cli.weights import checkpoint


def main(
    first: Annotated[Path, typer.Argument(help="A file of a run; its table is the result's.")],
    second: Annotated[Path, typer.Argument(help="One of the same layout, or of fewer blocks.")],
    target: Annotated[Path, typer.Argument(help="The file to write.")],
    share: Annotated[float, typer.Option(min=0, max=2, help="Of the first in the average.")] = 0.5,
    eight_bits: Annotated[bool, typer.Option(help="Write weights in eight bits.")] = False,
) -> None:
    """Write the average of two models' weights."""
    spec = specs.read_spec(first)
    networks = [_network(path) for path in (first, second)]
    if networks[0].spec != networks[1].spec:
        into = copy.deepcopy(networks[0])
        grown(networks[1], into, planes_std=0.0)
        networks[1] = into
    ours, theirs = (network.state_dict() for network in networks)
    average = {
        name: torch.lerp(theirs[name], weights, share)
        for name, weights in ours.items()
        if weights.is_floating_point()
    }
    networks[0].load_state_dict(ours | average)
    mean = SwinUNet(spec.denoiser) if spec.mean else None
    if mean is not None:
        checkpoint.load_mean(mean, first)
    checkpoint.save_model(target, spec, networks[0], mean=mean, bits=8 if eight_bits else 16)


def _network(path: Path) -> SwinUNet:
    network = SwinUNet(specs.read_spec(path).denoiser)
    checkpoint.load_network(network, path)
    return network


if __name__ == "__main__":
    typer.run(main)
