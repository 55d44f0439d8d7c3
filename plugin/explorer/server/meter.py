"""How long a call took and how much memory it needed, as numbers and in words."""

import ctypes
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Protocol

import torch

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_MACHINE = Path("/proc/meminfo")
# An explanation of the text of `cost`.
COST = (
    "Wall-clock time, and by how much the memory of the server, or that of its GPU, grew at most while this was "
    "computed; and where. Memory is left out where other work was measured at the same time."
)


class Measured(Protocol):
    """A result with the seconds and bytes (None if unknown) that it took, and the name of the device."""

    @property
    def seconds(self) -> float: ...

    @property
    def peak_bytes(self) -> int | None: ...

    @property
    def device(self) -> str: ...


def cost(result: Measured) -> str:
    """Time, peak memory and device for people, such as "28 ms, 3.5 MB on cpu"."""
    seconds = f"{result.seconds * 1000:.0f} ms" if result.seconds < 1 else f"{result.seconds:.1f} s"
    memory = "" if result.peak_bytes is None else f", {result.peak_bytes / 2**20:.1f} MB"
    return f"{seconds}{memory} on {result.device}"


class _Memory:
    """The counter for a device whose peak memory is unknown, and the base of the others.

    Args:
        device: the device whose memory is counted.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def wait(self) -> None:
        """Return when the device has finished its work, which runs beside the program."""
        if self.device.type != "cpu":
            torch.get_device_module(self.device).synchronize()

    def start(self) -> int | None:
        """Begin to count. Returns the bytes in use now; None if they are not known."""
        return None

    def peak(self) -> int:
        """The most bytes since `start`; 0 if they are not known."""
        return 0


class _OfAllocator(_Memory):
    """The counter for CUDA, and for other devices whose allocator has the same functions in PyTorch."""

    def wait(self) -> None:
        self._module.synchronize(self.device)

    def start(self) -> int | None:
        self._module.reset_peak_memory_stats(self.device)
        return int(self._module.memory_allocated(self.device))

    def peak(self) -> int:
        return int(self._module.max_memory_allocated(self.device))

    @property
    def _module(self) -> Any:
        return torch.get_device_module(self.device)


class _OfMetal(_Memory):
    """The counter for Apple's GPUs: the driver's memory that the allocator keeps, which grows until it is released."""

    def start(self) -> int | None:
        torch.mps.empty_cache()
        return torch.mps.driver_allocated_memory()

    def peak(self) -> int:
        return torch.mps.driver_allocated_memory()


class _OfProcess(_Memory):
    """The counter for the processor: the resident memory of this process, as Linux reports it."""

    # An earlier peak that the system could not reset.
    _unforgotten = 0

    def start(self) -> int | None:
        self._unforgotten = 0 if _forget_peak() else _resident("VmHWM") or 0
        return _resident("VmRSS")

    def peak(self) -> int:
        now = _resident("VmHWM") or 0
        return now if now > self._unforgotten else 0


def _memory_of(device: torch.device) -> _Memory:
    kinds = {"cpu": _OfProcess, "cuda": _OfAllocator, "xpu": _OfAllocator, "mps": _OfMetal}
    return kinds.get(device.type, _Memory)(device)


class Meter:
    """A context that measures the work inside it.

    Args:
        device: where the work is done.

    Attributes:
        seconds: wall-clock time; on a GPU, until it has finished.
        peak_bytes: on a GPU, by how much the memory that PyTorch has there grew at most; on the processor, by how much
            the resident memory of the process did. None where the system does not say it, and where a meter of another
            thread was open at the same time, on the same device or, for the processor, on any: no one can tell then
            whose memory it was.
    """

    # The start of a meter resets the peak for the whole process: the meters that are open read it before.
    _open: ClassVar[list["Meter"]] = []
    _lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, device: torch.device) -> None:
        self._memory = _memory_of(device)
        self._alone, self._thread = True, 0
        self._before: int | None = None
        self._highest = 0
        self.seconds = 0.0
        self.peak_bytes: int | None = None

    def __enter__(self) -> "Meter":
        self._thread = threading.get_ident()
        self._memory.wait()
        with Meter._lock:
            for other in Meter._open:
                if other._memory.device == self._memory.device:
                    other._note_peak()
                if other._thread != self._thread:
                    other._alone &= not other._shares_with(self)
                    self._alone &= not self._shares_with(other)
            Meter._open.append(self)
            self._before = self._memory.start()
        self._start = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self.read()
        finally:
            with Meter._lock:
                Meter._open.remove(self)

    def read(self) -> None:
        """Bring `seconds` and `peak_bytes` up to now, while the work goes on."""
        self._memory.wait()
        self.seconds = time.perf_counter() - self._start
        with Meter._lock:
            self._note_peak()
        known = self._alone and self._before is not None and self._highest
        self.peak_bytes = max(0, self._highest - (self._before or 0)) if known else None

    def _shares_with(self, other: "Meter") -> bool:
        """Whether this memory may hold work that the other measures: work on a GPU needs the processor's, too."""
        return self._memory.device in (other._memory.device, torch.device("cpu"))

    def _note_peak(self) -> None:
        self._highest = max(self._highest, self._memory.peak())


def _forget_peak() -> bool:
    """Reset Linux's peak of the resident memory; False on other systems, and where this is not allowed."""
    try:
        # Memory that the C library keeps for reuse counts as resident: without handing it back, a second call would
        # seem to need nothing.
        ctypes.CDLL(None).malloc_trim(0)
        _RESET.write_text("5")
    except (AttributeError, OSError, TypeError):
        return False
    return True


def available_memory() -> int | None:
    """How many bytes of memory this machine has left; None where the system does not say it."""
    return _kilobytes(_MACHINE, "MemAvailable")


def _resident(key: str) -> int | None:
    return _kilobytes(_STATUS, key)


def _kilobytes(source: Path, key: str) -> int | None:
    """The bytes that a line of a Linux table states."""
    try:
        lines = source.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(key)), None)
