"""The least versions that pyproject.toml allows."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

PROJECT = tomllib.loads(Path(__file__).parents[1].joinpath("pyproject.toml").read_text())["project"]
SAFE = {  # the first versions without the holes that pyproject.toml names
    "filelock": "3.20.3",
    "h11": "0.16",
    "pillow": "12.2",
    "pyvips-binary": "8.18.1",
    "torch": "2.10",
    "tqdm": "4.66.3",
    "pillow-heif": "1.3",
    "python-multipart": "0.0.22",
    "setuptools": "78.1.1",
    "starlette": "0.49.1",
}


def least(text: str) -> Version:
    floors = [s.version for s in Requirement(text).specifier if s.operator == ">="]
    return Version(floors[0])


@pytest.mark.parametrize("name", SAFE)
def test_no_version_with_a_known_hole_is_allowed(name: str) -> None:
    extras = PROJECT["optional-dependencies"]
    wanted = [*PROJECT["dependencies"], *extras["heic"], *extras["metrics"], *extras["serve"]]
    (text,) = [text for text in wanted if Requirement(text).name == name]
    assert least(text) >= Version(SAFE[name])


def test_what_downloads_is_what_the_hub_s_client_brings() -> None:
    names = {Requirement(text).name for text in PROJECT["dependencies"]}
    assert "httpx2" in names and not names & {"requests", "urllib3", "httpx"}
