"""What pages are written with: scripts, fonts that have them, words and colours."""

from __future__ import annotations

import subprocess

import numpy as np

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
LETTERS_ONLY = {HEBREW, ARABIC, DEVANAGARI, THAI}  # these fonts have no digits or full stops

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
    if letters in LETTERS_ONLY:
        return text
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
