"""Which rows are measured, the most important first: where the time is bounded, the last ones are left out."""

from collections.abc import Iterable, Iterator

import pytest
import torch

from plugin.measuring.cases import IMPLEMENTED, LRP_METHODS, SIGNAL_METHODS, TEN_TARGETS, Row, unsupported
from plugin.measuring.networks import NAMES

EPSILON, PLUS_FLAT, _ = LRP_METHODS
CONVOLUTIONAL = ("vgg16", "resnet50", "mobilenet_v2")


def time_rows() -> list[object]:
    """The parameters of the timed attributions."""
    rows = [(_time_priority(row), row) for device in ("cpu", "cuda") for row in _rows(device)]
    return _parameters(rows)


def memory_rows() -> list[object]:
    """The parameters of the memory pass: what has a limit, and Captum's, which is one."""
    rows = [
        (2 if row.batch == 1 else 4, row)
        for device in ("cpu", "cuda")
        for row in _rows(device)
        if row.method != TEN_TARGETS
        and row.implementation in (("ours", "captum") if device == "cpu" else ("ours", "captum", "compiled"))
        and not unsupported(row)
    ]
    return _parameters(rows)


def _rows(device: str) -> Iterator[Row]:
    """Every combination that means something; transformers have no ReLU, guided backprop is the gradient there."""
    for network in NAMES:
        methods = IMPLEMENTED if network in CONVOLUTIONAL else [*LRP_METHODS, TEN_TARGETS]
        for batch in (1, 16) if device == "cpu" else (1, 16, 64):
            for method in methods:
                if method != TEN_TARGETS or batch == 1:
                    for implementation in IMPLEMENTED[method]:
                        yield Row(network, method, implementation, batch, device)
    yield from _compiled_rows(device)


def _compiled_rows(device: str) -> Iterator[Row]:
    """Compiling takes long: on a CPU, where nothing depends on it, only one method each."""
    if device == "cpu":
        yield from (Row(network, EPSILON, "compiled", 1, device) for network in CONVOLUTIONAL[:2])
        return
    for network in NAMES:
        methods = ["lrp-0", EPSILON] if network not in CONVOLUTIONAL else ["lrp-0", *SIGNAL_METHODS, *LRP_METHODS]
        yield from (Row(network, method, "compiled", 1, device) for method in methods)
        yield Row(network, EPSILON, "compiled", 64, device)


def _time_priority(row: Row) -> int:
    """From 0, the first; passes of memory lie in between."""
    if row.implementation == "compiled":
        return 5 if row.device == "cpu" else 1
    if row.batch == 1 or row.device == "cuda":
        return 0
    if row.implementation == "ours":
        return 3 if row.method in (EPSILON, PLUS_FLAT) else 5
    return 6


def _parameters(rows: Iterable[tuple[int, Row]]) -> list[object]:
    """As pytest takes them, with what the collection is sorted by."""
    absent = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
    return [
        pytest.param(
            row.network, row.method, row.device, row.batch, row.implementation,
            marks=[pytest.mark.priority(priority), *([absent] if row.device == "cuda" else [])],
        )
        for priority, row in rows
    ]  # fmt: skip
