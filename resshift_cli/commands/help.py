"""How help looks: options under the headings of their groups, examples, plain text for any pipe.

Typer has such panels with rich, in boxes that 80 columns are too few for, and that take a tenth of
a second to import.
"""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand

EXAMPLES = {
    "upscale": (
        "resshift upscale photo.jpg",
        "resshift upscale photo.jpg --scale 2 -o large.png",
        "resshift upscale *.jpg -o enlarged/ --long-side 3840 --skip-existing",
        "resshift upscale - --steps 1 < photo.jpg > large.jpg",
    ),
    "batch": (
        "resshift batch photos/",
        "resshift batch photos/ --dry-run",
        "resshift batch photos/ -o big/ --include '*.jpg' --exclude 'drafts/*'",
        "resshift batch photos/ --shard 3/8",
        "resshift batch s3://bucket/photos -o s3://bucket/large",
        "resshift batch photos/ --task inpaint --masks holes/ --grow 2",
    ),
    "inpaint": (
        "resshift inpaint photo.jpg --mask holes.png",
        "resshift inpaint photo.jpg --box 120,80,300,40 --grow 4 --feather 4 --seeds 4",
        "resshift inpaint cut.png --mask alpha -o whole.png",
    ),
    "restore": (
        "resshift restore noisy.jpg",
        "resshift restore *.jpg -o clean/ --strength 0.7 --skip-existing",
        "resshift restore shaken.jpg --model deblur",
    ),
    "face": (
        "resshift face group.jpg",
        "resshift face group.jpg --scale 2 --blend 0.8 -o large.jpg",
        "resshift face cutout.png --aligned",
    ),
    "preview": (
        "resshift preview photo.jpg --model tiny-x4 --detail 0 --detail 1 --open",
        "resshift preview photo.jpg --at 400,250 --detail 0 --detail 1 -o choice.html",
    ),
    "compare": (
        "resshift compare photo.jpg photo_x4.jpg --open",
        "resshift compare small.png one.png other.png --reference original.png -o page.html",
    ),
    "serve": (
        "resshift serve --open",
        "resshift serve --model tiny-x4 --root photos/ --port 9000",
        "resshift serve --host 0.0.0.0 --token some-long-secret",
        "resshift serve --stdio",
    ),
    "eval": (
        "resshift eval --hq originals/ --model tiny-x4 --detail 0 --detail 1 -o report/",
        "resshift eval --hq originals/ --lq small/ --metric psnr-y --json",
    ),
    "bench": (
        "resshift bench --model tiny-x4",
        "resshift bench --model nacre-x4 --random --precision bf16 --plain",
    ),
    "train": (
        "resshift train training/tiny-x4-mean.toml --photos photos/ --out runs/mine",
        "resshift train training/tiny-x4-mean.toml --photos photos/ --preview crops.png",
    ),
    "doctor": ("resshift doctor", "resshift doctor --offline --json"),
    "models list": ("resshift models list", "resshift models list --task face --json"),
    "models info": ("resshift models info nacre-x4",),
    "models pull": ("resshift models pull nacre-x4", "resshift models pull --all"),
    "models verify": ("resshift models verify", "resshift models verify nacre-x4"),
    "models rm": ("resshift models rm nacre-x4",),
    "models path": ("resshift models path tiny-x4",),
    "models convert": ("resshift models convert mine.pth mine.safetensors --like realsr-x4-v3",),
    "models add": (
        "resshift models add mine --file runs/mine/model.safetensors",
        "resshift models add hers --hub her/repo/model.safetensors --like realsr-x4-v3",
    ),
    "models publish": ("resshift models publish runs/mine --repo you/name",),
}
"""What the help of every command ends with."""


class Command(TyperCommand):
    """A command whose help has a section for every panel (`rich_help_panel`) of its options."""

    # Typer brings a copy of click of its own, whose types have no public name.
    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments first, then options of no group, then the groups as they are declared."""
        sections: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is None:
                continue
            kind = "Arguments" if parameter.param_type_name == "argument" else "Options"
            if kind == "Arguments" and parameter.metavar:
                record = (parameter.metavar, record[1])  # without the Python type
            panel = getattr(parameter, "rich_help_panel", None) or kind
            sections.setdefault(panel, []).append(record)
        for title, records in sections.items():
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Name arguments as the sections do: INPUT..., not {INPUT}..."""
        pieces: list[str] = super().collect_usage_pieces(ctx)
        return [piece.replace("{", "").replace("}", "") for piece in pieces]

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write examples."""
        formatter.write_paragraph()
        formatter.write_text("Examples:")
        with formatter.indentation():
            for example in EXAMPLES.get(ctx.command_path.removeprefix("resshift "), ()):
                formatter.write(f"{' ' * formatter.current_indent}{example}\n")
