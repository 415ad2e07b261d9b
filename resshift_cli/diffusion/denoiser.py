"""The Swin U-Net that predicts the sharp latent, input scaling included."""

from __future__ import annotations

import copy
import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from resshift_cli.diffusion.layers import SiLU, normalisation
from resshift_cli.diffusion.schedule import ShiftSchedule
from resshift_cli.diffusion.specs import DenoiserSpec, Norm
from resshift_cli.diffusion.swin import SwinLayer


def timestep_embedding(timesteps: Tensor, dim: int) -> Tensor:
    """Sinusoidal embedding of 0-based timesteps, cosines first; float32 (N, dim)."""
    half = dim // 2
    index = torch.arange(half, dtype=torch.float32, device=timesteps.device)
    angles = timesteps[:, None].float() * torch.exp(-math.log(10000.0) / half * index)
    return torch.cat([angles.cos(), angles.sin()], dim=1)


class ResBlock(nn.Module):
    """Two convolutions; the time embedding scales and shifts between them."""

    def __init__(
        self, in_channels: int, out_channels: int, time_channels: int, norm: Norm = "group"
    ) -> None:
        super().__init__()
        self.in_layers = nn.Sequential(
            normalisation(in_channels, norm),
            SiLU() if norm == "group" else nn.SiLU(),  # else the skip connection reads it too
            nn.Conv2d(in_channels, out_channels, 3, padding=1),
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(time_channels, 2 * out_channels))
        self.out_layers = nn.Sequential(
            normalisation(out_channels, norm),
            SiLU(),
            nn.Dropout(0.0),  # keeps the published numbering of the layers
            nn.Conv2d(out_channels, out_channels, 3, padding=1),
        )
        self.skip_connection = (
            nn.Identity()
            if in_channels == out_channels
            else nn.Conv2d(in_channels, out_channels, 1)
        )

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Map (N, in, H, W) and the time embedding (N, time_channels) to (N, out, H, W)."""
        h = self.in_layers(x)
        scale, shift = self.emb_layers(time)[:, :, None, None].chunk(2, dim=1)
        norm, *rest = self.out_layers
        h = torch.addcmul(shift, norm(h), 1 + scale)
        for layer in rest:
            h = layer(h)
        return self.skip_connection(x) + h


class Downsample(nn.Module):
    """Halve the sides by a strided convolution."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.op = nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in, H, W) to (N, out, H/2, W/2)."""
        return self.op(x)


class Upsample(nn.Module):
    """Double the sides by nearest neighbour and a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C, 2H, 2W)."""
        return self.conv(F.interpolate(x, scale_factor=2, mode="nearest"))


class Stage(nn.Sequential):
    """Layers in a row, of which only the residual blocks want the time embedding."""

    def forward(self, x: Tensor, time: Tensor) -> Tensor:  # type: ignore[override]  # one more input
        """Map (N, C, H, W) to what the last layer makes of it."""
        for layer in self:
            x = layer(x, time) if isinstance(layer, ResBlock) else layer(x)
        return x


def feature_extractor(spec: DenoiserSpec) -> tuple[nn.Module, int]:
    """Bring the low-quality image down to latent size; returns the module and its channels."""
    channels = 4 if spec.lq_mask else 3
    layers: list[nn.Module] = []
    for stage in range(spec.lq_ratio.bit_length() - 1):
        width = 16 << stage
        layers += [
            nn.Conv2d(channels, width, 3, padding=1),
            SiLU(),
            Downsample(width, 2 * width),
        ]
        channels = 2 * width
    return (nn.Sequential(*layers) if layers else nn.Identity()), channels


