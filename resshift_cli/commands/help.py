"""How help looks: options under the headings of their groups, plain text that suits any pipe.

Typer has such panels with rich, in boxes that 80 columns are too few for, and that take a tenth of
a second to import.
"""

from __future__ import annotations

from typing import Any

from typer.core import TyperCommand


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
