"""Checkpoints as safetensors: float16 weights, and what made them as JSON in the header."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from ..files import write_bytes


def save_checkpoint(path: str | Path, network: nn.Module, metadata: Mapping[str, Any]) -> None:
    """Write the weights of `network` as float16, atomically: an interrupted call leaves the old file.

    The same weights and metadata give the same bytes.

    Args:
        path: the `.safetensors` file.
        network: its state dict is stored; integer buffers keep their type.
        metadata: JSON values (architecture, seed, data, epochs, accuracy ...), read back by `read_metadata`.

    Raises:
        OSError: the file cannot be written, as on a full disk.
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
        path: a `.safetensors` file, or a file of `torch.save` that holds tensors only; either a state dict or a
            dictionary with one under `state_dict` or `model`.

    Raises:
        ValueError: the file is neither, or holds anything but tensors. Nothing in the file is ever executed.
    """
    source = Path(path)
    try:
        # A damaged file raises whatever its parser met: every such error becomes one sentence for the user.
        content = load_file(source) if source.suffix == ".safetensors" else torch.load(source, "cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:
        raise ValueError(
            f"{source.name} is not a checkpoint that can be read safely ({type(error).__name__}): "
            "give a .safetensors file, or a file of torch.save(model.state_dict(), ...)"
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ValueError(f"{source.name} holds no state dict: save it with torch.save(model.state_dict(), path)")
    return {name: value.float() if value.is_floating_point() else value for name, value in content.items()}


def read_metadata(path: str | Path) -> dict[str, Any]:
    """What `save_checkpoint` was told; the weights are not read."""
    with safe_open(path, framework="pt") as file:
        return {key: json.loads(value) for key, value in (file.metadata() or {}).items()}
