"""How the results of a batch are made."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from resshift_cli import __version__
from resshift_cli.imaging.files import Handling
from resshift_cli.restoration import provenance
from resshift_cli.restoration.crafts import Craft, Upscale
from resshift_cli.restoration.settings import Settings
from resshift_cli.restoration.size import Box
from resshift_cli.system.device import precision_name
from resshift_cli.weights.registry import ModelEntry

if TYPE_CHECKING:
    import torch

    from resshift_cli.diffusion.specs import ModelSpec


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that the results of a batch depend on but the inputs.

    Attributes:
        entry: the model.
        spec: the same, as it is run.
        settings: how the model does it; with a box, each image has a scale of its own.
        handling: how files are read and written.
        device: where it is computed.
        dtype: what it is computed in.
        weights: SHA-256 of the weight files, joined by "+"; "" where they are not here.
        box: what results are to fill, where that says how large they are.
        craft: what is done with images.
    """

    entry: ModelEntry
    spec: ModelSpec
    settings: Settings
    handling: Handling
    device: torch.device
    dtype: torch.dtype
    weights: str
    box: Box | None = None
    craft: Craft[Any] = field(default_factory=Upscale)

    @property
    def mark(self) -> str:
        """What stands behind a name in that of its result."""
        usual = f"_x{self.settings.scale:g}" if self.box is None else f"_{self.box}"
        return self.craft.mark or usual

    def settings_for(self, height: int, width: int, name: str = "The image") -> Settings:
        """How an image of that size is enlarged; `name` is what messages call it.

        Raises:
            UsageError: it can't fill the box.
        """
        if self.box is None:
            return self.settings
        return replace(self.settings, scale=self.box.scale(height, width, name))

    def options(self) -> dict[str, Any]:
        """All settings that a result depends on, by name."""
        return {
            "task": self.craft.task,
            "asked": self.craft.facts() or None,
            **asdict(self.settings),
            "size": None if self.box is None else str(self.box),
            "scale": self.settings.scale if self.box is None else None,
            **asdict(self.handling.options),
            "first_frame": self.handling.first_frame,
            "assume_profile": self.handling.assumed.name,
        }

    def identity(self) -> dict[str, Any]:
        """What a finished result has to have in common with one that would be made now."""
        return {
            "model": self.entry.name,
            "weights": self.weights,
            **self.options(),
            "precision": precision_name(self.dtype),
        }

    def place(self) -> tuple[str, str]:
        """Device and precision, as a `restoration.Upscaler` is told of them."""
        return str(self.device), precision_name(self.dtype)

    def facts(self) -> dict[str, Any]:
        """What the ledger is told with every result."""
        threads = provenance.threads(self.device)
        made = {"device": str(self.device), "threads": threads, "version": __version__}
        return {**self.identity(), **made}

    def note(self) -> str:
        """What the results' metadata say."""
        return provenance.note(self.entry, self.settings, self.device, self.dtype)
