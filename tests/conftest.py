"""Fixtures that several rooms use."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_model import tiny_networks, tiny_spec

from resshift_cli import checkpoint


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole weight file of `tiny_model`."""
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    spec = tiny_spec()
    denoiser, _ = tiny_networks(spec)
    checkpoint.save_model(path, spec, denoiser.network)
    return path
