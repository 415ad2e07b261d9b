"""Enlarge images with ResShift, and mend them; torch is imported only when an image is."""

from __future__ import annotations

TYPE_CHECKING = False  # typing takes a while to be imported, and `resshift` starts here
if TYPE_CHECKING:
    from typing import Any

    from resshift_cli.restoration.face_restorer import FaceRestorer
    from resshift_cli.restoration.inpainter import Inpainter
    from resshift_cli.restoration.restorer import Restorer
    from resshift_cli.restoration.upscaler import Upscaler

__version__ = "0.5.0"
__all__ = ["FaceRestorer", "Inpainter", "Restorer", "Upscaler", "__version__"]


def __getattr__(name: str) -> Any:
    """Import a class, and with it torch, on first use."""
    if name == "Upscaler":
        from resshift_cli.restoration.upscaler import Upscaler

        return Upscaler
    if name == "FaceRestorer":
        from resshift_cli.restoration.face_restorer import FaceRestorer

        return FaceRestorer
    if name == "Inpainter":
        from resshift_cli.restoration.inpainter import Inpainter

        return Inpainter
    if name == "Restorer":
        from resshift_cli.restoration.restorer import Restorer

        return Restorer
    raise AttributeError(f"module 'resshift_cli' has no attribute '{name}'")
