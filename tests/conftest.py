"""Fixtures of all tests: where real data lies, two small images, and the explorer being served.

The process that hands out the tests to others reads this file too, and they wait for it: only fixtures import PyTorch.
"""

import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.browser import served

if TYPE_CHECKING:
    from torch import Tensor

_MAIN = sys.modules["__main__"]
# Of several test processes at once each keeps to its own core, with the processes it starts: two threads each would
# wait for one another, and take ten times as long. PyTorch reads this when it is imported.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
gc.disable()


def pytest_collection_finish() -> None:
    """Imported modules stay, and the garbage collector need not look through them each time that it comes."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with real data sets and weights; skips where there is none."""
    folder = Path(os.environ.get("REAL_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data in {folder}: set REAL_DATA")
    return folder


@pytest.fixture(autouse=True)
def main_module() -> Iterator[None]:
    """Streamlit's simulator takes the place of `__main__`, which other processes would run when they start.

    It does so in fixtures of modules, too, which come before this one.
    """
    sys.modules["__main__"] = _MAIN
    yield
    sys.modules["__main__"] = _MAIN


@pytest.fixture
def images() -> "Tensor":
    """Two images (2, 3, 9, 9), signed."""
    import torch

    return torch.randn(2, 3, 9, 9, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """For tiny networks: threads would wait for one another longer than they work."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The explorer, served on a free port; all files share it, since each start takes as long as several pages."""
    with served(tmp_path_factory.mktemp("server") / "log.txt") as address:
        yield address
