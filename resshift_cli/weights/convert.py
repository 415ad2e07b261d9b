"""`.pth` files -> safetensors; nothing that lies in them is ever run.

A `.pth` file is a pickle: a small program that builds objects, and may call whatever it likes.
torch's own reader of weights understands tensors and plain containers alone, and refuses the rest.
"""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from resshift_cli.diffusion.specs import ModelSpec
from resshift_cli.diffusion.swin import convention_of
from resshift_cli.errors import InputMissingError, ModelUnavailableError
from resshift_cli.weights import checkpoint

WRAPPERS = ("params_ema", "state_dict", "params")  # what training code keeps weights under
TUNED = "vae"  # and, beside them, the weights of an autoencoder that was trained as well

_DAMAGED = "Fetch it again: a broken download or a web page may be in its place."
_OTHER = "It may be another model's (--like NAME), or an autoencoder (--autoencoder)."
_DANGEROUS = "Take weights from their authors only; `resshift models list` says where."


def convert(
    source: Path,
    target: Path,
    expected: Mapping[str, tuple[int, ...]],
    *,
    tunable: Mapping[str, tuple[int, ...]] | None = None,
    provenance: Mapping[str, str],
) -> None:
    """Write the weights in a `.pth` file as safetensors, each tensor in its own type.

    Names lose the prefixes of wrappers for training, and what follows from the layout is left
    out; masks among it tell how windows shift, which is kept in the metadata.

    Args:
        source: what `torch.save` wrote.
        target: the safetensors file.
        expected: names and shapes that there must be, no more and no less.
        tunable: names and shapes of an autoencoder; what the file has under `vae` must be some
            of them, and is kept with the prefix `vae.`. Without it, an entry `vae` is left alone.
        provenance: what else goes into the metadata.

    Raises:
        InputMissingError: there is no such file.
        ModelUnavailableError: it is damaged, carries code, or holds other tensors.
        OutputError: `target` can't be written.
    """
    content = _unpickle(source)
    values = _cleaned(source, _weights(source, content))
    tensors = _checked(source, values, expected)
    tuned = content.get(TUNED) if tunable is not None and isinstance(content, Mapping) else None
    if tuned is not None:
        parts = _cleaned(source, _weights(source, tuned))
        some = {name: shape for name, shape in (tunable or {}).items() if name in parts}
        tensors |= {
            checkpoint.TUNED + name: tensor
            for name, tensor in _checked(source, parts, some).items()
        }
    convention = convention_of(
        value
        for name, value in values.items()
        if name.endswith(checkpoint.MASK)
        and isinstance(value, Tensor)
        and not checkpoint.flaws_of(name, value)
    )
    told = {} if convention is None else {checkpoint.SWIN_KEY: convention}
    checkpoint.write(target, tensors, {**provenance, **told})


def _cleaned(source: Path, content: Mapping[str, Any]) -> dict[str, Any]:
    """Values by their networks' names for them."""
    return {own: content[name] for own, name in checkpoint.cleaned(source, content).items()}


def _checked(
    source: Path, values: Mapping[str, Any], expected: Mapping[str, tuple[int, ...]]
) -> dict[str, Tensor]:
    """The tensors among values, if they are what they have to be.

    Raises:
        ModelUnavailableError: they are not.
    """
    weights = {n: value for n, value in values.items() if not n.endswith(checkpoint.DERIVED)}
    tensors = {n: value.detach() for n, value in weights.items() if isinstance(value, Tensor)}
    checkpoint.refuse(source, _differences(weights, expected), hint=_OTHER)
    checkpoint.refuse(source, [p for n, t in tensors.items() for p in checkpoint.flaws_of(n, t)])
    return tensors


def shapes_of_denoiser(spec: ModelSpec) -> dict[str, tuple[int, ...]]:
    """Names and shapes that a model's denoiser must have in a file.

    Raises:
        SpecError: its sizes make no network.
    """
    return dict(checkpoint.shapes(spec.denoiser))


def shapes_of_autoencoder(spec: ModelSpec) -> dict[str, tuple[int, ...]]:
    """Names and shapes that a model's autoencoder must have in a file of its own.

    Raises:
        SpecError: its sizes make no network.
    """
    return dict(checkpoint.shapes(spec.autoencoder))


def _differences(
    weights: Mapping[str, object], expected: Mapping[str, tuple[int, ...]]
) -> list[str]:
    shapes = {name: tuple(v.shape) for name, v in weights.items() if isinstance(v, Tensor)}
    others = weights.keys() - shapes.keys()
    rest = {name: shape for name, shape in expected.items() if name not in others}
    return [
        *(f"has {name}, which is no tensor" for name in sorted(others)),
        *checkpoint.differences(shapes, rest),
    ]


def _weights(path: Path, content: Any) -> Mapping[str, Any]:
    """The state dict in a file; what is stored beside it under other names is left alone."""
    if isinstance(content, Mapping):
        inner = (content[name] for name in WRAPPERS if isinstance(content.get(name), Mapping))
        content = next(inner, content)
    if not isinstance(content, Mapping) or not all(isinstance(name, str) for name in content):
        raise ModelUnavailableError(
            f"{path} holds something else than weights by name.", hint=_DAMAGED
        )
    return content


def _unpickle(path: Path) -> Any:
    try:
        archive = zipfile.is_zipfile(path)
        if archive and _is_compressed(path):
            raise ValueError("its bytes would be taken for numbers as they are")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they are for those who write such files
            return torch.load(path, map_location="cpu", weights_only=True, mmap=archive)
    except OSError as error:
        raise InputMissingError(
            f"The weight file {path} can't be read: {error.strerror}.",
            hint="Give the path of a file that torch.save wrote.",
        ) from error
    except UnpicklingError as error:
        if asked := re.search(r"GLOBAL (\S+)", str(error)):
            raise ModelUnavailableError(
                f"{path} carries code ({asked[1]}), which was not run.", hint=_DANGEROUS
            ) from error
        raise _damaged(path) from error
    except Exception as error:  # bytes at random make an unpickler fail in any way
        raise _damaged(path) from error


def _is_compressed(path: Path) -> bool:
    with zipfile.ZipFile(path) as archive:
        return any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist())


def _damaged(path: Path) -> ModelUnavailableError:
    return ModelUnavailableError(
        f"{path} is no checkpoint of PyTorch, or a damaged one.", hint=_DAMAGED
    )
