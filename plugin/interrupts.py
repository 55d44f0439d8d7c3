"""Ctrl-C that waits for a good moment."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class InterruptLater:
    """While it is open, the first Ctrl-C is noted; a second one stops the work where it is.

    Outside the main thread, which alone receives Ctrl-C, it does nothing.

    Attributes:
        asked: whether Ctrl-C was pressed.
    """

    def __init__(self) -> None:
        self.asked = False
        self._before: Any = None

    def __enter__(self) -> "InterruptLater":
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def raise_if_asked(self) -> None:
        """Stop here, if Ctrl-C was pressed.

        Raises:
            KeyboardInterrupt: it was.
        """
        if self.asked:
            raise KeyboardInterrupt

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
