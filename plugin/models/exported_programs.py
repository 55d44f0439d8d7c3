"""Programs of `torch.export` (`.pt2`): their weights from any file, the program itself from a file that is trusted.

`torch.export.load` evaluates expressions that stand in the file, and so runs any code in it. `weights_in`
does not call it: it reads the raw values and the table of their names and shapes.
"""

import json
import math
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

ENDING = ".pt2"
_REMEDY = (
    "give one of torch.export.save(torch.export.export(model, (images,)), path), or the network's name and the file of "
    "its weights as checkpoint="
)
_TABLE = "_weights_config.json"
# Before 2.9, PyTorch put the weights into a program as a file of `torch.save`: the first in 2.8, the second before it.
_FILES_OF_WEIGHTS = ("/data/weights/model.pt", "serialized_state_dict.pt")
_LARGEST_TABLE = 64 * 2**20
# `torch._export.serde.schema.ScalarType`
_TYPES = {
    1: torch.uint8, 2: torch.int8, 3: torch.int16, 4: torch.int32, 5: torch.int64, 6: torch.float16, 7: torch.float32,
    8: torch.float64, 12: torch.bool, 13: torch.bfloat16,
}  # fmt: skip
# Operations that differ while training, with the place of the argument that says so.
_OF_TRAINING = {"aten.dropout.default": 2, "aten.feature_dropout.default": 2, "aten.batch_norm.default": 5}


def is_program(archive: zipfile.ZipFile) -> bool:
    """Whether an archive is a program whose weights `weights_in` can read."""
    return any(name.endswith(_TABLE) for name in archive.namelist())


def file_of_weights(archive: zipfile.ZipFile) -> bytes | None:
    """The weights in a program of PyTorch before 2.9, as a file of `torch.save`; None for other archives.

    Args:
        archive: one that unpacks to about its size, which the caller has checked.
    """
    names = [name for name in archive.namelist() if name.endswith(_FILES_OF_WEIGHTS)]
    return archive.read(names[0]) if names else None


def weights_in(archive: zipfile.ZipFile) -> dict[str, Tensor]:
    """The state dict of a program. Nothing in the archive is run.

    Args:
        archive: one that unpacks to about its size, which the caller has checked.

    Raises:
        ValueError: the table of weights is too large, or does not describe them.
        Exception: of any other type for a damaged archive.
    """
    table = next(entry for entry in archive.infolist() if entry.filename.endswith(_TABLE))
    if table.file_size > _LARGEST_TABLE:
        raise ValueError("its table of weights is too large")
    folder = table.filename.rpartition("/")[0]
    payloads: dict[str, bytearray] = {}  # weights that are views of one tensor have one payload
    found = {}
    for name, described in json.loads(archive.read(table))["config"].items():
        if described["use_pickle"]:
            continue
        place = f"{folder}/{described['path_name']}"
        if place not in payloads:
            payloads[place] = bytearray(archive.read(place))
        found[name] = _tensor(payloads[place], described["tensor_meta"])
    return found


def _tensor(payload: bytearray, described: dict[str, Any]) -> Tensor:
    shape, strides = ([size["as_int"] for size in described[key]] for key in ("sizes", "strides"))
    kind = _TYPES[described["dtype"]]
    if math.prod(shape) == 0:
        return torch.empty(shape, dtype=kind)
    # PyTorch checks that the view lies inside of the payload.
    return torch.frombuffer(payload, dtype=kind).as_strided(shape, strides, described["storage_offset"]["as_int"])


def open_program(path: Path) -> nn.Module:
    """The module of a program. The file can run code: it must be trusted.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no program, or one that was exported while training.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}: {_REMEDY}")
    try:
        program = torch.export.load(path)
    except Exception as error:  # a damaged file raises errors of any type
        raise ValueError(
            f"{path.name} is not a program that torch.export.load reads ({type(error).__name__}): {_REMEDY}"
        ) from error
    for node in program.graph.nodes:
        place = _OF_TRAINING.get(str(node.target))
        if place is not None and len(node.args) > place and node.args[place] is True:
            raise ValueError(
                f"{path.name} was exported while training ({node.target} in it): call model.eval() before "
                "torch.export.export"
            )
    # With the modules of the network that was exported, so that its layers can be named.
    module: nn.Module = torch.export.unflatten(program)
    return module.requires_grad_(False)
