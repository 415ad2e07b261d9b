"""Make the README's pictures: bicubic enlargement on the left, the bundled model on the right.

    python scripts/picture.py examples/kitten.jpg docs/kitten.jpg --left 70 --top 50 --side 90 \
        --other kitten-by-another.png
    python scripts/picture.py small.png docs/window.jpg --other another.png --original large.png

Results of other upscalers stand between the two, an original at the right end.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from PIL import Image

from resshift_cli import Upscaler

GAP = 8  # pixels of white between them


def main(
    source: Annotated[Path, typer.Argument(help="A small photo.")],
    target: Annotated[Path, typer.Argument(help="The picture to write.")],
    left: Annotated[int, typer.Option(help="First column of the part to show.")] = 0,
    top: Annotated[int, typer.Option(help="First row of it.")] = 0,
    side: Annotated[int, typer.Option(help="Its side, in pixels of the source.")] = 64,
    other: Annotated[
        list[Path] | None, typer.Option(help="The photo as another program enlarged it.")
    ] = None,
    original: Annotated[
        Path | None, typer.Option(help="What the photo was reduced from, where that is known.")
    ] = None,
    model: str = "tiny-x4",
) -> None:
    """Enlarge the whole photo, and show one part of all results side by side."""
    with Image.open(source) as opened:
        photo = opened.convert("RGB")
    upscaler = Upscaler.from_pretrained(model)
    scale = upscaler.spec.scale
    size = (photo.width * scale, photo.height * scale)
    right, bottom = left + side, top + side
    part = (scale * left, scale * top, scale * right, scale * bottom)
    elsewhere = [Image.open(path).convert("RGB") for path in other or ()]
    results = [photo.resize(size, Image.Resampling.BICUBIC), *elsewhere, upscaler(photo)]
    if original is not None:
        results.append(Image.open(original).convert("RGB"))
    width = len(results) * (side * scale + GAP) - GAP
    sheet = Image.new("RGB", (width, side * scale), "white")
    for i, result in enumerate(results):
        sheet.paste(result.crop(part), (i * (side * scale + GAP), 0))
    sheet.save(target, quality=92)


if __name__ == "__main__":
    typer.run(main)
