"""Draw pictures of text, line art and flat graphics, to train on beside photos.

    python scripts/draw_pages.py DIR [--count 60] [--seed 0]
    resshift train CONFIG --photos PHOTOS --photos DIR --out RUN

Of five pictures one has blocks of text in many scripts and colours, two are printed pages, one is
line art as comics have it, and one holds charts, tables, windows, diagrams and logos. Text is
smoothed as in print, or on the grid of pixels as on screens, or not smoothed at all.

Fonts are those of Debian's packages fonts-dejavu, fonts-liberation, fonts-urw-base35,
fonts-comic-neue, fonts-noto-core, fonts-wqy-zenhei, fonts-ipafont-gothic and fonts-nanum. The same
seed, fonts and Pillow draw the same pictures. What is written means nothing: letters are drawn at
random, roughly as often as the script has them.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from writing import (
    HEIGHT,
    LATIN,
    SCRIPTS,
    SUPERSAMPLING,
    WEIGHTS,
    WIDTH,
    Colour,
    colours,
    font_files,
    line,
    word,
)


def block_of_text(
    extent: tuple[int, int], letters: str, face: tuple[str, int], rng: np.random.Generator
) -> Image.Image:
    """Lines of text as a mask of supersampled pixels.

    Half of the blocks are as printed, smoothed and anywhere between pixels. The others are as on
    screens, fitted to the grid of pixels, and some of these are not smoothed.
    """
    kind = rng.random()
    scale = SUPERSAMPLING if kind < 0.5 else 1
    file, size = face
    font = ImageFont.truetype(file, size * scale)
    width, height = extent
    mask = Image.new("L", (width * scale, height * scale))
    pen = ImageDraw.Draw(mask)
    pen.fontmode = "1" if kind > 0.8 else "L"
    top = int(rng.integers(0, size))
    while top < height:
        pen.text((int(rng.integers(4, 20)) * scale, top * scale), line(letters, rng), 255, font)
        top += int(size * rng.uniform(1.15, 1.5))
    if scale == 1:
        large = (width * SUPERSAMPLING, height * SUPERSAMPLING)
        return mask.resize(large, Image.Resampling.NEAREST)
    if rng.random() < 0.3:
        mask = mask.rotate(rng.uniform(-8, 8), Image.Resampling.BICUBIC)
    return mask


def text_page(rng: np.random.Generator, fonts: dict[str, list[str]]) -> Image.Image:
    """Blocks of text in several scripts, sizes and colours."""
    scale = SUPERSAMPLING
    page = Image.new("RGB", (WIDTH * scale, HEIGHT * scale), colours(rng)[0])
    draw = ImageDraw.Draw(page)
    y = 0
    while y < HEIGHT:
        block = int(rng.integers(40, 200))
        for x, width in ((0, WIDTH // 2), (WIDTH // 2, WIDTH // 2)):
            paper, ink = colours(rng)
            draw.rectangle((x * scale, y * scale, (x + width) * scale, (y + block) * scale), paper)
            letters, families = SCRIPTS[rng.choice(len(SCRIPTS), p=WEIGHTS / WEIGHTS.sum())]
            family = str(rng.choice(families))
            file = str(rng.choice(fonts[family]))
            size = int(np.exp(rng.uniform(math.log(11), math.log(64))))
            clip = block_of_text((width, block), letters, (file, size), rng)
            page.paste(ink, (x * scale, y * scale), clip)
        y += block
    return page.resize((WIDTH, HEIGHT), Image.Resampling.BOX)


def document(rng: np.random.Generator, fonts: dict[str, list[str]]) -> Image.Image:
    """A page in one or two columns: one font, small sizes, dark on light."""
    paper, ink = ((255, 255, 255), (0, 0, 0)) if rng.random() < 0.7 else colours(rng)
    scale = SUPERSAMPLING
    page = Image.new("RGB", (WIDTH * scale, HEIGHT * scale), paper)
    letters, families = SCRIPTS[rng.choice([0, 0, 0, 1, 2, 3])]
    file = str(rng.choice(fonts[str(rng.choice(families))]))
    columns = int(rng.integers(1, 3))
    width, y = WIDTH // columns, 0
    while y < HEIGHT:
        size = int(np.exp(rng.uniform(math.log(14), math.log(36))))
        block = int(rng.integers(80, 300))
        for column in range(columns):
            clip = block_of_text((width, block), letters, (file, size), rng)
            page.paste(ink, (column * width * scale, y * scale), clip)
        y += block
    return page.resize((WIDTH, HEIGHT), Image.Resampling.BOX)


def curve(rng: np.random.Generator, scale: int) -> list[tuple[float, float]]:
    """A smooth random curve."""
    centre = rng.uniform((0, 0), (WIDTH, HEIGHT))
    reach = rng.uniform(20, 240)
    angles = np.linspace(0, rng.uniform(0.5, 1) * 2 * math.pi, 80)
    radius = np.full_like(angles, reach)
    for k in range(1, 6):
        radius += reach * rng.uniform(-0.3, 0.3) * np.sin(k * angles + rng.uniform(0, 6.3))
    points = centre + np.stack([np.cos(angles), np.sin(angles)], axis=1) * radius[:, None]
    return [(x, y) for x, y in points * scale]


def hatch(
    page: Image.Image,
    shape: list[tuple[float, float]],
    ink: tuple[int, int, int],
    rng: np.random.Generator,
) -> None:
    """Slanted lines within a shape."""
    scale = SUPERSAMPLING
    mask = Image.new("L", page.size)
    ImageDraw.Draw(mask).polygon(shape, fill=255)
    lines = Image.new("L", page.size)
    pen = ImageDraw.Draw(lines)
    x0, y0, x1, y1 = mask.getbbox() or (0, 0, 1, 1)
    gap, slant = int(rng.integers(3, 14)) * scale, int(rng.integers(-200, 200)) * scale
    for x in range(x0 - abs(slant), x1 + abs(slant), gap):
        pen.line((x, y0, x + slant, y1), 255, int(rng.integers(1, 5)))
    page.paste(ink, (0, 0), Image.composite(lines, Image.new("L", page.size), mask))


def screen_tone(
    draw: ImageDraw.ImageDraw, ink: tuple[int, int, int], rng: np.random.Generator
) -> None:
    """Rows of dots, every other one shifted by half of their distance."""
    scale = SUPERSAMPLING
    x, y = rng.uniform((0, 0), (WIDTH, HEIGHT)) * scale
    step, radius = rng.uniform(4, 12) * scale, rng.uniform(1, 3) * scale
    for i in range(16):
        for j in range(12):
            cx, cy = x + (i + (j % 2) / 2) * step, y + j * step
            draw.ellipse((cx - radius, cy - radius, cx + radius, cy + radius), ink)


def speak(
    draw: ImageDraw.ImageDraw,
    ink: tuple[int, int, int],
    width: int,
    rng: np.random.Generator,
    fonts: dict[str, list[str]],
) -> None:
    """A balloon with two lines of words."""
    scale = SUPERSAMPLING
    x, y = rng.uniform((0, 0), (WIDTH - 200, HEIGHT - 80)) * scale
    draw.ellipse((x, y, x + 220 * scale, y + 90 * scale), (255, 255, 255), ink, width)
    font = ImageFont.truetype(
        str(rng.choice(fonts["Comic Neue"])), int(rng.integers(12, 26)) * scale
    )
    for row in range(2):
        words = " ".join(word(LATIN, rng).upper() for _ in range(2))[:12]
        middle = (x + 110 * scale, y + (32 + 26 * row) * scale)
        draw.text(middle, words, (0, 0, 0), font, anchor="mm")


def drawing(rng: np.random.Generator, fonts: dict[str, list[str]]) -> Image.Image:
    """Outlined shapes, hatching, dots and speech balloons, as comics and diagrams have them."""
    scale = SUPERSAMPLING
    page = Image.new("RGB", (WIDTH * scale, HEIGHT * scale), colours(rng)[0])
    draw = ImageDraw.Draw(page)
    coloured = rng.random() < 0.6
    ink = (0, 0, 0) if rng.random() < 0.7 else colours(rng)[1]
    for _ in range(int(rng.integers(40, 90))):
        width = int(rng.integers(1, 9))
        kind = rng.random()
        shape = curve(rng, scale)
        if kind < 0.35:
            fill = colours(rng)[int(rng.integers(2))] if coloured else (255, 255, 255)
            draw.polygon(shape, fill=fill)
            draw.line([*shape, shape[0]], ink, width, joint="curve")
        elif kind < 0.55:
            draw.line(shape, ink, width, joint="curve")
        elif kind < 0.75:
            hatch(page, shape, ink, rng)
        elif kind < 0.85:
            screen_tone(draw, ink, rng)
        elif kind < 0.92:
            speak(draw, ink, width, rng, fonts)
        else:
            x, y = rng.uniform((0, 0), (WIDTH, HEIGHT)) * scale
            w, h = rng.uniform(10, 240, size=2) * scale
            inside = colours(rng)[1] if coloured else None
            draw.rectangle((x, y, x + w, y + h), inside, ink, width)
    page = page.resize((WIDTH, HEIGHT), Image.Resampling.BOX)
    return page.filter(ImageFilter.GaussianBlur(0.5)) if rng.random() < 0.3 else page


class Panel:
    """A part of a page of graphics, and what is drawn there with; lengths are in final pixels.

    Args:
        size: width and height.
        rng: source of every random choice.
        fonts: files by family.
    """

    def __init__(
        self, size: tuple[int, int], rng: np.random.Generator, fonts: dict[str, list[str]]
    ) -> None:
        self.width, self.height = size
        self.rng = rng
        self.paper, self.ink = colours(rng)
        self.image = Image.new(
            "RGB", (size[0] * SUPERSAMPLING, size[1] * SUPERSAMPLING), self.paper
        )
        self.pen = ImageDraw.Draw(self.image)
        family = str(rng.choice(["DejaVu Sans", "Liberation Sans", "Noto Sans", "Comic Neue"]))
        self.file = str(rng.choice(fonts[family]))

    def colour(self) -> Colour:
        """A flat colour, rather strong."""
        levels = self.rng.choice([0, 40, 90, 150, 200, 235, 255], size=3)
        return int(levels[0]), int(levels[1]), int(levels[2])

    def box(
        self,
        place: tuple[float, float, float, float],
        fill: Colour | None = None,
        outline: Colour | None = None,
        radius: float = 0,
    ) -> None:
        """A rectangle (left, top, right, bottom), maybe with round corners."""
        place = tuple(v * SUPERSAMPLING for v in place)  # type: ignore[assignment]  # of four
        width = int(self.rng.integers(1, 5))
        self.pen.rounded_rectangle(place, radius * SUPERSAMPLING, fill, outline, width)

    def line(self, points: list[tuple[float, float]], ink: Colour, width: float) -> None:
        """Straight lines from point to point."""
        scaled = [(x * SUPERSAMPLING, y * SUPERSAMPLING) for x, y in points]
        self.pen.line(scaled, ink, max(round(width * SUPERSAMPLING), 1), joint="curve")

    def dot(self, x: float, y: float, radius: float, fill: Colour) -> None:
        """A disc."""
        edges = (x - radius, y - radius, x + radius, y + radius)
        self.pen.ellipse(tuple(v * SUPERSAMPLING for v in edges), fill)

    def text(
        self, x: float, y: float, text: str, size: int, ink: Colour, anchor: str = "la"
    ) -> None:
        """A line of text."""
        font = ImageFont.truetype(self.file, size * SUPERSAMPLING)
        self.pen.text((x * SUPERSAMPLING, y * SUPERSAMPLING), text, ink, font, anchor)


def chart(panel: Panel) -> None:
    """Axes with bars, lines or points."""
    rng, (w, h) = panel.rng, (panel.width, panel.height)
    left, top, right, bottom = 44, 34, w - 16, h - 30
    size = int(rng.integers(9, 14))
    panel.text(w / 2, 8, line(LATIN, rng)[:28], size + 3, panel.ink, "ma")
    pale = tuple((3 * p + i) // 4 for p, i in zip(panel.paper, panel.ink, strict=True))
    ticks = int(rng.integers(3, 8))
    for i in range(ticks + 1):
        y = bottom - (bottom - top) * i / ticks
        panel.line([(left, y), (right, y)], pale, 0.5)  # type: ignore[arg-type]  # of three
        panel.text(left - 5, y, str(i * int(rng.integers(1, 9))), size, panel.ink, "rm")
    count = int(rng.integers(4, 14))
    across = (right - left) / count
    kind = rng.random()
    for _ in range(1 if kind < 0.4 else int(rng.integers(1, 4))):
        heights = bottom - (bottom - top) * rng.uniform(0.05, 1, count)
        shade = panel.colour()
        points = [(left + across * (i + 0.5), float(y)) for i, y in enumerate(heights)]
        for x, y in points:
            if kind < 0.4:
                panel.box((x - 0.4 * across, y, x + 0.4 * across, bottom), shade)
            else:
                panel.dot(x, y, float(rng.uniform(1.5, 4)), shade)
        if kind > 0.6:
            panel.line(points, shade, float(rng.uniform(0.7, 3)))
    panel.line([(left, top), (left, bottom), (right, bottom)], panel.ink, 1)
    for i in range(count):
        name = word(LATIN, rng)[: max(int(across / size * 1.5), 1)]
        panel.text(left + across * (i + 0.5), bottom + 5, name, size, panel.ink, "ma")


def pie(panel: Panel) -> None:
    """A disc in sectors, and what they mean."""
    rng, radius = panel.rng, min(panel.width, panel.height) * 0.36
    x, y = panel.width * 0.36, panel.height / 2
    edges = np.cumsum(rng.dirichlet(np.ones(int(rng.integers(3, 8))))) * 360
    place = [v * SUPERSAMPLING for v in (x - radius, y - radius, x + radius, y + radius)]
    start = 0.0
    for i, end in enumerate(edges):
        shade = panel.colour()
        panel.pen.pieslice(place, start, end, shade, panel.paper, 2)
        row = 20 + 22 * i
        panel.box((panel.width - 105, row, panel.width - 93, row + 12), shade)
        panel.text(panel.width - 88, row - 1, word(LATIN, rng)[:9], 12, panel.ink)
        start = float(end)


def table(panel: Panel) -> None:
    """Ruled rows of words and numbers."""
    rng, size = panel.rng, int(panel.rng.integers(10, 17))
    step, columns = size + int(rng.integers(5, 12)), int(rng.integers(2, 6))
    across = panel.width / columns
    head, shade = panel.colour(), rng.random() < 0.5
    panel.box((0, 0, panel.width, step), head)
    for row in range(panel.height // step + 1):
        y = row * step
        for column in range(columns):
            text = word(LATIN, rng) if row == 0 or column == 0 else f"{rng.uniform(0, 999):.2f}"
            dark = sum(head) < 380 and row == 0
            ink = (255, 255, 255) if dark else (0, 0, 0) if row == 0 else panel.ink
            panel.text(across * column + 6, y + step / 2, text, size, ink, "lm")
        if shade:
            panel.line([(0, y), (panel.width, y)], panel.ink, 0.5)
    for column in range(1, columns):
        panel.line([(across * column, 0), (across * column, panel.height)], panel.ink, 0.5)


def window(panel: Panel) -> None:
    """A program's window: title, menu, buttons, fields and check boxes."""
    rng, (w, h) = panel.rng, (panel.width, panel.height)
    light = rng.random() < 0.6
    back, ink = ((240, 240, 242), (20, 20, 24)) if light else ((38, 40, 46), (225, 228, 232))
    accent, edge = panel.colour(), (160, 160, 165) if light else (90, 92, 100)
    radius = float(rng.choice([0, 3, 8]))
    size = int(rng.integers(10, 15))
    panel.box((8, 8, w - 8, h - 8), back, edge, radius)
    panel.box((8, 8, w - 8, 34), accent, None, radius)
    white = (255, 255, 255) if sum(accent) < 420 else (0, 0, 0)
    panel.text(18, 21, line(LATIN, rng)[:22], size, white, "lm")
    for i in range(3):
        panel.dot(w - 22 - 18 * i, 21, 5, panel.colour())
    y = 44
    while y < h - 40:
        x = 20.0
        while x < w - 110:
            kind, text = rng.random(), word(LATIN, rng)
            if kind < 0.35:
                panel.box((x, y, x + 84, y + 24), accent if kind < 0.12 else back, edge, radius)
                shade = white if kind < 0.12 else ink
                panel.text(x + 42, y + 12, text.capitalize(), size, shade, "mm")
            elif kind < 0.6:
                panel.box((x, y + 5, x + 13, y + 18), (255, 255, 255), edge)
                if rng.random() < 0.5:
                    panel.line([(x + 3, y + 12), (x + 6, y + 15), (x + 11, y + 7)], (0, 0, 0), 1.5)
                panel.text(x + 19, y + 12, text, size, ink, "lm")
            elif kind < 0.8:
                panel.box((x, y + 2, x + 88, y + 22), (255, 255, 255), edge, radius)
                panel.text(x + 5, y + 12, text, size, (60, 60, 60), "lm")
            else:
                panel.line([(x, y + 12), (x + 80, y + 12)], edge, 3)
                panel.dot(x + float(rng.uniform(5, 75)), y + 12, 6, accent)
            x += 104
        y += 34


