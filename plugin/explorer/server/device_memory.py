"""Errors of a device without memory become one sentence with the remedy, and the device can be used again.

>>> with guarded("cuda:0"):
...     pass  # work that needs memory
"""

import gc
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from plugin import devices


class OutOfDeviceMemory(ValueError):
    """The device has too little memory left. The message is one sentence."""


@contextmanager
def guarded(device: str) -> Iterator[None]:
    """A context in which the error of a device without memory becomes `OutOfDeviceMemory`, and its memory is freed.

    Args:
        device: the name of the device that is used.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not devices.is_out_of_memory(error):
            raise
        _free(error)
        raise OutOfDeviceMemory(_sentence(device)) from None


def _free(error: BaseException | None) -> None:
    """Release the tensors of the failed calls, which the error would keep, and then the allocator's unused blocks."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__context__
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()


def _sentence(device: str) -> str:
    other = ", or choose another device" if len(devices.available()) > 1 else ""
    return f"There is too little memory left on {device}: take a smaller picture or fewer runs{other}."
