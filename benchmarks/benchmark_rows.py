"""The rows to measure, the most important first: where the time is bounded, the last ones are left out."""

from collections.abc import Callable, Iterable, Iterator

import pytest
import torch

from plugin.measuring.cases import IMPLEMENTED, LRP_METHODS, SIGNAL_METHODS, TEN_TARGETS, Row, unsupported
from plugin.measuring.measured_networks import NAMES

EPSILON, PLUS_FLAT, _ = LRP_METHODS
CONVOLUTIONAL = ("vgg16", "resnet50", "mobilenet_v2")


def time_rows() -> list[object]:
    """The parameters of the timed attributions."""
    rows = [(_time_priority(row), row) for device in ("cpu", "cuda") for row in _rows(device)]
    # Elsewhere one compiled row stands for all, which take a compiler half a minute.
    return _parameters(rows, lambda row: row.implementation != "compiled" or row.method == SIGNAL_METHODS[0])


def memory_rows() -> list[object]:
    """The parameters of the memory pass: our rows, which have a limit, and Captum's, which is one of the limits."""
    rows = [
        (2 if row.batch == 1 else 4, row)
        for device in ("cpu", "cuda")
        for row in _rows(device)
        if row.method != TEN_TARGETS and row.implementation in ("ours", "captum") and not unsupported(row)
    ]
    return _parameters(rows, Row("mobilenet_v2", EPSILON).__eq__)


def _rows(device: str) -> Iterator[Row]:
    """Every combination that means something; transformers have no ReLU, guided backprop is the gradient there."""
    for network in NAMES:
        methods = IMPLEMENTED if network in CONVOLUTIONAL else [*LRP_METHODS, TEN_TARGETS]
        for batch in (1, 16) if device == "cpu" else (1, 64):
            for method in methods:
                if method != TEN_TARGETS or batch == 1:
                    for implementation in IMPLEMENTED[method]:
                        yield Row(network, method, implementation, batch, device)
    yield from _compiled_rows(device)


def _compiled_rows(device: str) -> Iterator[Row]:
    """Compiling takes long: on a CPU only the rows of the table in the README, and LRP-0, which is their baseline."""
    if device == "cpu":
        for network in CONVOLUTIONAL[:2]:
            methods = ("lrp-0", SIGNAL_METHODS[0], EPSILON, PLUS_FLAT)
            yield from (Row(network, method, "compiled", 1, device) for method in methods)
        return
    for network in NAMES:
        methods = ["lrp-0", EPSILON] if network not in CONVOLUTIONAL else ["lrp-0", *SIGNAL_METHODS, *LRP_METHODS]
        yield from (Row(network, method, "compiled", 1, device) for method in methods)
        yield Row(network, EPSILON, "compiled", 64, device)


def _time_priority(row: Row) -> int:
    """The priority of a row, from 0, the first; rows of the memory pass lie in between."""
    if row.device == "cuda":
        return 3 if row.implementation == "compiled" and row.method in LRP_METHODS[1:] else 0
    if row.implementation == "compiled":
        return 5
    if row.batch == 1:
        return 0
    if row.implementation == "ours":
        return 3 if row.method in (EPSILON, PLUS_FLAT) else 5
    return 6


def _parameters(rows: Iterable[tuple[int, Row]], tried: Callable[[Row], bool]) -> list[object]:
    """Rows as pytest's parameters, marked with the priorities that sort the collection.

    Args:
        rows: priorities and rows. Without a CUDA device one of its rows stands for all, and is skipped.
        tried: whether a row is run where nothing is measured.
    """
    absent = not torch.cuda.is_available()
    parameters = []
    for priority, row in rows:
        marks = [pytest.mark.priority(priority)]
        if not tried(row):
            marks.append(pytest.mark.only_measured)
        if absent and row.device == "cuda":
            if any(parameter.values[2] == "cuda" for parameter in parameters):
                continue
            marks.append(pytest.mark.skip(reason="there is no CUDA device"))
        parameters.append(pytest.param(row.network, row.method, row.device, row.batch, row.implementation, marks=marks))
    return parameters
