"""A device called "simulated", which takes the place of a GPU where there is none.

It computes on the processor (`simulated_device.cpp`), but its tensors and the processor's cannot meet in an operation,
and NumPy cannot read them: whatever fails on a GPU for such a reason fails here. As a plugin of pytest (`-p`) it makes
this device the one that is chosen by default. PyTorch has one such device per process, and keeps it.
"""

import shutil
import subprocess
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType

import pytest
import torch

from plugin import devices

NAME = "simulated"
SOURCE = Path(__file__).with_suffix(".cpp")
COMPILER = shutil.which("c++")


def compiled(folder: Path) -> Path:
    """The library, which takes a compiler some seconds."""
    library = folder / "simulated_device.so"
    torch_folder = Path(torch.__file__).parent
    paths = [f"-I{torch_folder / 'include' / path}" for path in (".", "torch/csrc/api/include")]
    links = [f"-L{torch_folder / 'lib'}", "-lc10", "-ltorch_cpu"]
    options = ["-std=c++20", "-O0", "-w", "-fPIC", "-shared", *paths, *links]
    subprocess.run([str(COMPILER), str(SOURCE), "-o", str(library), *options], check=True)
    return library


def install(library: Path) -> None:
    """Make the device known to this process."""
    torch.utils.rename_privateuse1_backend(NAME)
    module = ModuleType(NAME)
    functions = {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "device": nullcontext,
        "synchronize": lambda device=None: None,
        "manual_seed_all": lambda seed: None,
        "get_amp_supported_dtype": lambda: [torch.bfloat16],
        "_is_in_bad_fork": lambda: False,
    }
    vars(module).update(functions)
    torch._register_device_module(NAME, module)
    torch.ops.load_library(library)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--simulated-device", type=Path, help="the compiled library")


def pytest_configure(config: pytest.Config) -> None:
    install(config.getoption("--simulated-device"))
    devices._best = lambda: torch.device(NAME)
    devices.available = lambda: (NAME, "cpu")
