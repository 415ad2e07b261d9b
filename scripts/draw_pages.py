"""Draw pictures of text, line art and flat graphics, to train on beside photos.

    python scripts/draw_pages.py DIR [--count 32] [--seed 0]

Fonts are those of Debian's packages fonts-dejavu, fonts-liberation, fonts-urw-base35,
fonts-comic-neue, fonts-noto-core, fonts-wqy-zenhei, fonts-ipafont-gothic and fonts-nanum. The same
seed, fonts and Pillow draw the same pictures. What is written means nothing: letters are drawn at
random, roughly as often as the script has them.
"""

from __future__ import annotations

import math
import subprocess
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image, ImageDraw, ImageFilter, ImageFont

WIDTH, HEIGHT = 960, 720
SUPERSAMPLING = 2

LATIN = "eeeeetttaaaoooiiinnnsssrrrhhdlucmfpgwybvk" * 3 + "xjqz"
ACCENTED = LATIN + "äöüßéèàçñôåøłęřšž"
CYRILLIC = "оооеееаааииинннтттсссррввлкмдпуяыьгзбчйхжшюцщэф"
GREEK = "αααεεειιοοοννττσσςρρηυλκπμγδθχφωβξζψ"
HEBREW = "ייווההלאארתתבשמנכדעפחקגסטזצ"
ARABIC = "ااالللييمممننووترربهعدسكفقحجشطصخ"
DEVANAGARI = "कखगचजटडतथदनपबमयरलवशसह"
THAI = "กนรอมาเงลยวดทสตคปบ"
KANA = (
    "あいうえおかきくけこさしすせそたちつてとなにのはまみもやよらりるれわ"
    "アイウカキクシスタテトナニノマラリルレ"
)
CHINESE = "".join(chr(code) for code in range(0x4E00, 0x5A00))
KOREAN = "".join(chr(code) for code in range(0xAC00, 0xD7A0, 7))

# What is written with, and the fonts, by family, that can.
SCRIPTS = [
    (LATIN, ["DejaVu Sans", "DejaVu Serif", "Liberation Sans", "Liberation Serif", "C059", "P052"]),
    (LATIN, ["DejaVu Sans Mono", "Liberation Mono", "Comic Neue", "URW Gothic", "Z003"]),
    (ACCENTED, ["DejaVu Sans", "DejaVu Serif", "Noto Serif", "Noto Sans"]),
    (CYRILLIC, ["DejaVu Sans", "DejaVu Serif", "Noto Serif", "Liberation Serif"]),
    (GREEK, ["DejaVu Sans", "DejaVu Serif", "Noto Sans"]),
    (HEBREW, ["Noto Sans Hebrew"]),
    (ARABIC, ["Noto Sans Arabic"]),
    (DEVANAGARI, ["Noto Sans Devanagari"]),
    (THAI, ["Noto Sans Thai"]),
    (KANA, ["IPAGothic"]),
    (CHINESE, ["WenQuanYi Zen Hei"]),
    (KOREAN, ["NanumGothic", "NanumMyeongjo"]),
]
WEIGHTS = np.array([8, 5, 3, 3, 1, 1, 1, 1, 1, 2, 2, 1], dtype=float)

Colour = tuple[int, int, int]


