"""The required values, and whether they are reached.

The arithmetic limit on VGG-16 is 1.0 floors for epsilon, and about 1.47 for the rules with one forward pass more.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from .cases import LRP_METHODS, SIGNAL_METHODS, TEN_TARGETS, Row
from .stored_results import Measurement, Results
from .timing import Spread, quotients, spread

EPSILON, PLUS_FLAT, GAMMA_BOX = LRP_METHODS


@dataclass(frozen=True)
class Target:
    """An upper limit.

    Attributes:
        methods: keys of `cases.LABELS`.
        against: "floor", "compiled floor", "captum" or "zennit".
        most: the largest quotient that is accepted.
        measure: "time" or "memory".
        device: the device that it applies to.
        batches: the batch sizes that it applies to.
        networks: the networks that it applies to; empty for all.
        implementation: "ours" or "compiled".
    """

    methods: tuple[str, ...]
    against: str
    most: float
    measure: str = "time"
    device: str = "cpu"
    batches: tuple[int, ...] = (1, 16)
    networks: tuple[str, ...] = ()
    implementation: str = "ours"


_ALL = (*SIGNAL_METHODS, *LRP_METHODS)
_COMPILED = (*SIGNAL_METHODS, EPSILON)

TARGETS: tuple[Target, ...] = (
    Target(SIGNAL_METHODS, "floor", 1.05),
    Target(SIGNAL_METHODS, "captum", 1.0),
    Target(SIGNAL_METHODS, "zennit", 1.0),
    Target((EPSILON,), "floor", 1.10),
    Target((EPSILON,), "captum", 0.6, networks=("vgg16",)),
    Target((EPSILON,), "zennit", 0.5),
    Target((PLUS_FLAT,), "floor", 1.65),
    Target((PLUS_FLAT,), "zennit", 0.55),
    Target((GAMMA_BOX,), "floor", 2.0),
    Target((GAMMA_BOX,), "zennit", 0.3),
    Target((TEN_TARGETS,), "floor", 1.0),
    Target((TEN_TARGETS,), "captum", 1.0),
    Target(_ALL, "floor", 1.1, "memory"),
    Target((*SIGNAL_METHODS, EPSILON), "captum", 1.0, "memory"),
    Target(_ALL, "floor", 1.1, "memory", "cuda", (1, 64)),
    Target((*SIGNAL_METHODS, EPSILON), "captum", 1.0, "memory", "cuda", (1, 64)),
    Target(_COMPILED, "compiled floor", 1.3, device="cuda", batches=(1,), implementation="compiled"),
    Target(_COMPILED, "captum", 0.2, device="cuda", batches=(1,), implementation="compiled"),
    Target(_COMPILED, "zennit", 0.2, device="cuda", batches=(1,), implementation="compiled"),
    Target((EPSILON,), "floor", 1.2, device="cuda", batches=(64,), implementation="compiled"),
    Target((EPSILON,), "captum", 0.5, device="cuda", batches=(64,), implementation="compiled"),
    Target((EPSILON,), "zennit", 0.5, device="cuda", batches=(64,), implementation="compiled"),
)


@dataclass(frozen=True)
class Finding:
    """A target and a measurement that it applies to.

    Attributes:
        target: the limit.
        row: this package's row.
        value: the quotient's median and quartiles.
        reached: whether the median is within the limit.
    """

    target: Target
    row: Row
    value: Spread

    @property
    def reached(self) -> bool:
        return self.value.median <= self.target.most


def findings(results: Results, target: Target) -> list[Finding]:
    """The findings for a target; rows that were not measured, or whose peer failed, are left out."""
    found = []
    for measurement in results:
        if not _concerns(target, measurement.row):
            continue
        value = quotient(results, measurement, target.against, target.measure)
        if value is not None:
            found.append(Finding(target, measurement.row, value))
    return found


def quotient(results: Results, ours: Measurement, against: str, measure: str = "time") -> Spread | None:
    """A measurement as a multiple of the floor, of the compiled floor, or of a peer.

    Two rows that took turns with the floor, but not with each other, are compared in floors. On a GPU they are compared
    in seconds: there the floor of a few images is the time to launch it, which varies by half between two processes.

    Returns:
        None where one of them was not measured.
    """
    if against == "floor":
        return ours.ratio if measure == "time" else _same(ours.memory_ratio)
    if against == "compiled floor":
        peer = results.get(replace(ours.row, method="lrp-0", implementation="compiled"))
    else:
        peer = results.get(replace(ours.row, implementation=against))
    if peer is None:
        return None
    if measure == "memory":
        return _same(ours.peak_bytes / peer.peak_bytes if ours.peak_bytes and peer.peak_bytes else None)
    if not ours.call_seconds or not peer.call_seconds:
        return None
    if ours.row.device.startswith("cuda"):
        return spread(quotients(ours.call_seconds, peer.call_seconds))
    return spread(quotients(ours.ratios, peer.ratios))


def reached(found: Iterable[Finding]) -> tuple[int, int]:
    """The number of findings within their limit, and the number of all findings."""
    results = [finding.reached for finding in found]
    return sum(results), len(results)


def _concerns(target: Target, row: Row) -> bool:
    return (
        row.method in target.methods
        and (row.device, row.implementation) == (target.device, target.implementation)
        and row.batch in target.batches
        and (not target.networks or row.network in target.networks)
    )


def _same(value: float | None) -> Spread | None:
    return None if value is None else Spread(value, value, value)
