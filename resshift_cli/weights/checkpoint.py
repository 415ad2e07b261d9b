"""Weight file <-> module: strict names and shapes, the model's table in the metadata."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from resshift_cli.diffusion import autoencoder, specs
from resshift_cli.diffusion.autoencoder import Autoencoder
from resshift_cli.diffusion.denoiser import Denoiser, SwinUNet
from resshift_cli.diffusion.specs import DenoiserSpec, ModelSpec, SpaceToDepthSpec, VQSpec
from resshift_cli.diffusion.swin import SwinConvention, convention_of
from resshift_cli.diffusion.tables import SpecError
from resshift_cli.errors import ModelUnavailableError, out_of_memory
from resshift_cli.system import atomic
from resshift_cli.weights.registry import ModelEntry
from resshift_cli.weights.rounding import SCALE, restored, rounded

MASK = ".attn_mask"
DERIVED = (".relative_position_index", MASK)  # computed from the layout, never loaded
AUTOENCODER = "autoencoder."  # prefix of the autoencoder's tensors, where it has any
MEAN = "mean."  # prefix of the mean's weights, where a file has those of samples beside
TUNED = "vae."  # prefix of what a model's training changed in its autoencoder, where it did
SWIN_KEY = "swin"  # metadata entry of a converted file: the convention that its masks told
DTYPES = {  # what weights may be stored in, and how safetensors calls it
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
}
_ROUNDED = "I8"  # what `rounding` makes of them, as safetensors calls it

_HINT = "`--model tiny-x4` needs no file; `resshift train` writes files that fit."
_MAPPED = 16 << 20  # bytes of a file that are held beside the parameters made of it

Shape = tuple[int, ...]


class _Stored(NamedTuple):
    """A tensor in a file, by the file's own name for it, and for that of its scales, if any."""

    name: str
    shape: Shape
    scale: str | None = None


# Writing


def save_model(
    path: Path,
    spec: ModelSpec,
    network: SwinUNet,
    autoencoder: Autoencoder | None = None,
    mean: SwinUNet | None = None,
    *,
    bits: Literal[16, 8] = 16,
) -> None:
    """Write weights in half precision or less, with the model's table in the metadata.

    Args:
        path: safetensors file.
        spec: the table.
        network: its tensors keep their names.
        autoencoder: its tensors get the prefix `autoencoder.`; not needed where it has none.
        mean: its tensors get the prefix `mean.`, and the table says so.
        bits: of a weight: 16, or 8 with a scale for every output channel.

    Raises:
        OutputError: the file can't be written.
    """
    tensors = own_tensors(network)
    if autoencoder is not None:
        tensors |= {AUTOENCODER + name: t for name, t in own_tensors(autoencoder).items()}
    if mean is not None:
        tensors |= {MEAN + name: t for name, t in own_tensors(mean).items()}
        spec = replace(spec, mean=True)
    tensors = {name: t.cpu() for name, t in tensors.items()}
    small = {name: t.half() for name, t in tensors.items()} if bits == 16 else rounded(tensors)
    write(path, small, {specs.SPEC_KEY: specs.to_json(spec)})


