"""The identity of a network, by which a run is refused that would go on with another one."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

# The one setting that is measured: a few of the outputs for the test picture.
MEASURED = "outputs_for_noise"
_KEPT = 16
_ROUNDING = 0.05


def weights_sha256(network: nn.Module) -> str:
    """SHA-256, in hexadecimal, of a network's state dict: names, types, shapes and bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        _add(digest, name, value)
    return digest.hexdigest()


def _add(digest: Any, name: str, value: Any) -> None:
    """Add a value of a state dict: a tensor, or the extra state of a module, which is of any type."""
    if isinstance(value, Tensor):
        dense = value.detach().cpu()
        dense = dense.dequantize() if dense.is_quantized else dense
        dense = dense if dense.layout == torch.strided else dense.to_dense()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(dense.contiguous().reshape(-1).view(torch.uint8).numpy())
    elif isinstance(value, Mapping):
        for key in sorted(value, key=str):
            _add(digest, f"{name}.{key}", value[key])
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _add(digest, f"{name}.{index}", item)
    else:  # the text of other objects holds their address
        is_plain = isinstance(value, int | float | str | bytes | None)
        digest.update(f"{name} {value if is_plain else type(value).__qualname__}\n".encode())


def structure_sha256(network: nn.Module) -> str:
    """SHA-256, in hexadecimal, of the names, classes and printed options of all modules, which hold no weights."""
    digest = hashlib.sha256()
    for name, module in network.named_modules(remove_duplicate=False):
        digest.update(f"{name} {type(module).__qualname__} {module.extra_repr()}\n".encode())
    return digest.hexdigest()


def noise() -> Image.Image:
    """The test picture: the same random pixels for every network."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))


def fingerprint(outputs: NDArray[Any]) -> list[float]:
    """A few outputs for the test picture: they tell networks apart that differ in a number which no file holds.

    Args:
        outputs: `(1, classes)`.
    """
    chosen = np.nan_to_num(outputs[0, :: -(-outputs.shape[1] // _KEPT)], posinf=0.0, neginf=0.0)
    return [float(f"{value:.6g}") for value in chosen.tolist()]


def is_rounded(first: Sequence[float] | None, second: Sequence[float] | None) -> bool:
    """Whether two fingerprints are one but for rounding, which another device or number of threads does differently."""
    if first is None or second is None or len(first) != len(second):
        return first == second
    scale = max(map(abs, [*first, *second]), default=0.0)
    return all(abs(one - other) <= _ROUNDING * scale for one, other in zip(first, second, strict=True))