class SwinUNet(nn.Module):
    """U-Net of residual blocks with a Swin layer per level; names as in the published files.

    Args:
        spec: the sizes. One Swin layer follows the first residual block of a level, on the way
            down and on the way up, and one stands in the middle.
    """

    def __init__(self, spec: DenoiserSpec) -> None:
        super().__init__()
        self.spec = spec
        time_channels = 4 * spec.model_channels
        self.time_embed = nn.Sequential(
            nn.Linear(spec.model_channels, time_channels),
            nn.SiLU(),
            nn.Linear(time_channels, time_channels),
        )
        self.feature_extractor, lq_channels = feature_extractor(spec)
        widths = [spec.model_channels * mult for mult in spec.channel_mult]
        last = len(widths) - 1
        inputs = spec.latent_channels + lq_channels + spec.noise_channels
        channels = widths[0]
        self.input_blocks = nn.ModuleList([Stage(nn.Conv2d(inputs, channels, 3, padding=1))])
        skips = [channels]
        for level, width in enumerate(widths):
            for i in range(spec.num_res_blocks):
                layers: list[nn.Module] = [ResBlock(channels, width, time_channels, spec.norm)]
                channels = width
                if i == 0 and level in spec.swin_levels:
                    layers.append(SwinLayer(spec, channels, level))
                self.input_blocks.append(Stage(*layers))
                skips.append(channels)
            if level != last:
                self.input_blocks.append(Stage(Downsample(channels, channels)))
                skips.append(channels)

        self.middle_block = Stage(
            ResBlock(channels, channels, time_channels, spec.norm),
            SwinLayer(spec, channels, last),
            ResBlock(channels, channels, time_channels, spec.norm),
        )

        self.output_blocks = nn.ModuleList()
        for level, width in reversed(list(enumerate(widths))):
            for i in range(spec.num_res_blocks + 1):
                layers = [ResBlock(channels + skips.pop(), width, time_channels, spec.norm)]
                channels = width
                if i == 0 and level in spec.swin_levels:
                    layers.append(SwinLayer(spec, channels, level))
                if i == spec.num_res_blocks and level > 0:
                    layers.append(Upsample(channels))
                self.output_blocks.append(Stage(*layers))

        self.out = nn.Sequential(
            normalisation(channels, spec.norm),
            SiLU(),
            nn.Conv2d(channels, spec.latent_channels, 3, padding=1),
        )

    def features(self, lq: Tensor) -> Tensor:
        """What the network is shown of the low-quality image; the same in every step.

        Args:
            lq: in [-1, 1], (N, 3 or 4, H * lq_ratio, W * lq_ratio).

        Returns:
            (N, C, H, W); for layouts with lq_ratio 1 it is `lq` itself.
        """
        return self.feature_extractor(lq)

    def forward(
        self, x: Tensor, timesteps: Tensor, features: Tensor, noise: Tensor | None = None
    ) -> Tensor:
        """Run the network.

        Args:
            x: scaled latent (N, latent_channels, H, W); H and W are multiples of
                `spec.size_multiple`.
            timesteps: int64 (N,), 0-based indices of the schedule trained with.
            features: of the low-quality image, see `features`.
            noise: (N, noise_channels, H, W), for layouts with noise planes.

        Returns:
            (N, latent_channels, H, W).
        """
        time = timestep_embedding(timesteps, self.spec.model_channels).to(x.dtype)
        time = self.time_embed(time)
        parts = [x, features]
        if noise is not None:
            parts.append(noise)
        h = torch.cat(parts, dim=1)
        skips = []
        for block in self.input_blocks:
            h = block(h, time)
            skips.append(h)
        h = self.middle_block(h, time)
        for block in self.output_blocks:
            h = block(torch.cat([h, skips.pop()], dim=1), time)
        return self.out(h)