def write(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file; the same tensors and metadata always give the same bytes.

    One tensor is written after the other, where `safetensors` may copy all of them first.

    Args:
        path: the file.
        tensors: on the CPU, of the types in `DTYPES`, or as `rounding.rounded` has them.
        metadata: what goes into the header.

    Raises:
        OutputError: it can't be written; what was there stays as it was.
    """
    # The widest types first, so that each tensor is aligned to its type.
    names = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    header: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))}
    end = 0
    for name in names:
        tensor = tensors[name]
        start, end = end, end + tensor.nbytes
        header[name] = {
            "dtype": DTYPES.get(tensor.dtype, _ROUNDED),
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with atomic.replacing(path) as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for name in names:
            file.write(tensors[name].reshape(-1).view(torch.uint8).numpy().data)


def own_tensors(module: nn.Module) -> dict[str, Tensor]:
    """A module's state without what follows from its layout."""
    return {name: t for name, t in module.state_dict().items() if not name.endswith(DERIVED)}


# Building


class _Undrawn(TorchFunctionMode):
    """Large weights start as whatever lies in memory: they are filled later, and drawing is slow.

    So no page of them is touched before it is filled.
    """

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Skip the initialisation of convolutions and linear layers."""
        if func is nn.init.kaiming_uniform_:
            return None
        return func(*args, **(kwargs or {}))


@contextmanager
def _refusing_odd_sizes() -> Iterator[None]:
    try:
        yield
    except (ArithmeticError, IndexError, RuntimeError, ValueError) as error:
        if out_of_memory(error):
            raise
        raise SpecError(
            f"The sizes in a model's table make no network: {error}.", hint=_HINT
        ) from error


def build(spec: ModelSpec) -> tuple[Denoiser, Autoencoder]:
    """The networks that a model's table describes, with random weights.

    Raises:
        SpecError: its sizes make no network.
    """
    with _refusing_odd_sizes():
        network, codec = SwinUNet(spec.denoiser), autoencoder.build(spec.autoencoder)
        mean = SwinUNet(spec.denoiser) if spec.mean else None
    denoiser = Denoiser(
        network,
        mean=mean,
        predict=spec.predict,
        precondition=spec.precondition,
        blind_start=spec.blind_start,
    )
    return denoiser, codec


@cache
def shapes(sizes: DenoiserSpec | VQSpec | SpaceToDepthSpec) -> Mapping[str, Shape]:
    """Names and shapes that the weights of a network have.

    Raises:
        SpecError: the sizes make no network.
    """
    module: nn.Module
    with _refusing_odd_sizes(), _Undrawn():
        module = SwinUNet(sizes) if isinstance(sizes, DenoiserSpec) else autoencoder.build(sizes)
    return {name: tuple(t.shape) for name, t in own_tensors(module).items()}


# Loading


def load(
    spec: ModelSpec, weights: Path, autoencoder: Path | None = None
) -> tuple[Denoiser, Autoencoder]:
    """Build a model's networks, and fill them from its files.

    Args:
        spec: the model's table.
        weights: safetensors file.
        autoencoder: the autoencoder's file, where it has weights and `weights` does not hold
            them under the prefix `autoencoder.`.

    Returns:
        The denoiser and the autoencoder, on the CPU in float32, in evaluation mode.

    Raises:
        InputMissingError: there is no such file.
        ModelUnavailableError: not a safetensors file, or tensors that do not fit the table.
    """
    stored, _ = _header(weights)
    with _Undrawn():
        denoiser, codec = build(spec)
    load_network(denoiser.network, weights)
    if denoiser.mean is not None:
        load_mean(denoiser.mean, weights)
    if autoencoder is None:
        _fill(codec, weights, _held(stored, AUTOENCODER), AUTOENCODER)
    else:
        load_autoencoder(codec, autoencoder)
        _overlay(codec, weights, _held(stored, TUNED))
    return denoiser.eval(), codec.eval()


def load_network(network: SwinUNet, path: Path) -> None:
    """Fill a network from a weight file, whatever table the file carries.

    Raises:
        InputMissingError: there is no such file.
        ModelUnavailableError: not a safetensors file, or tensors that do not fit.
    """
    stored, convention = _header(path)
    if convention not in (None, network.spec.swin):
        raise ModelUnavailableError(
            f"{path} was trained with windows that shift the '{convention}' way, which its model "
            f"takes for '{network.spec.swin}'.",
            hint=f'Choose a model with swin = "{convention}" in its table.',
        )
    _fill(network, path, _outer(stored))


def load_mean(network: SwinUNet, path: Path) -> None:
    """Fill a network with the weights of the mean that a model's file has beside its own.

    Raises:
        InputMissingError: there is no such file.
        ModelUnavailableError: not a safetensors file, or tensors that do not fit.
    """
    stored, _ = _header(path)
    _fill(network, path, _held(stored, MEAN), MEAN)


def load_autoencoder(codec: Autoencoder, path: Path) -> None:
    """Fill an autoencoder from a file of its own, or from a model's file that holds it.

    Raises:
        InputMissingError: there is no such file.
        ModelUnavailableError: not a safetensors file, or tensors that do not fit.
    """
    stored, _ = _header(path)
    held = _held(stored, AUTOENCODER)
    _fill(codec, path, held or stored, AUTOENCODER if held else "")


def _held(stored: Mapping[str, _Stored], prefix: str) -> dict[str, _Stored]:
    """The tensors that a model's file holds beside its network's under a prefix."""
    return {name: entry for name, entry in stored.items() if name.startswith(prefix)}


def _outer(stored: Mapping[str, _Stored]) -> dict[str, _Stored]:
    """The tensors of the network in a model's file."""
    return {
        name: entry
        for name, entry in stored.items()
        if not name.startswith((AUTOENCODER, MEAN, TUNED))
    }


def _overlay(codec: Autoencoder, path: Path, stored: Mapping[str, _Stored]) -> None:
    """Put the weights that a model was tuned with over those of its autoencoder."""
    own = {TUNED + name: t for name, t in own_tensors(codec).items()}
    shapes = {name: tuple(t.shape) for name, t in own.items() if name in stored}
    refuse(path, differences({name: entry.shape for name, entry in stored.items()}, shapes))
    _copy(own, path, stored)


def fitting(path: Path, entries: Iterable[ModelEntry]) -> list[ModelEntry]:
    """The models whose denoiser has exactly the names and shapes that a weight file has.

    Masks in the file tell the conventions of shifting windows apart; without them, models of
    either fit.

    Args:
        path: safetensors file.
        entries: the models to choose from; what has its table in its own file never fits.

    Raises:
        InputMissingError: there is no such file.
        ModelUnavailableError: not a safetensors file.
    """
    stored, convention = _header(path)
    given = {name: entry.shape for name, entry in stored.items() if not name.startswith(TUNED)}
    return [
        entry
        for entry in entries
        if entry.spec is not None
        and convention in (None, entry.spec.denoiser.swin)
        and shapes(entry.spec.denoiser) == given
    ]


def _header(path: Path) -> tuple[dict[str, _Stored], SwinConvention | None]:
    """The tensors of a file by their networks' names for them, and the convention it tells."""
    with specs.open_weights(path, "pt") as file:
        names = cleaned(path, file.keys())
        parts = {own: file.get_slice(name) for own, name in names.items()}
        scaled = {own for own, part in parts.items() if part.get_dtype() == _ROUNDED}
        stored = {
            own: _Stored(
                name,
                tuple(parts[own].get_shape()),
                names.get(own + SCALE) if own in scaled else None,
            )
            for own, name in names.items()
            if not own.endswith(DERIVED)
            and not (own.endswith(SCALE) and own.removesuffix(SCALE) in scaled)
        }
        declared = (file.metadata() or {}).get(SWIN_KEY)
        masks = (file.get_tensor(name) for own, name in names.items() if own.endswith(MASK))
        known = declared in ("reference", "standard")
        return stored, declared if known else convention_of(masks)


def _fill(module: nn.Module, path: Path, stored: Mapping[str, _Stored], prefix: str = "") -> None:
    """Copy a file's tensors, all called `prefix` and the module's own name, into a module."""
    own = {prefix + name: t for name, t in own_tensors(module).items()}
    refuse(
        path,
        differences(
            {name: entry.shape for name, entry in stored.items()},
            {name: tuple(t.shape) for name, t in own.items()},
        ),
    )
    _copy(own, path, stored)


def _copy(own: Mapping[str, Tensor], path: Path, stored: Mapping[str, _Stored]) -> None:
    """Copy a file's tensors, all of which fit, into those of a module."""
    flaws = []
    for name, tensor in _mapped(path, stored):
        found = flaws_of(name, tensor)
        if not found:
            own[name].copy_(tensor)
        flaws += found
    refuse(path, flaws)


def _mapped(path: Path, stored: Mapping[str, _Stored]) -> Iterator[tuple[str, Tensor]]:
    """Each tensor in turn, mapped from the file.

    The file is opened anew every now and then: pages that were read count as memory of this
    process until nothing of their mapping is held any more.
    """
    rest = iter(stored.items())
    finished = False
    while not finished:
        with specs.open_weights(path, "pt") as file:
            finished, held = True, 0
            for own, entry in rest:
                tensor = _read(file, entry)
                held += tensor.nbytes
                yield own, tensor
                if held > _MAPPED:
                    finished = False
                    break


def _read(file: Any, entry: _Stored) -> Tensor:
    """A tensor of an open file: float32 if it was rounded, and as it is if its scales don't fit."""
    tensor: Tensor = file.get_tensor(entry.name)
    if entry.scale is None:
        return tensor
    scale = file.get_tensor(entry.scale)
    return restored(tensor, scale) if scale.shape == tensor.shape[:1] else tensor


# What fits


def cleaned(path: Path, names: Iterable[str]) -> dict[str, str]:
    """Names without the prefixes of wrappers for training -> the names in the file.

    Raises:
        ModelUnavailableError: two names become the same.
    """
    found: dict[str, str] = {}
    twice = []
    for name in names:
        own = re.sub(r"^(module\.|_orig_mod\.)+", "", name)
        if own in found:
            twice.append(f"has {own} twice")
        found[own] = name
    refuse(path, twice)
    return found


def differences(given: Mapping[str, Shape], expected: Mapping[str, Shape]) -> list[str]:
    """What is wrong with the names and shapes in a file, each as `lacks ...` or `has ...`."""
    return [
        *(f"lacks {name}" for name in sorted(expected.keys() - given.keys())),
        *(f"has the unknown {name}" for name in sorted(given.keys() - expected.keys())),
        *(
            f"has {name} of shape {given[name]} instead of {shape}"
            for name, shape in expected.items()
            if name in given and given[name] != shape
        ),
    ]


def flaws_of(name: str, tensor: Tensor) -> list[str]:
    """What is wrong with the numbers of a tensor, as `differences` has it."""
    if tensor.dtype not in DTYPES or tensor.layout != torch.strided or tensor.device.type != "cpu":
        return [f"has {name}, which holds no plain floating-point numbers"]
    # One pass, and no table of booleans as large as the tensor.
    if tensor.numel() and not all(x.isfinite() for x in tensor.float().aminmax()):
        return [f"has values in {name} that are not finite"]
    return []


def refuse(path: Path, problems: list[str], *, hint: str = _HINT) -> None:
    """Raise if there are any: the first three are named, the others counted.

    Raises:
        ModelUnavailableError: there are some.
    """
    if problems:
        more = f" (and {len(problems) - 3} more differences)" if len(problems) > 3 else ""
        raise ModelUnavailableError(
            f"{path} does not fit its network: it {'; '.join(problems[:3])}{more}.", hint=hint
        )
