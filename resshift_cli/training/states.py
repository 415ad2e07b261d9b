"""What a run goes on from and what it leaves: training states, and files of weights."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import torch

from resshift_cli.diffusion import specs
from resshift_cli.diffusion.denoiser import SwinUNet
from resshift_cli.diffusion.specs import ModelSpec
from resshift_cli.diffusion.tables import SpecError
from resshift_cli.errors import ModelUnavailableError, OutputError, UsageError, printable
from resshift_cli.system import atomic
from resshift_cli.training.growing import grown, smaller
from resshift_cli.training.network import PLANES_STD
from resshift_cli.training.trainer import Trainer
from resshift_cli.weights import checkpoint


def check_start(model: ModelSpec, start: ModelSpec, name: object) -> None:
    """Refuse to go on from a network whose input or output means something else.

    The schedule may differ: a network can be fine-tuned for another chain.

    Raises:
        SpecError: predictions, preconditioning, windows or the latent differ.
    """
    pairs: dict[str, tuple[object, object]] = {
        "predict": (model.predict, start.predict),
        "precondition": (model.precondition, start.precondition),
        "condition": (model.condition, start.condition),
        "denoiser.swin": (model.denoiser.swin, start.denoiser.swin),
        "autoencoder.kind": (model.autoencoder.kind, start.autoencoder.kind),
    }
    for key, (ours, theirs) in pairs.items():
        if ours != theirs:
            raise SpecError(
                f"{printable(name)} was trained with {key} = {theirs!r}, "
                f"and this run has {ours!r}.",
                hint="Give the configuration the model's own value.",
            )


def _contents(trainer: Trainer) -> dict[str, object]:
    """Everything that `restore` needs; all that is random follows from seed and step."""
    judges = {} if trainer.adversary is None else {"adversary": trainer.adversary.state_dict()}
    return judges | {
        "step": trainer.step,
        "seed": trainer.seed,
        "start": trainer.start,
        "weights": trainer.denoiser.state_dict(),
        "average": trainer.average.state_dict(),
        "optimiser": trainer.optimiser.state_dict(),
        "scaler": trainer.scaler.state_dict(),
    }


def restore(trainer: Trainer, path: Path) -> None:
    """Go on from a saved state.

    Raises:
        ModelUnavailableError: it is damaged, or of another model.
        UsageError: it is of a run with another seed.
    """
    try:
        state = torch.load(path, weights_only=True, map_location=trainer.device)
        trainer.step, trainer.start, seed = state["step"], state["start"], state["seed"]
        trainer.denoiser.load_state_dict(state["weights"])
        trainer.average.load_state_dict(state["average"])
        trainer.optimiser.load_state_dict(state["optimiser"])
        if trainer.adversary is not None:
            trainer.adversary.load_state_dict(state["adversary"])
        if trainer.scaler.is_enabled() and state.get("scaler"):
            trainer.scaler.load_state_dict(state["scaler"])
    except (EOFError, KeyError, RuntimeError, ValueError, pickle.UnpicklingError) as error:
        raise ModelUnavailableError(
            f"{printable(path)} is damaged, or was saved by a run of another model.",
            hint="Give another folder with --out, or delete that file to start again.",
        ) from error
    if seed != trainer.seed:
        raise UsageError(
            f"{printable(path)} is of a run with seed {seed}, not {trainer.seed}.",
            hint=f"Give --seed {seed}, or another folder with --out.",
        )


def start_from(trainer: Trainer, path: Path) -> None:
    """Take the first weights from a file.

    Planes of noise that its network is not shown, and this one is, count for little at first;
    blocks that it has not, and this one has, pass on what they are given.

    Raises:
        InputMissingError: there is no such file.
        ModelUnavailableError: its weights have other names or sizes.
        SpecError: it says that its network is used in another way.
    """
    said = _said(path)
    if said is not None:
        check_start(trainer.run.model, said, path)
    _load(trainer.denoiser.network, path, planes_std=PLANES_STD)
    trainer.average.load_state_dict(trainer.denoiser.state_dict())
    trainer.start = path.name


def keep_mean(trainer: Trainer, init: Path, path: Path) -> None:
    """Write the weights of the mean that a run starts from: those of a file, or the mean's in it.

    Raises:
        InputMissingError, ModelUnavailableError: as `start_from`.
        OutputError: they can't be written.
    """
    network = copy.deepcopy(trainer.average.network)
    said = _said(init)
    _load(network, init, mean=said is not None and said.mean)
    checkpoint.save_model(path, trainer.run.model, network)


def _said(path: Path) -> ModelSpec | None:
    """What a file says of its model; None if it says nothing.

    Raises:
        InputMissingError, ModelUnavailableError, SpecError: as `specs.read_spec`.
    """
    return specs.read_spec(path) if specs.SPEC_KEY in specs.read_metadata(path) else None


def _load(network: SwinUNet, path: Path, *, mean: bool = False, planes_std: float = 0.0) -> None:
    """Fill a network from a file of one as large, or of one that it can be grown from.

    Args:
        network: it.
        path: the file.
        mean: whether the mean's weights are asked for, which it has beside its own.
        planes_std: of the weights of planes of noise that the file's network is not shown.
    """
    load = checkpoint.load_mean if mean else checkpoint.load_network
    said = _said(path)
    sizes = network.spec if said is None else smaller(network.spec, said.denoiser)
    if sizes == network.spec:
        load(network, path)
        return
    before = SwinUNet(sizes)
    load(before, path)
    grown(before, network, planes_std)


def export(trainer: Trainer, path: Path, mean: Path | None = None) -> None:
    """Write the averaged weights, and those of the autoencoder if it has any, as the run says.

    Args:
        trainer: whose they are.
        path: the file.
        mean: the file of the mean's weights, to go with them.

    Raises:
        InputMissingError, ModelUnavailableError: the mean's weights are not there, or others.
        OutputError: they can't be written.
    """
    has_weights = any(True for _ in trainer.autoencoder.parameters())
    codec = trainer.autoencoder if has_weights else None
    model, kept = trainer.run.model, None
    if mean is not None:
        kept = copy.deepcopy(trainer.average.network)
        checkpoint.load_network(kept, mean)
    average, bits = trainer.average.network, trainer.run.train.bits
    checkpoint.save_model(path, model, average, codec, kept, bits=bits)


def save(trainer: Trainer, path: Path) -> None:
    """Write what `restore` takes.

    Raises:
        OutputError: it can't be written.
    """
    try:
        with atomic.replacing(path) as file:
            torch.save(_contents(trainer), file)  # piece by piece: a state is large
    except RuntimeError as error:
        if isinstance(error.__context__, OutputError):  # which torch trips over
            raise error.__context__ from None
        raise
