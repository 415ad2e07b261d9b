"""Make the README's picture: bicubic enlargement on the left, the bundled model on the right.

python scripts/picture.py examples/kitten.jpg docs/kitten.jpg --left 40 --top 60 --side 120
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from PIL import Image

from resshift_cli import Upscaler

GAP = 8  # pixels of white between the two


def main(
    source: Annotated[Path, typer.Argument(help="A small photo.")],
    target: Annotated[Path, typer.Argument(help="The picture to write.")],
    left: Annotated[int, typer.Option(help="First column of the part to show.")] = 0,
    top: Annotated[int, typer.Option(help="First row of it.")] = 0,
    side: Annotated[int, typer.Option(help="Its side, in pixels of the source.")] = 120,
    model: str = "tiny-x4",
) -> None:
    """Enlarge the whole photo both ways, and show one part of the results side by side."""
    with Image.open(source) as opened:
        photo = opened.convert("RGB")
    upscaler = Upscaler.from_pretrained(model)
    scale = upscaler.spec.scale
    size = (photo.width * scale, photo.height * scale)
    right, bottom = left + side, top + side
    part = (scale * left, scale * top, scale * right, scale * bottom)
    sheet = Image.new("RGB", (2 * side * scale + GAP, side * scale), "white")
    for i, result in enumerate((photo.resize(size, Image.Resampling.BICUBIC), upscaler(photo))):
        sheet.paste(result.crop(part), (i * (side * scale + GAP), 0))
    sheet.save(target, quality=92)


if __name__ == "__main__":
    typer.run(main)
