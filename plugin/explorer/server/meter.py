"""How long a call took and how much memory it needed, as numbers and in words."""

import ctypes
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Protocol

import torch

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_MACHINE = Path("/proc/meminfo")
# What `cost` says, in a sentence.
COST = (
    "Wall-clock time, and by how much the memory of the server grew at most while this was computed. Memory is left "
    "out where other work was measured at the same time."
)


class Measured(Protocol):
    """What was computed, with the seconds and bytes (None if unknown) it took."""

    @property
    def seconds(self) -> float: ...

    @property
    def peak_bytes(self) -> int | None: ...


def cost(result: Measured) -> str:
    """Time and peak memory for people, such as "28 ms, 3.5 MB"."""
    seconds = f"{result.seconds * 1000:.0f} ms" if result.seconds < 1 else f"{result.seconds:.1f} s"
    return seconds if result.peak_bytes is None else f"{seconds}, {result.peak_bytes / 2**20:.1f} MB"


class Meter:
    """A context that measures what happens inside it.

    Args:
        device: where the work is done.

    Attributes:
        seconds: wall-clock time; on a GPU, until it has finished.
        peak_bytes: on a GPU, by how much what PyTorch had allocated grew at most; on the CPU, by how much the resident
            memory of the process did. None where the system does not say it, and where a meter of another thread was
            open at the same time: no one can tell then whose memory it was.
    """

    # Whoever asks for the peak makes the system forget the one before, for the whole process.
    _open: ClassVar[list["Meter"]] = []
    _lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, device: torch.device) -> None:
        self._cuda = device.type == "cuda"
        self._alone, self._thread = True, 0
        self._before: int | None = None
        # The peak so far, and one from before that the system would not forget.
        self._highest = self._unforgotten = 0
        self.seconds = 0.0
        self.peak_bytes: int | None = None

    def __enter__(self) -> "Meter":
        self._thread = threading.get_ident()
        with Meter._lock:
            for other in Meter._open:
                other._note_peak()
                if other._thread != self._thread:
                    other._alone = self._alone = False
            Meter._open.append(self)
            self._start_peak()
        self._start = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._cuda:
            torch.cuda.synchronize()
        self.read()
        with Meter._lock:
            Meter._open.remove(self)

    def read(self) -> None:
        """Bring `seconds` and `peak_bytes` up to now, while the work goes on."""
        self.seconds = time.perf_counter() - self._start
        with Meter._lock:
            self._note_peak()
        known = self._alone and self._before is not None and self._highest
        self.peak_bytes = max(0, self._highest - (self._before or 0)) if known else None

    def _start_peak(self) -> None:
        if self._cuda:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            self._before = torch.cuda.memory_allocated()
            return
        self._unforgotten = 0 if _forget_peak() else _resident("VmHWM") or 0
        self._before = _resident("VmRSS")

    def _note_peak(self) -> None:
        now = torch.cuda.max_memory_allocated() if self._cuda else _resident("VmHWM") or 0
        if now > self._unforgotten:
            self._highest = max(self._highest, now)


def _forget_peak() -> bool:
    """Make Linux forget the highest resident memory so far; False elsewhere, and where this is not allowed."""
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
    """The bytes in a line of Linux's tables."""
    try:
        lines = source.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(key)), None)