class Denoiser(nn.Module):
    """A network together with the meaning of its input and output.

    Plain (published checkpoints): the network is shown x_t / sqrt(kappa^2 eta_t + 1).

    Preconditioned (our own small models; after Karras et al., arXiv:2206.00364, table 1): it is
    shown d = x_t - y_0, scaled alike. Since y_0 follows from the low-quality image nothing is
    lost, and the network need not learn to subtract. With d = -(1 - eta) e_0 + kappa sqrt(eta) eps
    and e_0 of unit variance, c = -(1 - eta) / v and s = kappa sqrt(eta / v), where
    v = (1 - eta)^2 + kappa^2 eta, give e_0 = c d + s F with F of unit variance: the network
    returns F, so that near the end of the chain its own errors shrink with the noise.

    Blind start: at the last step T the network is shown y_0 in place of x_T, which tells almost
    nothing of x_0 and has noise that the network would have to tell from the image.

    Args:
        network: the Swin U-Net.
        predict: what the network returns if not preconditioned: `x0` or the `residual` y_0 - x_0.
        precondition: see above; only with `residual`.
        blind_start: see above.
        mean: the same network as it was trained for the mean, of models that have both.
    """

    def __init__(
        self,
        network: SwinUNet,
        *,
        predict: Literal["x0", "residual"],
        precondition: bool,
        blind_start: bool = False,
        mean: SwinUNet | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.mean = mean
        self.predict = predict
        self.precondition = precondition
        self.blind_start = blind_start

    def forward(
        self,
        x_t: Tensor,
        y0: Tensor,
        lq: Tensor,
        schedule: ShiftSchedule,
        t: Tensor,
        noise: Tensor | None = None,
        features: Tensor | None = None,
    ) -> Tensor:
        """Predict x_0.

        Args:
            x_t: latent at step t, float32 (N, C, H, W).
            y0: latent of the upsampled low-quality image, same shape.
            lq: low-quality image, see `SwinUNet.features`.
            schedule: the steps that are walked.
            t: int64 (N,), 1-based steps of `schedule`; best on the CPU, since a GPU that is asked
                for them has to finish its work first.
            noise: see `SwinUNet.forward`.
            features: what `features` made of `lq`, so that it need not be done in every step.

        Returns:
            x_0, float32 (N, C, H, W).
        """
        shown, base, weight = self._meaning(x_t, y0, schedule, t)
        if features is None:
            features = self.features(lq)
        return base + weight * self._run(shown, features, schedule, t, noise)

    def at(self, detail: float) -> Denoiser:
        """One of a single network, whose weights lie between those of the mean and of samples.

        Weights that were trained from those of the mean can be averaged with them: the results lie
        between as well, at a better trade of error for realism than the average of results.

        Args:
            detail: 0 for the mean, 1 for samples.

        Raises:
            ValueError: there is no mean.
        """
        if self.mean is None:
            raise ValueError("this denoiser has one set of weights")
        network = copy.deepcopy(self.network)
        mean = self.mean.state_dict()
        for name, tensor in network.state_dict().items():
            if tensor.is_floating_point():
                tensor.copy_(torch.lerp(mean[name], tensor, detail))
        between = copy.copy(self)
        between._modules = {"network": network, "mean": None}
        return between

    def features(self, lq: Tensor) -> Tensor:
        """`SwinUNet.features` of a low-quality image of any dtype."""
        return self.network.features(lq.to(self._dtype))

    @property
    def parts(self) -> list[nn.Module]:
        """What can be compiled: modules with nothing but tensors as inputs and outputs."""
        return [self.network]

    @property
    def _dtype(self) -> torch.dtype:
        """What the network computes in."""
        return self.network.get_parameter("time_embed.0.weight").dtype

    def output_scale(
        self, schedule: ShiftSchedule, t: Tensor, device: torch.device
    ) -> Tensor | float:
        """How far the predicted x_0 moves when the network's output moves by 1.

        1 or, if it predicts the residual, -1; if preconditioned -s of each step, (N, 1, 1, 1).
        """
        if not self.precondition:
            return 1.0 if self.predict == "x0" else -1.0
        return _column([-b / math.sqrt(v) for _, b, v in _moments(schedule, t)], device)

    def _meaning(
        self, x_t: Tensor, y0: Tensor, schedule: ShiftSchedule, t: Tensor
    ) -> tuple[Tensor, Tensor, Tensor | float]:
        """What the network is shown, and (base, weight) with x_0 = base + weight * output."""
        if self.blind_start:
            last = (t == schedule.steps).to(x_t.device).view(-1, 1, 1, 1)
            x_t = torch.where(last, y0, x_t)
        scale = _column([schedule.input_scale(s) for s in t.tolist()], x_t.device)
        weight = self.output_scale(schedule, t, x_t.device)
        if not self.precondition:
            return x_t * scale, torch.zeros_like(y0) if self.predict == "x0" else y0, weight
        linear = _column([a / v for a, _, v in _moments(schedule, t)], x_t.device)
        difference = x_t - y0
        return difference * scale, torch.addcmul(y0, difference, linear), weight

    def _run(
        self,
        shown: Tensor,
        features: Tensor,
        schedule: ShiftSchedule,
        t: Tensor,
        noise: Tensor | None,
    ) -> Tensor:
        indices = [schedule.timesteps[s - 1] for s in t.tolist()]
        timesteps = torch.tensor(indices, device=shown.device)
        planes = None if noise is None else noise.to(self._dtype)
        output: Tensor = self.network(shown.to(self._dtype), timesteps, features, planes)
        return output.float()


def _moments(schedule: ShiftSchedule, t: Tensor) -> list[tuple[float, float, float]]:
    """(1 - eta, kappa sqrt(eta), v) of each step, see `Denoiser`."""
    pairs = ((1.0 - schedule.eta(step), schedule.noise_std(step)) for step in t.tolist())
    return [(a, b, a * a + b * b) for a, b in pairs]


def _column(values: list[float], device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, device=device).view(-1, 1, 1, 1)
