"""How much the networks of a layout have to compute, and how many parameters they have.

torch counts the operations of the networks themselves, built without any numbers in them (on the
`meta` device). They are a polynomial of the latent's area, which two runs tell. Importing what
torch counts with takes seconds, so that results are kept in the cache folder.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from resshift_cli import __version__
from resshift_cli.diffusion.autoencoder import VQAutoencoder
from resshift_cli.diffusion.denoiser import SwinUNet
from resshift_cli.diffusion.layers import GroupNorm, SiLU
from resshift_cli.diffusion.specs import DenoiserSpec, SpaceToDepthSpec, VQSpec
from resshift_cli.errors import OutputError
from resshift_cli.system import atomic
from resshift_cli.system import cache as cache_folder

FOLDER = "operations"  # of the cache folder


class Operations(NamedTuple):
    """Floating-point operations of one call, a multiplication and an addition being two.

    Those of convolutions, matrix products and attention; all others are few.

    Attributes:
        fixed: whatever the size.
        linear: for every position of the latent.
        quadratic: for every pair of positions, as attention over a whole map takes them.
    """

    fixed: int
    linear: int
    quadratic: int

    def of(self, area: float) -> float:
        """Those of a latent of so many positions."""
        return self.fixed + self.linear * area + self.quadratic * area**2


NONE = Operations(0, 0, 0)


class DenoiserCost(NamedTuple):
    """What a denoiser takes.

    Attributes:
        features: what it is shown of the low-quality image, once for all steps.
        call: one step.
        parameters: of the network.
    """

    features: Operations
    call: Operations
    parameters: int


class AutoencoderCost(NamedTuple):
    """What an autoencoder takes; one without weights takes nothing.

    Attributes:
        encode: pixels to a latent.
        decode: a latent to pixels.
        parameters: of the network.
    """

    encode: Operations
    decode: Operations
    parameters: int


@cache
def denoiser(spec: DenoiserSpec) -> DenoiserCost:
    """Count, or remember, what a denoiser takes."""
    return DenoiserCost(*_remembered(spec, lambda: _count_denoiser(spec)))


@cache
def autoencoder(spec: VQSpec | SpaceToDepthSpec) -> AutoencoderCost:
    """Count, or remember, what an autoencoder takes."""
    if isinstance(spec, SpaceToDepthSpec):
        return AutoencoderCost(NONE, NONE, 0)
    return AutoencoderCost(*_remembered(spec, lambda: _count_autoencoder(spec)))


def _count_denoiser(spec: DenoiserSpec) -> DenoiserCost:
    side, ratio = spec.size_multiple, spec.lq_ratio
    with torch.device("meta"):
        network = SwinUNet(spec)
    parameters = _parameters(network)
    _strip(network)

    def lq(width: int) -> Tensor:
        channels = 4 if spec.lq_mask else 3
        return torch.empty(1, channels, side * ratio, width * ratio, device="meta")

    def step(width: int) -> None:
        x = torch.empty(1, spec.latent_channels, side, width, device="meta")
        noise = torch.empty(1, spec.noise_channels, side, width, device="meta")
        timestep = torch.zeros(1, dtype=torch.long, device="meta")
        network(x, timestep, network.features(lq(width)), noise)

    features = _affine(lambda width: network.features(lq(width)), side)
    both = _affine(step, side)
    call = Operations(both.fixed, both.linear - features.linear, 0)
    return DenoiserCost(features, call, parameters)


def _count_autoencoder(spec: VQSpec) -> AutoencoderCost:
    with torch.device("meta"):
        network = VQAutoencoder(spec)
    parameters = _parameters(network)
    _strip(network)

    def encode(width: int) -> None:
        network.encode(torch.empty(1, 3, spec.factor, width * spec.factor, device="meta"))

    def decode(width: int) -> None:
        network.decode(torch.empty(1, spec.channels, 1, width, device="meta"))

    return AutoencoderCost(_without_fixed(encode), _without_fixed(decode), parameters)


def _affine(run: Callable[[int], object], side: int) -> Operations:
    """Of a network without attention over whole maps, given maps `side` high.

    Args:
        run: runs it on a map of a width, a multiple of `side`.
        side: what sides of maps are multiples of.
    """
    narrow, wide = _counted(run, side), _counted(run, 2 * side)
    return Operations(2 * narrow - wide, (wide - narrow) // side**2, 0)


def _without_fixed(run: Callable[[int], object]) -> Operations:
    """Of a network that computes nothing but maps, given maps of one row."""
    one, two = _counted(run, 1), _counted(run, 2)
    quadratic = (two - 2 * one) // 2
    return Operations(0, one - quadratic, quadratic)


def _counted(run: Callable[[int], object], width: int) -> int:
    from torch.utils.flop_counter import FlopCounterMode

    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        run(width)
    return counter.get_total_flops()


def _strip(network: nn.Module) -> None:
    """Take out normalisations and activations, which count as nothing and take torch long."""
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, (GroupNorm, SiLU)):
                setattr(parent, name, nn.Identity())


def _parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def _remembered(spec: DenoiserSpec | VQSpec, count: Callable[[], Any]) -> tuple[Any, Any, int]:
    """What an earlier process has counted of a layout, or else what is counted now.

    Returns:
        Two polynomials, and the number of parameters.
    """
    facts = json.dumps([__version__, torch.__version__, asdict(spec)], sort_keys=True)
    name = hashlib.sha256(facts.encode()).hexdigest()[:16]
    path = cache_folder.folder() / FOLDER / f"{name}.json"
    with suppress(OSError, ValueError, TypeError):  # not there, or not as we write it
        first, second, parameters = json.loads(path.read_text(encoding="utf-8"))
        return Operations(*map(int, first)), Operations(*map(int, second)), int(parameters)
    counted: tuple[Operations, Operations, int] = count()
    with suppress(OutputError):  # it is counted again then
        atomic.make_folder(path.parent)
        atomic.write(path, json.dumps(counted).encode())
    return counted