def font_files() -> dict[str, list[str]]:
    """Files of every installed family."""
    listed = subprocess.run(
        ["fc-list", "--format", "%{family[0]}\t%{file}\t%{index}\n"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    files: dict[str, list[str]] = {}
    for line in sorted(listed.splitlines()):
        family, file, index = line.split("\t")
        if index == "0" and file.endswith((".ttf", ".otf", ".ttc", ".t1")):
            files.setdefault(family, []).append(file)
    return files


def word(letters: str, rng: np.random.Generator) -> str:
    """A word of random letters, or a number."""
    length = int(rng.integers(1, 10))
    text = "".join(letters[int(i)] for i in rng.integers(len(letters), size=length))
    kind = rng.random()
    if kind < 0.15:
        return text.capitalize()
    if kind < 0.22:
        return text.upper()
    if kind < 0.30:
        return str(int(rng.integers(0, 10 ** min(length, 6))))
    return text + (str(rng.choice(list(",.;:!?"))) if kind > 0.88 else "")


def line(letters: str, rng: np.random.Generator) -> str:
    """Some words."""
    return " ".join(word(letters, rng) for _ in range(int(rng.integers(2, 16))))


def colours(rng: np.random.Generator) -> tuple[Colour, Colour]:
    """Paper and ink: mostly dark on light, sometimes the reverse, sometimes any two."""
    kind = rng.random()
    light = tuple(int(v) for v in 255 - rng.integers(0, 40, size=3))
    dark = tuple(int(v) for v in rng.integers(0, 60, size=3))
    if kind < 0.35:
        return (255, 255, 255), (0, 0, 0)
    if kind < 0.6:
        return light, dark  # type: ignore[return-value]  # of three
    if kind < 0.8:
        return dark, light  # type: ignore[return-value]
    paper, ink = rng.integers(0, 256, size=(2, 3))
    if abs(int(paper.sum()) - int(ink.sum())) < 200:
        ink = 255 - paper
    return tuple(map(int, paper)), tuple(map(int, ink))  # type: ignore[return-value]


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
            font = ImageFont.truetype(file, size * scale)
            clip = Image.new("L", (width * scale, block * scale))
            pen = ImageDraw.Draw(clip)
            top = int(rng.integers(0, size))
            while top < block:
                pen.text(
                    (int(rng.integers(4, 20)) * scale, top * scale), line(letters, rng), 255, font
                )
                top += int(size * rng.uniform(1.15, 1.5))
            if rng.random() < 0.2:
                clip = clip.rotate(rng.uniform(-8, 8), Image.Resampling.BICUBIC)
            page.paste(ink, (x * scale, y * scale), clip)
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
        elif kind < 0.75:  # hatching, within a shape
            mask = Image.new("L", page.size)
            ImageDraw.Draw(mask).polygon(shape, fill=255)
            lines = Image.new("L", page.size)
            pen = ImageDraw.Draw(lines)
            x0, y0, x1, y1 = mask.getbbox() or (0, 0, 1, 1)
            gap, slant = int(rng.integers(3, 14)) * scale, int(rng.integers(-200, 200)) * scale
            for x in range(x0 - abs(slant), x1 + abs(slant), gap):
                pen.line((x, y0, x + slant, y1), 255, int(rng.integers(1, 5)))
            page.paste(ink, (0, 0), Image.composite(lines, Image.new("L", page.size), mask))
        elif kind < 0.85:  # screen tone
            x, y = rng.uniform((0, 0), (WIDTH, HEIGHT)) * scale
            step, radius = rng.uniform(4, 12) * scale, rng.uniform(1, 3) * scale
            for i in range(16):
                for j in range(12):
                    cx, cy = x + (i + (j % 2) / 2) * step, y + j * step
                    draw.ellipse((cx - radius, cy - radius, cx + radius, cy + radius), ink)
        elif kind < 0.92:  # speech
            x, y = rng.uniform((0, 0), (WIDTH - 200, HEIGHT - 80)) * scale
            draw.ellipse((x, y, x + 220 * scale, y + 90 * scale), (255, 255, 255), ink, width)
            font = ImageFont.truetype(
                str(rng.choice(fonts["Comic Neue"])), int(rng.integers(12, 26)) * scale
            )
            for row in range(2):
                words = " ".join(word(LATIN, rng).upper() for _ in range(2))
                draw.text((x + 40 * scale, y + (20 + 26 * row) * scale), words, (0, 0, 0), font)
        else:
            x, y = rng.uniform((0, 0), (WIDTH, HEIGHT)) * scale
            w, h = rng.uniform(10, 240, size=2) * scale
            inside = colours(rng)[1] if coloured else None
            draw.rectangle((x, y, x + w, y + h), inside, ink, width)
    page = page.resize((WIDTH, HEIGHT), Image.Resampling.BOX)
    return page.filter(ImageFilter.GaussianBlur(0.5)) if rng.random() < 0.3 else page


def main(
    folder: Path,
    count: Annotated[int, typer.Option(help="Pictures; two of three are text.")] = 32,
    seed: int = 0,
) -> None:
    """Draw them."""
    fonts = font_files()
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        page = drawing(rng, fonts) if number % 3 == 2 else text_page(rng, fonts)
        page.save(folder / f"page-{number:02}.png")


if __name__ == "__main__":
    typer.run(main)
