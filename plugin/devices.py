"""The device to compute on, the device of given networks and values, and errors of a device without memory."""

import copy
import itertools
import os
from typing import Any

import torch
from torch import Tensor, nn

from .errors import OptionError, OptionTypeError

# Words of PyTorch's errors without a class of their own: on the processor, on Apple's GPUs, and in libraries of CUDA.
_NO_MEMORY = ("out of memory", "can't allocate memory", "ALLOC_FAILED")


def choose_device(device: str | torch.device | None = None) -> torch.device:
    """The requested device, or the best available: CUDA, else Apple's MPS, else the processor.

    Args:
        device: such as "cpu", "cuda:1", or a `torch.device`. None chooses; among several GPUs it takes the one of the
            process (`LOCAL_RANK`, as torchrun sets it), else the first.

    Raises:
        OptionError: there is no such device on this machine or in this build of PyTorch, or it has no values ("meta").
        OptionTypeError: `device` is neither a name nor a device.
    """
    if device is None:
        return _best()
    if not isinstance(device, (str, torch.device)):
        raise OptionTypeError(
            f"the device {device!r} is a {type(device).__name__}: give a name such as 'cpu' or 'cuda'"
        )
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise OptionError(f"there is no device {device!r}: give one of {', '.join(available())}") from error
    if not _is_there(found):
        raise OptionError(
            f"device {str(found)!r} is not there: this PyTorch sees {', '.join(available())}, give one of these"
        )
    return found


def available() -> tuple[str, ...]:
    """The devices of this machine by name, the best first."""
    cuda = [f"cuda:{index}" for index in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    return (*cuda, *(["mps"] if torch.backends.mps.is_available() else []), "cpu")


def on_device(network: nn.Module, device: torch.device) -> nn.Module:
    """The network itself if all of it is on the device, else a copy there; the given network is not moved."""
    tensors = itertools.chain(network.parameters(), network.buffers())
    if all(_same(tensor.device, device) for tensor in tensors):
        return network
    return copy.deepcopy(network).to(device)


def as_tensor(values: Any) -> Tensor:
    """A tensor as it is; an array or a sequence on the processor, whatever PyTorch's default device is."""
    return values if isinstance(values, Tensor) else torch.as_tensor(values, device="cpu")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device, or this machine, has too little memory left."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(words in str(error) for words in _NO_MEMORY)


def _best() -> torch.device:
    if torch.cuda.is_available():
        # A launcher may show each process only its own GPU (`srun --gpus-per-task=1`), which then has the number 0.
        return torch.device("cuda", _local_rank() % torch.cuda.device_count())
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _local_rank() -> int:
    text = os.environ.get("LOCAL_RANK", "0")
    if not text.isdecimal():
        raise OptionError(f"LOCAL_RANK={text}: set it to the number of the process on its machine, from 0, or unset it")
    return int(text)


def _is_there(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count()
    if device.type == "mps":
        return torch.backends.mps.is_available()
    return device.type == "cpu" or _computes(device)


def _computes(device: torch.device) -> bool:
    """Whether a device of another kind (xpu, hpu ...) computes values: PyTorch tells only when it is used."""
    try:
        return torch.ones(1, device=device).add(1).item() == 2
    except Exception:  # whatever a part of PyTorch raises that was not built, or has no values
        return False


def _same(first: torch.device, second: torch.device) -> bool:
    return first.type == second.type and (first.index or 0) == (second.index or 0)
