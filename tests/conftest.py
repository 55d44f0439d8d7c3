"""Fixtures of all tests: where real data lies, and two small images."""

import os
from pathlib import Path

import pytest
import torch
from torch import Tensor

torch.set_num_threads(2)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with real data sets and weights; skips where there is none."""
    folder = Path(os.environ.get("REAL_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data in {folder}: set REAL_DATA")
    return folder


@pytest.fixture
def images() -> Tensor:
    """Two images (2, 3, 9, 9), signed."""
    return torch.randn(2, 3, 9, 9, generator=torch.Generator().manual_seed(1))
