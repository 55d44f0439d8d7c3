"""A job's task for work that is called without a job."""

from typing import Any

from plugin.explorer.server.jobs import Stopped


class Told:
    """A task that is stopped at its report of this number; 0 never stops it.

    Attributes:
        reports: progress and message of each.
        partials: the partial results of each.
    """

    def __init__(self, stop_at: int = 0) -> None:
        self.stop_at = stop_at
        self.reports: list[tuple[float, str]] = []
        self.partials: list[Any] = []

    def report(self, progress: float, message: str = "", partial: Any = None) -> None:
        self.reports.append((progress, message))
        self.partials.append(partial)
        if len(self.reports) == self.stop_at:
            raise Stopped
