"""Fixtures of all benchmarks: rounds in turns with the floor, results written after each row, and an end in time.

Under `make bench` everything is timed and goes to `plugin/measuring/stored`. In the test run each benchmark runs once,
on small networks, and only its map is compared. As in `tests/conftest.py`, fixtures alone import PyTorch.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from benchmark_session import Comparison, Session

    from plugin.measuring.cases import Case, Row
    from plugin.measuring.peak_memory import FreshProcesses

# For the rounds of one row.
_ROW_SECONDS = {"cpu": 2.5, "cuda": 1.0}


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "priority(number): rows with a small number are measured first")
    config.addinivalue_line("markers", "only_measured: a process of its own for each row takes long, one is tried")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The most important first, and apart from that as written. Other tests stay before the benchmarks."""

    def priority(item: pytest.Item) -> int:
        marker = item.get_closest_marker("priority")
        return marker.args[0] if marker else -1

    if config.getoption("benchmark_enable"):
        items.sort(key=priority)
    else:
        items[:] = [item for item in items if not item.get_closest_marker("only_measured")]


@pytest.fixture(scope="session")
def session(pytestconfig: pytest.Config) -> "Session":
    from benchmark_session import Session

    return Session(pytestconfig)


@pytest.fixture(scope="session")
def fresh_processes(session: "Session") -> "Iterator[FreshProcesses]":
    from plugin.measuring.peak_memory import FreshProcesses

    with FreshProcesses(small=not session.timed) as processes:
        yield processes


@pytest.fixture
def measure(benchmark: Any, session: "Session") -> Callable[..., None]:
    """Time a case, or run it once where nothing is timed. `compared(map)` gives a difference and a remark."""
    from plugin.measuring.timing import rounds_within, seconds, warm_up

    def run(row: "Row", case: "Case", compared: "Comparison" = lambda _: (None, "")) -> None:
        benchmark.group = f"{row.network}, {row.method}, {row.device}"
        if not session.timed:
            compared(benchmark.pedantic(case.call))
            return
        result, round_seconds = warm_up(case.call, case.floor, least=3 if row.device == "cuda" else 1)
        difference, remark = compared(result)
        del result
        floors: list[float] = []
        benchmark.pedantic(
            case.call,
            setup=lambda: floors.append(seconds(case.floor)),
            rounds=rounds_within(_ROW_SECONDS[row.device], round_seconds),
            warmup_rounds=0,  # it is warm, and its result was checked
            iterations=1,
        )
        measurement = session.put(
            row,
            floor_seconds=tuple(floors),
            call_seconds=tuple(benchmark.stats.stats.data),
            difference=difference,
            remark=remark,
            error="",
        )
        benchmark.extra_info |= {"floors": measurement.ratio}
        session.say(row, f"{measurement.ratio} floors, {len(floors)} rounds {remark}")

    return run
