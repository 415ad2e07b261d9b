"""Texts from outside in CSV files, which spreadsheets take for formulas if they look like some."""

from __future__ import annotations

_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")


def cell(text: str) -> str:
    """A text that no spreadsheet computes: with an apostrophe before what would be a formula."""
    return f"'{text}" if text.startswith(_STARTS) else text
