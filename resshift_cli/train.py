"""Training: one loop from top to bottom, batch, loss, step, EMA, checkpoint.

Everything random in a step follows from the run's seed and the step's number, so a run that was
interrupted goes on to exactly the weights that it would have had.
"""

from __future__ import annotations

import copy
import io
import math
import pickle
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint as recomputed

from resshift_cli import (
    atomic,
    card,
    chain,
    checkpoint,
    dataset,
    degrade,
    evaluate,
    objective,
    recipe,
    runlog,
    sheet,
    specs,
)
from resshift_cli.autoencoder import Autoencoder
from resshift_cli.denoiser import ResBlock, SwinUNet
from resshift_cli.device import has_fast_bf16, place
from resshift_cli.errors import ModelUnavailableError, ResShiftError, UsageError, printable
from resshift_cli.photos import Pictures
from resshift_cli.ranks import Ranks, joined
from resshift_cli.recipe import Amp, RunSpec
from resshift_cli.specs import ModelSpec, SpecError
from resshift_cli.swin import SwinBlock, SwinLayer

LOG_EVERY = 50  # steps; validations and saved states are logged as well
Pair = tuple[Tensor, Tensor]
"""A picture and its low-resolution partner, (N, 3, H, W) in [0, 1]."""

LEAST_SCALE = 1.0  # of float16 gradients: if they overflow even so, the run has diverged


def initialise(network: SwinUNet, *, preconditioned: bool) -> None:
    """Start every residual branch at zero and every Swin layer at the identity.

    A Swin layer replaces its input, so random projections at its ends would scramble the features
    of every level before anything is learned.

    Of the first features of a preconditioned network, half start as differences within the
    low-quality image alone: what it tells lies in faint local contrast, which the strong noise of
    the latent's many channels would drown in every mixed feature.
    """
    if preconditioned:
        latent_channels = network.spec.latent_channels
        with torch.no_grad():
            first = network.get_parameter("input_blocks.0.0.weight")
            half = len(first) // 2
            first[:half, :latent_channels] = 0
            first[:half] -= first[:half].mean((2, 3), keepdim=True)
            first[:half] *= (first.shape[1] / (first.shape[1] - latent_channels)) ** 0.5 * 8
            first[half:, latent_channels:] = 0
    for module in network.modules():
        if isinstance(module, ResBlock):
            _zero(module.out_layers[-1])
        elif isinstance(module, SwinBlock):
            _zero(module.attn.proj)
            _zero(module.mlp.fc2)
        elif isinstance(module, SwinLayer):
            for projection in (module.patch_embed.proj, module.patch_unembed.proj):
                nn.init.dirac_(projection.weight)
                nn.init.zeros_(projection.bias)  # type: ignore[arg-type]  # it has a bias
    _zero(network.out[-1])


def _zero(layer: nn.Module) -> None:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


def recompute_activations(network: SwinUNet) -> None:
    """Have the inner activations of every block computed anew for the gradient, not kept."""
    for module in network.modules():
        if isinstance(module, ResBlock | SwinBlock):
            forward = partial(
                recomputed, module.forward, use_reentrant=False, preserve_rng_state=False
            )
            module.forward = forward  # type: ignore[method-assign]


def load_autoencoder(codec: Autoencoder, path: Path) -> None:
    """Fill an autoencoder from a file of its own, or from a model's file that holds it.

    Raises:
        InputMissingError: there is no such file.
        ModelUnavailableError: not a safetensors file, or tensors that do not fit.
    """
    with specs.open_weights(path, "pt") as file:
        names = checkpoint.cleaned(path, file.keys())
        if any(name.startswith(checkpoint.AUTOENCODER) for name in names):
            names = {
                name.removeprefix(checkpoint.AUTOENCODER): stored
                for name, stored in names.items()
                if name.startswith(checkpoint.AUTOENCODER)
            }
        tensors = {own: file.get_tensor(name) for own, name in names.items()}
    expected = {name: tuple(t.shape) for name, t in codec.state_dict().items()}
    given = {name: tuple(t.shape) for name, t in tensors.items()}
    flaws = checkpoint.differences(given, expected)
    flaws += [flaw for name, t in tensors.items() for flaw in checkpoint.flaws_of(name, t)]
    checkpoint.refuse(path, flaws)
    codec.load_state_dict(tensors)


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


def amp_dtype(amp: Amp, device: torch.device) -> torch.dtype | None:
    """What the network computes in beside float32, or None for float32 alone."""
    if amp == "auto":
        if has_fast_bf16(device):
            return torch.bfloat16
        return torch.float16 if device.type == "cuda" else None
    return {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}[amp]