def diagram(panel: Panel) -> None:
    """Boxes with names, and arrows between them."""
    rng, places = panel.rng, []
    for row in range(max(panel.height // 90, 1)):
        for column in range(max(panel.width // 130, 1)):
            if rng.random() < 0.75:
                places.append((column * 130 + 65 + rng.uniform(-14, 14), row * 90 + 45.0))
    for a, b in zip(places, places[1:], strict=False):
        width = float(rng.uniform(0.6, 2))
        panel.line([a, b], panel.ink, width)
        middle = np.add(a, b) / 2
        along = np.subtract(b, a) / max(float(np.hypot(*np.subtract(b, a))), 1)
        for side in (-1, 1):
            barb = middle - 9 * along + side * 5 * np.array([-along[1], along[0]])
            panel.line([(barb[0], barb[1]), (middle[0], middle[1])], panel.ink, width)
    for x, y in places:
        fill = panel.colour() if rng.random() < 0.5 else panel.paper
        panel.box((x - 46, y - 20, x + 46, y + 20), fill, panel.ink, float(rng.choice([0, 6, 20])))
        ink = (255, 255, 255) if sum(fill) < 330 else (0, 0, 0)
        panel.text(x, y, word(LATIN, rng)[:9], int(rng.integers(10, 15)), ink, "mm")


def logo(panel: Panel) -> None:
    """Flat shapes laid over each other, and a name in large letters."""
    rng, (w, h) = panel.rng, (panel.width, panel.height)
    x, y, reach = w / 2, h * 0.4, min(w, h) * 0.3
    for _ in range(int(rng.integers(2, 6))):
        shade, kind = panel.colour(), rng.random()
        r = reach * float(rng.uniform(0.3, 1))
        if kind < 0.35:
            panel.dot(x, y, r, shade)
        elif kind < 0.55:
            panel.box((x - r, y - r, x + r, y + r), shade, None, float(rng.choice([0, 0.3])) * r)
        else:  # a polygon, or a star
            corners = int(rng.integers(3, 9))
            inner = 1.0 if kind < 0.75 else float(rng.uniform(0.35, 0.7))
            turn = float(rng.uniform(0, 2 * math.pi))
            angles = turn + np.arange(2 * corners) * math.pi / corners
            radii = np.where(np.arange(2 * corners) % 2, inner * math.cos(math.pi / corners), 1) * r
            points = np.stack([x + radii * np.cos(angles), y + radii * np.sin(angles)], axis=1)
            panel.pen.polygon([(a, b) for a, b in points * SUPERSAMPLING], shade)
    size = int(rng.integers(20, 44))
    panel.text(w / 2, h * 0.85, word(LATIN, rng).upper()[:8], size, panel.ink, "mm")


PANELS = [chart, chart, pie, table, window, window, diagram, logo]


def graphics(rng: np.random.Generator, fonts: dict[str, list[str]]) -> Image.Image:
    """Charts, tables, windows, diagrams and logos beside each other."""
    page = Image.new("RGB", (WIDTH, HEIGHT))
    columns, rows = int(rng.integers(2, 4)), int(rng.integers(2, 4))
    size = (WIDTH // columns, HEIGHT // rows)
    for row in range(rows):
        for column in range(columns):
            panel = Panel(size, rng, fonts)
            PANELS[int(rng.integers(len(PANELS)))](panel)
            small = panel.image.resize(size, Image.Resampling.BOX)
            page.paste(small, (column * size[0], row * size[1]))
    return page


KINDS = [text_page, drawing, document, document, graphics]
TEXT = [document, document, text_page]


def main(
    folder: Path,
    count: Annotated[int, typer.Option(help="Pictures; three of five are text.")] = 60,
    seed: int = 0,
    text: Annotated[bool, typer.Option("--text", help="Text alone.")] = False,
) -> None:
    """Draw them."""
    kinds = TEXT if text else KINDS
    fonts = font_files()
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        page = kinds[number % len(kinds)](rng, fonts)
        page.save(folder / f"page-{number:02}.png")


if __name__ == "__main__":
    typer.run(main)
