"""Long work beside the pages: a thread that fills a job, which pages look at and can stop.

The worker knows nothing of Streamlit. It reports its progress to its `Task`, and learns there that it should end:

>>> job = Job(lambda task: [task.report(step / 10) for step in range(10)])
>>> job.look().progress                                    # between 0 and 1

`widgets.background_work` draws a job and asks for it again and again. A job whose page was closed, or that nobody looks
at any more, is told to end.
"""

import atexit
import hashlib
import json
import logging
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Any, Generic, TypeVar

from .device_memory import guarded
from .turns import PROCESSOR, Turns, ahead_of_this

logger = logging.getLogger(__name__)

T = TypeVar("T")

_jobs: weakref.WeakSet[Any] = weakref.WeakSet()
# For how long a connection may be lost before the page counts as closed: browsers come back from a short break.
_ABSENCE_SECONDS = 10.0
# How long the end of the process waits for one job.
_END_SECONDS = 10.0
# For how long work goes on while nobody looks. Browsers let hidden pages ask once a minute.
PATIENCE_SECONDS = 150.0


def name_of(asked: Any) -> str:
    """A short name for the parameters of some work, a dataclass of plain values: other values have another name."""
    return hashlib.sha256(json.dumps(asdict(asked)).encode()).hexdigest()[:12]


class Stopped(BaseException):
    """The work was told to end. No `Exception`: nothing that the work handles should swallow it."""


@dataclass(frozen=True)
class JobView(Generic[T]):
    """A job at one moment.

    Attributes:
        progress: 0 to 1.
        message: the step that is done now.
        partial: the last intermediate result, such as the pictures so far; None if there was none.
        running: whether the thread still works.
        completed: whether it ended by itself, with a result.
        result: the value that the work returned; None if it has not completed.
        error: the sentence with which it failed; empty if it did not.
    """

    progress: float
    message: str
    partial: Any
    running: bool
    completed: bool
    result: T | None
    error: str

    @property
    def latest(self) -> Any:
        """The result, or else the last intermediate result."""
        return self.result or self.partial


class Task:
    """The worker's side of a job."""

    def __init__(self, patience_seconds: float, present: Callable[[], bool]) -> None:
        self._patience, self._present = patience_seconds, present
        self._lock = threading.Lock()
        self._stop, self._looked = False, time.monotonic()
        self._left: float | None = None
        self._state: dict[str, Any] = {"progress": 0.0, "message": "", "partial": None}

    def report(self, progress: float, message: str = "", partial: Any = None) -> None:
        """Report the progress from 0 to 1, the step, and an intermediate result; None keeps the one before.

        Raises:
            Stopped: the work should end now. Clean up in `finally`.
        """
        now, present = time.monotonic(), self._present()
        with self._lock:
            self._state["progress"], self._state["message"] = min(1.0, max(0.0, progress)), message
            if partial is not None:
                self._state["partial"] = partial
            self._left = None if present else now if self._left is None else self._left
            closed = self._left is not None and now - self._left > _ABSENCE_SECONDS
            if self._stop or closed or now - self._looked > self._patience:
                raise Stopped


class Job(Generic[T]):
    """The pages' side: starts the work in a thread of its own.

    Args:
        work: called with its `Task`. It ends soon after a `Task.report` that raises.
        present: whether the browser of the page is connected; asked by the worker. Work for a page that was closed ends
            within seconds.
        patience_seconds: how long the work goes on while nobody looks.
        turns: the queue in which the work waits before it begins; None begins at once.
        device: where it is done.
    """

    def __init__(
        self,
        work: Callable[[Task], T],
        present: Callable[[], bool] = lambda: True,
        patience_seconds: float = PATIENCE_SECONDS,
        turns: Turns | None = None,
        device: str = PROCESSOR,
    ) -> None:
        self._turns, self._device = turns, device
        self._task, self._error, self._completed = Task(patience_seconds, present), "", False
        self._result: T | None = None
        self._thread = threading.Thread(target=self._run, args=(work,), daemon=True)
        _jobs.add(self)
        self._thread.start()

    def look(self) -> JobView[T]:
        """The job now."""
        running = self._thread.is_alive()
        with self._task._lock:
            self._task._looked = time.monotonic()
            return JobView(**self._task._state, running=running, completed=self._completed,
                        result=self._result, error=self._error)  # fmt: skip

    def stop(self) -> None:
        """Ask the work to end. Its last intermediate result stays."""
        with self._task._lock:
            self._task._stop = True

    def wait(self, timeout: float | None = None) -> JobView[T]:
        """The job when it has ended, or after so many seconds."""
        self._thread.join(timeout)
        return self.look()

    def _tell(self, ahead: int) -> None:
        """Say on the page that the work waits; ends the waiting as `Task.report` ends the work."""
        self._task.report(0.0, ahead_of_this(ahead))

    def _run(self, work: Callable[[Task], T]) -> None:
        try:
            with self._turns.turn(self._tell) if self._turns else nullcontext(), guarded(self._device):
                self._result = work(self._task)
            self._completed = True
        except Stopped:
            pass
        except Exception as error:  # any error becomes a sentence on the page
            logger.info("a job failed", exc_info=True)
            self._error = str(error) or type(error).__name__


@atexit.register
def _end_all() -> None:
    """Let no job run on into the end of the process: PyTorch would abort it."""
    running = [job for job in _jobs if job.look().running]
    for job in running:
        job.stop()
    for job in running:
        job.wait(_END_SECONDS)