class Trainer:
    """The state of a run: weights, their average, optimiser and step number.

    Args:
        run: the configuration.
        seed: of everything random.
        device: where to train.
        ranks: the processes that train together; each computes its share of a batch.
        autoencoder: file of its weights, where it has any.
        features: file of the network of the perceptual term, where there is one.

    Raises:
        InputMissingError, ModelUnavailableError: a file is missing, damaged or does not fit.
        SpecError: the sizes make no network.
        UsageError: the batch can't be shared evenly.
    """

    def __init__(
        self,
        run: RunSpec,
        *,
        seed: int,
        device: torch.device,
        ranks: Ranks | None = None,
        autoencoder: Path | None = None,
        features: Path | None = None,
    ) -> None:
        torch.manual_seed(seed)
        self.run = run
        self.seed = seed
        self.device = device
        self.ranks = ranks or Ranks()
        self.step = 0
        model, train = run.model, run.train
        parts = self.ranks.count * train.accumulate
        if train.batch % parts:
            raise UsageError(
                f"batch {train.batch} can't be shared by {self.ranks.count} processes in "
                f"{train.accumulate} parts each.",
                hint=f"Make it a multiple of {parts}.",
            )
        size = train.batch // self.ranks.count
        self.share = range(self.ranks.rank * size, (self.ranks.rank + 1) * size)
        self.schedule = model.schedule.build()
        self.denoiser, self.autoencoder = checkpoint.build(model)
        network = self.denoiser.network
        initialise(network, preconditioned=model.precondition)
        if autoencoder is not None:
            load_autoencoder(self.autoencoder, autoencoder)
        self.autoencoder.to(device).eval().requires_grad_(False)
        self.features = None if features is None else objective.FeatureDistance(features, device)
        place(self.denoiser, device)
        self.average = copy.deepcopy(self.denoiser).requires_grad_(False)
        if train.checkpointing:
            recompute_activations(network)
        if train.compile:
            network.compile()  # in place: names of weights stay
        self.dtype = amp_dtype(train.amp, device)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.dtype == torch.float16)
        decay = [p for p in network.parameters() if p.ndim >= 2]
        plain = [p for p in network.parameters() if p.ndim < 2]
        self.optimiser = torch.optim.AdamW(
            [
                {"params": decay, "weight_decay": train.weight_decay},
                {"params": plain, "weight_decay": 0.0},
            ],
            lr=train.learning_rate,
            betas=(0.9, train.beta2),
            fused=True,
        )
        self.replica: nn.Module = self.denoiser
        if self.ranks.count > 1:
            self.replica = DistributedDataParallel(self.denoiser, broadcast_buffers=False)

    def learning_rate(self) -> float:
        """Linear warm-up, then a cosine."""
        train = self.run.train
        if self.step < train.warmup:
            return train.learning_rate * (self.step + 1) / train.warmup
        done = (self.step - train.warmup) / max(train.steps - train.warmup, 1)
        height = 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
        return train.final_rate + (train.learning_rate - train.final_rate) * height

    def enlarged(self, blurry: Tensor) -> Tensor:
        """The low-quality images in [0, 1] as the autoencoder takes them: at full size, [-1, 1]."""
        large = degrade.enlarge(blurry * 2 - 1, self.run.model.scale)
        return large.clamp(-1, 1) if self.run.model.clip_lq else large

    def drawn(self, count: int, shape: Sequence[int]) -> tuple[Tensor, Tensor]:
        """The steps t (N,) and the noise (N, C, h, w) of the whole batch, on the CPU."""
        rng = np.random.default_rng([self.seed, self.step, 1])
        train = self.run.train
        t = objective.draw_steps(
            count, self.schedule.steps, train.late_steps, train.last_share, rng
        )
        noise = torch.from_numpy(rng.standard_normal((count, *shape), dtype=np.float32))
        return t, noise

    def loss(self, sharp: Tensor, blurry: Tensor) -> Tensor:
        """The loss of a whole batch at the current step; images in [0, 1], see `make_batch`."""
        t, noise = self.drawn(len(sharp), self._latent_shape(sharp))
        return self._loss(sharp, blurry, t, noise)

    def _latent_shape(self, sharp: Tensor) -> tuple[int, int, int]:
        codec = self.autoencoder
        height, width = sharp.shape[2:]
        return codec.channels, height // codec.factor, width // codec.factor

    def _loss(self, sharp: Tensor, blurry: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        sharp, blurry, t, noise = (part.to(self.device) for part in (sharp, blurry, t, noise))
        with torch.no_grad():
            x0 = self.autoencoder.encode(sharp * 2 - 1)
            y0 = self.autoencoder.encode(self.enlarged(blurry))
        x_t = chain.shift(x0, y0, noise, self.schedule, t)
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None):
            predicted = self.replica(x_t, y0, blurry * 2 - 1, self.schedule, t)
        loss = objective.denoising_loss(
            predicted, x0, y0, self.denoiser, self.schedule, t, self.run.train.objective
        )
        perceptual = self.run.train.perceptual
        if self.features is not None and perceptual is not None:
            restored = objective.decode(self.autoencoder, predicted) / 2 + 0.5
            loss = loss + perceptual.weight * self.features(restored, sharp)
        return loss.mean()

    def advance(self, sharp: Tensor, blurry: Tensor) -> Tensor:
        """Take one optimiser step with this process' share of a batch.

        Returns:
            This process' loss.

        Raises:
            ResShiftError: the gradient is not finite.
        """
        train = self.run.train
        drawn = self.drawn(train.batch, self._latent_shape(sharp))
        t, noise = (x[self.share.start : self.share.stop] for x in drawn)
        size = len(sharp) // train.accumulate
        losses = []
        self.optimiser.zero_grad()
        for number in range(train.accumulate):
            first = number * size
            part = (x[first : first + size] for x in (sharp, blurry, t, noise))
            with self._gathering(last=number == train.accumulate - 1):
                loss = self._loss(*part) / train.accumulate
                self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]  # torch's own
            losses.append(loss.detach())
        self.scaler.unscale_(self.optimiser)
        norm = nn.utils.clip_grad_norm_(self.denoiser.parameters(), train.clip_norm)
        # With scaled gradients one that overflows is skipped, and the scale lowered.
        scaled = self.scaler.is_enabled() and self.scaler.get_scale() > LEAST_SCALE
        if not scaled and not torch.isfinite(norm):
            raise ResShiftError(
                f"The gradient of step {self.step + 1} is not finite.",
                hint="Lower `learning_rate`; the same command goes on from the last saved step.",
            )
        for group in self.optimiser.param_groups:
            group["lr"] = self.learning_rate()
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.step += 1
        decay = min(train.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(
                list(self.average.parameters()), list(self.denoiser.parameters()), 1 - decay
            )
        return torch.stack(losses).sum()

    def _gathering(self, *, last: bool) -> Any:
        """Where gradients of the processes are not averaged yet, or are with the last part."""
        if last or not isinstance(self.replica, DistributedDataParallel):
            return nullcontext()
        return self.replica.no_sync()

    @torch.no_grad()
    def validate(self, pairs: Sequence[Pair]) -> dict[str, float]:
        """Gain over bicubic in dB of PSNR-Y for the posterior mean, averaged over pictures."""
        gains = []
        for sharp, blurry in self._placed(pairs):
            bicubic = degrade.enlarge(blurry, self.run.model.scale)
            restored = self._posterior_mean(blurry)
            gains.append(evaluate.psnr_y(restored, sharp) - evaluate.psnr_y(bicubic, sharp))
        return {"gain_db": sum(gains) / len(gains), "worst_db": min(gains)}

    @torch.no_grad()
    def samples(self, pairs: Sequence[Pair]) -> list[list[Tensor]]:
        """Rows of a sheet: degraded, posterior mean, result of the whole chain, original.

        Each is (1, 3, H, W) in about [0, 1]; the degraded ones are smaller.
        """
        return [
            [blurry, self._posterior_mean(blurry), self._walked(blurry), sharp]
            for sharp, blurry in self._placed(pairs)
        ]

    def _placed(self, pairs: Sequence[Pair]) -> Iterator[Pair]:
        for sharp, blurry in pairs:
            yield sharp.to(self.device), blurry.to(self.device)

    def _start(self, blurry: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """(x_T, y_0)."""
        y0 = self.autoencoder.encode(self.enlarged(blurry))
        noise = torch.randn(y0.shape, generator=generator).to(y0)
        return chain.prior(y0, noise, self.schedule, self.run.model.prior), y0

    def _posterior_mean(self, blurry: Tensor) -> Tensor:
        x_t, y0 = self._start(blurry, torch.Generator().manual_seed(0))
        t = torch.tensor([self.schedule.steps], device=self.device)
        x0 = self.average(x_t, y0, blurry * 2 - 1, self.schedule, t)
        return self.autoencoder.decode(x0) / 2 + 0.5

    def _walked(self, blurry: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        x_t, y0 = self._start(blurry, generator)

        def predict(x_t: Tensor, t: int) -> Tensor:
            steps = torch.tensor([t], device=self.device)
            return self.average(x_t, y0, blurry * 2 - 1, self.schedule, steps)

        def noise(t: int) -> Tensor:
            drawn = torch.randn(y0.shape, generator=generator).to(y0)
            return drawn * self.run.model.temperature

        *_, last = chain.walk(x_t, predict, noise, self.schedule)
        return self.autoencoder.decode(last.x0) / 2 + 0.5

    def state(self) -> dict[str, object]:
        """Everything that `restore` needs; all that is random follows from seed and step."""
        return {
            "step": self.step,
            "seed": self.seed,
            "weights": self.denoiser.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def restore(self, path: Path) -> None:
        """Go on from a saved state.

        Raises:
            ModelUnavailableError: it is damaged, or of another model.
            UsageError: it is of a run with another seed.
        """
        try:
            state = torch.load(path, weights_only=True, map_location=self.device)
            self.step = state["step"]
            seed = state.get("seed", self.seed)  # states of earlier versions lack it
            self.denoiser.load_state_dict(state["weights"])
            self.average.load_state_dict(state["average"])
            self.optimiser.load_state_dict(state["optimiser"])
            if self.scaler.is_enabled() and state.get("scaler"):
                self.scaler.load_state_dict(state["scaler"])
        except (EOFError, KeyError, RuntimeError, ValueError, pickle.UnpicklingError) as error:
            raise ModelUnavailableError(
                f"{printable(path)} is damaged, or was saved by a run of another model.",
                hint="Give another folder with --out, or delete that file to start again.",
            ) from error
        if seed != self.seed:
            raise UsageError(
                f"{printable(path)} is of a run with seed {seed}, not {self.seed}.",
                hint=f"Give --seed {seed}, or another folder with --out.",
            )

    def start_from(self, path: Path) -> None:
        """Take the first weights from a file.

        Raises:
            InputMissingError: there is no such file.
            ModelUnavailableError: its weights have other names or sizes.
            SpecError: it says that its network is used in another way.
        """
        if specs.SPEC_KEY in specs.read_metadata(path):
            check_start(self.run.model, specs.read_spec(path), path)
        checkpoint.load_network(self.denoiser.network, path)
        self.average.load_state_dict(self.denoiser.state_dict())

    def export(self, path: Path) -> None:
        """Write the averaged weights in half precision, and those of the autoencoder if it has any.

        Raises:
            OutputError: they can't be written.
        """
        has_weights = any(True for _ in self.autoencoder.parameters())
        codec = self.autoencoder if has_weights else None
        checkpoint.save_model(path, self.run.model, self.average.network, codec)

    def save(self, path: Path) -> None:
        """Write what `restore` takes.

        Raises:
            OutputError: it can't be written.
        """
        buffer = io.BytesIO()
        torch.save(self.state(), buffer)
        atomic.write(path, buffer.getvalue())


def train(
    config: Path,
    photos: Sequence[Path],
    out: Path,
    *,
    seed: int = 0,
    device: torch.device | None = None,
    init: Path | None = None,
    autoencoder: Path | None = None,
    workers: int = 0,
    ranks: Ranks | None = None,
    command: Sequence[str] = (),
) -> Iterator[dict[str, float]]:
    """Train, or go on where an earlier run with the same `out` was interrupted.

    Writes into `out`, see `runlog`: the configuration, where it ran, what was measured, sheets of
    samples, `state.pt` to go on from, and `model.safetensors` (the averaged weights in half
    precision, ready for `--weights`) with a draft of its card.

    Args:
        config: TOML file, see `RunSpec`.
        photos: folders of pictures.
        out: folder of the run; processes on several machines share it.
        seed: of everything random.
        device: where to train.
        init: weight file to start from.
        autoencoder: file of the autoencoder's weights, where it has any.
        workers: processes that make batches ahead of time, for each one that trains.
        ranks: the processes that train together, each of which calls this; only the first writes.
        command: the command line, to be kept with the run.

    Yields:
        What was measured at each step that is logged.

    Raises:
        InputMissingError: the configuration, photos or another file is missing.
        ImageUnreadableError: a photo can't be decoded.
        SpecError: the configuration does not fit.
        UsageError: its numbers can't be trained with, or all photos are too small.
        ModelUnavailableError: `init`, `autoencoder`, or the state in `out`, is damaged or of
            another model.
        OutputError: `out` can't be written to.
        ResShiftError: training diverged.
    """
    run = recipe.read(config)
    spec = run.train
    if run.model.autoencoder.kind == "vq" and autoencoder is None:
        raise UsageError(
            f"{printable(config)} has an autoencoder with weights, "
            "and does not say where they are.",
            hint='Give it a key `autoencoder = "MODEL"`, or the option --autoencoder.',
        )
    listed = config.parent / run.photos if run.photos else None
    training, held_out = dataset.open_pictures(photos, listed, run.data)
    ranks = ranks or Ranks()
    device = device or torch.device("cpu")
    with joined(ranks, device):
        trainer = Trainer(
            run,
            seed=seed,
            device=device,
            ranks=ranks,
            autoencoder=autoencoder,
            features=config.parent / spec.perceptual.features if spec.perceptual else None,
        )
        if (out / runlog.STATE).exists():
            trainer.restore(out / runlog.STATE)
        elif init is not None:
            trainer.start_from(init)
        ranks.agree(
            (trainer.step, recipe.to_table(run), len(training)),
            "The processes of this run have different configurations, photos or states.",
            hint="Give all machines the same files, and one shared folder for --out.",
        )
        if trainer.step >= spec.steps:
            return
        if not ranks.leads:
            yield from _steps(trainer, training, workers)
            return
        with runlog.held(out):
            runlog.keep_config(out, config, listed, trainer.step)
            facts = {
                "from_step": trainer.step,
                "seed": seed,
                "device": _device_name(device),
                "processes": ranks.count,
                "threads": torch.get_num_threads(),
                "computes_in": str(trainer.dtype or torch.float32).removeprefix("torch."),
                "command": list(command),
                "init": "" if init is None else str(init),
                "autoencoder": "" if autoencoder is None else str(autoencoder),
                "pictures": {"training": len(training), "held out": len(held_out)},
            }
            runlog.note_session(out, facts)
            yield from _steps(trainer, training, workers, _Book(out, trainer, training, held_out))


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _steps(
    trainer: Trainer, training: Pictures, workers: int, book: _Book | None = None
) -> Iterator[dict[str, float]]:
    """The loop; only the first process has a book to keep."""
    run, ranks = trainer.run, trainer.ranks
    spec = run.train
    started, first, losses = time.monotonic(), trainer.step, []
    numbers = range(trainer.step, spec.steps)
    with nullcontext() if book is None else book.log() as write:
        for batch in dataset.batches(
            training, run.data, trainer.seed, numbers, workers, trainer.share
        ):
            losses.append(trainer.advance(*batch))
            last = trainer.step == spec.steps
            validates = last or trainer.step % spec.validate_every == 0
            saves = last or trainer.step % spec.save_every == 0
            if trainer.step % LOG_EVERY and not validates and not saves:
                continue
            metrics: dict[str, float] = {
                "step": trainer.step,
                "loss": ranks.mean(torch.stack(losses).mean()),
                "learning_rate": trainer.optimiser.param_groups[0]["lr"],
                "seconds_per_step": (time.monotonic() - started) / (trainer.step - first),
            }
            losses.clear()
            if book is not None and write is not None:
                if validates:
                    metrics |= book.validate()
                write(metrics)
                if saves:
                    book.save()
            yield metrics


def _first(pictures: Pictures, count: int) -> Pictures:
    lq = None if pictures.lq is None else pictures.lq[:count]
    return Pictures(pictures.hq[:count], lq)


class _Counts(TypedDict):
    training: int
    held_out: int


class _Book:
    """What the first process writes into the folder of the run."""

    def __init__(self, out: Path, trainer: Trainer, training: Pictures, held_out: Pictures) -> None:
        spec = trainer.run.train
        self.out, self.trainer = out, trainer
        self.counts: _Counts = {"training": len(training), "held_out": len(held_out)}
        self.pairs = dataset.validation_pairs(_first(held_out, spec.validate_on), trainer.run.data)

    def log(self) -> AbstractContextManager[Callable[[Mapping[str, float]], None]]:
        """See `runlog.log`."""
        return runlog.log(self.out, self.trainer.step)

    def validate(self) -> dict[str, float]:
        """Measure, and show on a sheet."""
        trainer, samples = self.trainer, self.trainer.run.train.samples
        if samples:
            path = self.out / runlog.SAMPLES / f"{trainer.step:06}.png"
            atomic.make_folder(path.parent)
            sheet.write(path, trainer.samples(self.pairs[:samples]))
        return trainer.validate(self.pairs)

    def save(self) -> None:
        """Write weights, card and, last, the state: what it says was done has then been written."""
        self.trainer.export(self.out / runlog.WEIGHTS)
        latest: dict[str, float] = {}
        for entry in runlog.measured(self.out):
            latest |= entry
        start = runlog.start_of(self.out)
        card.draft(self.out / runlog.CARD, self.trainer.run, latest, **self.counts, start=start)
        self.trainer.save(self.out / runlog.STATE)
