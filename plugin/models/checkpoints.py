"""Checkpoints as safetensors: float16 weights, and their origin as JSON in the header."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from ..files import write_bytes
from .state_dicts import NO_STATE_DICT, state_dicts
from .tensor_files import read_tensors


def save_checkpoint(path: str | Path, network: nn.Module, metadata: Mapping[str, Any]) -> None:
    """Write the weights of `network` as float16, atomically: an interrupted call leaves the old file.

    The same weights and metadata give the same bytes.

    Args:
        path: the `.safetensors` file.
        network: its state dict is stored; integer buffers keep their type.
        metadata: JSON values (architecture, seed, data, epochs, accuracy ...), read back by `read_metadata`.

    Raises:
        OSError: the file cannot be written, for example on a full disk.
    """
    state = {
        name: (value.half() if value.is_floating_point() else value).detach().cpu().contiguous()
        for name, value in network.state_dict().items()
    }
    content = save(state, metadata={key: json.dumps(value) for key, value in metadata.items()})
    write_bytes(path, _with_ordered_header(content))


def _with_ordered_header(content: bytes) -> bytes:
    """A safetensors file with its header in alphabetical order, which the library writes in any order."""
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8:start]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + content[start:]


def load_weights(path: str | Path) -> dict[str, Tensor]:
    """The state dict in a checkpoint file, floating point values as float32.

    Args:
        path: a `.safetensors` file, or a file of `torch.save`: a state dict, or a checkpoint with one in it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: see `read_tensors`; or the file holds no state dict. Nothing in the file is ever executed.
    """
    found = state_dicts(read_tensors(path))
    if not found:
        raise ValueError(f"the checkpoint {Path(path).name} {NO_STATE_DICT}")
    return {name: value.float() if value.is_floating_point() else value for name, value in found[0].items()}


def read_metadata(path: str | Path) -> dict[str, Any]:
    """The metadata that `save_checkpoint` stored; the weights are not read."""
    with safe_open(path, framework="pt") as file:
        return {key: json.loads(value) for key, value in (file.metadata() or {}).items()}
