"""Weight file <-> module: strict keys, the model's table in the metadata."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor, nn

from resshift_cli import autoencoder, specs
from resshift_cli.autoencoder import Autoencoder
from resshift_cli.denoiser import Denoiser, SwinUNet
from resshift_cli.errors import ModelUnavailableError, OutputError
from resshift_cli.specs import ModelSpec, SpecError

DERIVED = (".relative_position_index", ".attn_mask")  # computed from the layout, never loaded
AUTOENCODER = "autoencoder."  # prefix of the autoencoder's tensors, where it has any

_HINT = "`--model tiny-x4` needs no file; `resshift train` writes files that fit."


def write_atomically(path: Path, content: bytes) -> None:
    """Fill a temporary file beside `path`, then rename it over `path`.

    Raises:
        OutputError: it can't be written; what was there stays as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    except OSError as error:
        raise OutputError(
            f"{path} can't be written: {error.strerror}.",
            hint="Make room, or give another folder with --out.",
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def save_model(
    path: Path, spec: ModelSpec, network: SwinUNet, autoencoder: Autoencoder | None = None
) -> None:
    """Write half-precision weights, with the model's table in the metadata.

    Args:
        path: safetensors file.
        spec: the table.
        network: its tensors keep their names.
        autoencoder: its tensors get the prefix `autoencoder.`; not needed where it has none.

    Raises:
        OutputError: the file can't be written.
    """
    tensors = own_tensors(network)
    if autoencoder is not None:
        tensors |= {AUTOENCODER + name: t for name, t in own_tensors(autoencoder).items()}
    half = {name: t.detach().to("cpu", torch.float16).contiguous() for name, t in tensors.items()}
    # One entry alone: the order of several changes from file to file.
    metadata = {specs.SPEC_KEY: specs.to_json(spec)}
    # Not `save_file`: it makes files that only their owner can read.
    write_atomically(path, save(half, metadata))


def build(spec: ModelSpec) -> tuple[Denoiser, Autoencoder]:
    """The networks that a model's table describes, with random weights.

    Raises:
        SpecError: its sizes make no network.
    """
    try:
        network, codec = SwinUNet(spec.denoiser), autoencoder.build(spec.autoencoder)
    except (ArithmeticError, IndexError, RuntimeError, ValueError) as error:
        raise SpecError(
            f"The sizes in a model's table make no network: {error}.", hint=_HINT
        ) from error
    return Denoiser(network, predict=spec.predict, precondition=spec.precondition), codec


def load_model(path: Path) -> tuple[ModelSpec, Denoiser, Autoencoder]:
    """Build the networks that a weight file describes, and fill them.

    Returns:
        The model's table, the denoiser and the autoencoder, on the CPU in float32, in
        evaluation mode.

    Raises:
        InputMissingError: there is no such file.
        ModelUnavailableError: not a safetensors file, without a model's table, or with tensors
            that do not fit it.
    """
    spec, tensors = specs.read_spec(path), _read(path)
    denoiser, codec = build(spec)
    inner = {name: t for name, t in tensors.items() if name.startswith(AUTOENCODER)}
    _fill(denoiser.network, {n: t for n, t in tensors.items() if n not in inner}, path)
    _fill(codec, inner, path, AUTOENCODER)
    return spec, denoiser.eval(), codec.eval()


def load_network(network: SwinUNet, path: Path) -> None:
    """Fill a network from a weight file, whatever table the file carries.

    Raises:
        InputMissingError: there is no such file.
        ModelUnavailableError: not a safetensors file, or tensors that do not fit.
    """
    tensors = _read(path)
    _fill(network, {k: t for k, t in tensors.items() if not k.startswith(AUTOENCODER)}, path)


def own_tensors(module: nn.Module) -> dict[str, Tensor]:
    """A module's state without what follows from its layout."""
    return {name: t for name, t in module.state_dict().items() if not name.endswith(DERIVED)}


def _read(path: Path) -> dict[str, Tensor]:
    with specs.open_weights(path, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dict


def _fill(module: nn.Module, tensors: Mapping[str, Tensor], path: Path, prefix: str = "") -> None:
    """Load strictly; what is derived from the layout may be there or not."""
    wanted = {prefix + name: t for name, t in own_tensors(module).items()}
    given = {name: t for name, t in tensors.items() if not name.endswith(DERIVED)}
    differences = [f"lacks {name}" for name in sorted(wanted.keys() - given.keys())]
    differences += [f"has the unknown {name}" for name in sorted(given.keys() - wanted.keys())]
    differences += [
        f"has {name} of shape {tuple(given[name].shape)} instead of {tuple(t.shape)}"
        for name, t in wanted.items()
        if name in given and given[name].shape != t.shape
    ]
    differences += [
        f"has values in {name} that are not finite"
        for name, t in given.items()
        if name in wanted and not torch.isfinite(t.float()).all()  # float8 has no isfinite
    ]
    if differences:
        more = f" (and {len(differences) - 3} more differences)" if len(differences) > 3 else ""
        raise ModelUnavailableError(
            f"{path} does not fit its network: it {'; '.join(differences[:3])}{more}.", hint=_HINT
        )
    module.load_state_dict({n[len(prefix) :]: t for n, t in given.items()}, strict=False)
