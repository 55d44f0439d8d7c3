"""Seconds, in turns with the floor, and their quotients."""

import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

from torch.utils.benchmark.utils.timer import timer

T = TypeVar("T")

# Waits until a GPU has finished, if there is one.
clock: Callable[[], float] = timer

LEAST_ROUNDS, MOST_ROUNDS = 3, 15


class Spread(NamedTuple):
    """Lower quartile, median and upper quartile."""

    low: float
    median: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.3f} [{self.low:.3f}, {self.high:.3f}]"


def spread(values: Sequence[float]) -> Spread:
    """Median and quartiles; for a single value, that value three times."""
    if len(values) == 1:
        return Spread(values[0], values[0], values[0])
    return Spread(*statistics.quantiles(values, n=4, method="inclusive"))


def quotients(first: Sequence[float], second: Sequence[float]) -> list[float]:
    """Each value of the first over each of the second: for two calls that did not take turns with each other."""
    return [one / other for one in first for other in second]


def seconds(call: Callable[[], Any]) -> float:
    """Wall-clock time of one call, on a GPU until it has finished."""
    start = clock()
    call()
    return clock() - start


def warm_up(call: Callable[[], T], floor: Callable[[], Any], least: int = 1) -> tuple[T, float]:
    """Run both before anything is measured: libraries choose algorithms and allocate workspaces at the first calls.

    Args:
        call, floor: the calls to measure.
        least: the least number of runs; quick calls are run twice.

    Returns:
        The call's result, and the approximate seconds of one round.
    """
    round_seconds = 0.0
    for done in range(max(2, least)):
        if done >= least and round_seconds > 1.0:
            break
        start = clock()
        floor()
        result = call()
        round_seconds = clock() - start
    return result, round_seconds


def rounds_within(budget_seconds: float, round_seconds: float) -> int:
    """The number of rounds that fit into a time; never fewer than three, because one run shows no spread."""
    return min(MOST_ROUNDS, max(LEAST_ROUNDS, int(budget_seconds / max(round_seconds, 1e-9))))


def take_turns(call: Callable[[], Any], floor: Callable[[], Any], rounds: int) -> Iterator[tuple[float, float]]:
    """Seconds of the floor and of the call, round after round."""
    for _ in range(rounds):
        yield seconds(floor), seconds(call)
