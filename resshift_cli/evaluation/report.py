"""What `resshift eval` tells of a comparison, to programs and to people."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from resshift_cli.errors import counted
from resshift_cli.evaluation import details, page
from resshift_cli.evaluation.comparison import Study
from resshift_cli.evaluation.metrics import REALISM
from resshift_cli.evaluation.pairs import Setup
from resshift_cli.system import atomic

REPORT, TABLE, SHEET, PAGE = "results.json", "per-image.csv", "sheet.png", "index.html"


def asked(hq: Path, lq: Path | None, setup: Setup) -> dict[str, Any]:
    """What is to be measured."""
    return {
        "hq": str(hq),
        "lq": None if lq is None else str(lq),
        "degrade": None if lq is not None else setup.degrade,
        "scale": setup.scale,
        "border": setup.scale,
        "crop": setup.crop,
        "seed": setup.seed,
        "metrics": [
            {"name": one.name, "title": one.title, "better": one.better, "digits": one.digits}
            for one in setup.metrics
        ],
    }


def found(study: Study, origins: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What was found out.

    Args:
        study: with all its rows measured.
        origins: what is to be told of rows beside their figures, by title.
    """
    return {
        "images": len(study.names),
        "left_out": [{"image": name, **error.facts()} for name, error in study.left_out.items()],
        "rows": [
            {"name": row["name"], **origins.get(row["name"], {}), "metrics": row["metrics"]}
            for row in (study.summary() if study.names else [])
        ],
    }


def notes(document: Mapping[str, Any]) -> list[str]:
    """How the figures came about, a sentence or two each.

    Args:
        document: `asked` and `found` together, with at least one row.
    """
    partners = (
        f"partners from {document['lq']}"
        if document["degrade"] is None
        else f"partners by {document['degrade']} degradation, seed {document['seed']}"
    )
    crop = "" if document["crop"] is None else f", the middle {document['crop']} pixels of each"
    left_out = f", {len(document['left_out'])} left out" if document["left_out"] else ""
    said = [
        f"{counted(document['images'], 'image')} of {document['hq']}{crop}{left_out}; "
        f"x{document['scale']}, {partners}.",
        f"PSNR and SSIM leave out {document['border']} pixels at each border; images are rounded "
        "to 8 bits; Y is BT.601 luma in 16..235; SSIM has the Gaussian window 11/1.5.",
        "Intervals hold 95 % of the means over images drawn again (bootstrap).",
    ]
    for metric in document["metrics"]:
        figures = document["rows"][0]["metrics"][metric["name"]]
        if metric["name"] == REALISM:
            said.append(
                "Realism is the kernel distance between all patches of 64x64 pixels of the results "
                f"and of the originals, {figures['patches']} each from "
                f"{counted(figures['images'], 'image')}; 0 can't be told from them. It is one "
                "figure of all images, without an interval."
            )
        elif figures["images"] < document["images"]:
            said.append(
                f"{metric['title']} is over {counted(figures['images'], 'image')}: for others it "
                "has no finite value."
            )
    return said


def write(folder: Path, study: Study, document: dict[str, Any]) -> None:
    """Write what is for people beside the images that the study keeps in the folder.

    Raises:
        OutputError: it can't be written.
    """
    strips = details.strips(study)
    atomic.write(folder / REPORT, json.dumps(document, indent=2).encode("ascii"))
    atomic.write(folder / TABLE, study.table().encode("utf-8", "surrogateescape"))
    with atomic.replacing(folder / SHEET) as temporary:
        details.sheet(strips).save(temporary, "PNG")
    whole = page.page(document, strips, notes(document))
    atomic.write(folder / PAGE, whole.encode("utf-8"))
