"""A mapping that lies in a file where memory would not do."""

from __future__ import annotations

import pytest

from resshift_cli.system import index
from resshift_cli.system.index import Index

NAMES = ["", "a", "b/\udce9", "new\nline", "z" * 300, "\U0001f408", "\ud800"]


def test_it_is_a_mapping_for_any_name() -> None:
    found = Index()
    for name in reversed(NAMES):
        found[name] = name[:1] and "text"
    assert list(found) == sorted(NAMES) and len(found) == len(NAMES)
    assert found["new\nline"] == "text" and found.get("none") is None
    found["a"] = "other"
    del found["b/\udce9"]
    assert (found["a"], "b/\udce9" in found) == ("other", False)
    with pytest.raises(KeyError):
        del found["b/\udce9"]


def test_it_can_be_gone_through_while_it_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "_BLOCK", 2)
    found = Index()
    found.update({f"{number}": "" for number in range(5)})
    seen = []
    for name in found:
        seen.append(name)
        found[f"+{name}"] = ""
        found.pop("3", None)
    assert seen == ["0", "1", "2", "4"]
