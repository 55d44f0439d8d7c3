"""Many sessions that ask for heavy work at once, hostile uploads meanwhile, and a newcomer who opens the first page.

`python scripts/load.py --heavy 20 --uploads 40` prints the outcome.
"""

import random
import re
import statistics
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np

from plugin.explorer.inputs.offered_networks import DIGITS

from .checkpoint_files import NETWORK, REFUSED
from .sessions import Session
from .visits import DRAWN, OWN, PHOTOGRAPHS, TOLERANCE, expected, resident

_METHODS = ("gradient", "guided-backprop", "lrp-epsilon-plus-flat")


@dataclass
class HeavyReport:
    """The outcome of a load.

    Attributes:
        finished: the seconds until each heavy session had its result, by the kind of work.
        maps: figures compared with the library.
        refused: uploads that got their sentence.
        opened: the seconds until the first page of each newcomer was there.
        failures: faults, in words.
        memory: resident bytes of the server, twice a second.
    """

    finished: dict[str, list[float]] = field(default_factory=dict)
    maps: int = 0
    refused: int = 0
    opened: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)
    lock: Any = field(default_factory=threading.Lock, repr=False)

    def summary(self) -> dict[str, Any]:
        """The same in numbers for people."""
        return {
            "seconds until done, longest": {kind: round(max(each), 1) for kind, each in self.finished.items()},
            "sessions": sum(map(len, self.finished.values())),
            "maps compared": self.maps,
            "uploads refused in a sentence": self.refused,
            "first pages opened meanwhile": len(self.opened),
            "seconds until a first page, median": round(statistics.median(self.opened), 1),
            "seconds until a first page, longest": round(max(self.opened), 1),
            "resident MB at start": round(self.memory[0] / 2**20),
            "resident MB at most": round(max(self.memory) / 2**20),
            "failures": self.failures,
        }


def _attributed(address: str, number: int, report: HeavyReport) -> None:
    """Three maps of a class of a network of ImageNet's size, compared with the library's."""
    image, target = PHOTOGRAPHS[number % len(PHOTOGRAPHS)], number
    query = {"network": OWN, "image": image, "methods": ",".join(_METHODS), "target": str(target)}
    session = Session(address, "attribute", query)
    maps = session.maps()
    for method in _METHODS:
        found = next((values for name, values in maps.items() if name.endswith(method)), None)
        with report.lock:
            right = expected(OWN, image, method, target, "", "").sum(axis=0)
            if found is None or np.abs(found - right).max() > TOLERANCE * np.abs(right).max():
                report.failures.append(f"{method} of {image}, class {target}, is wrong or missing")
            report.maps += 1
    _end(session, report)


def _maximised(address: str, number: int, report: HeavyReport) -> None:
    """Images of digits that come about in pixel space."""
    query = {"network": DIGITS, "image": DRAWN[0], "generator": "pixels", "runs": "8", "steps": "60", "stop_at": "1"}
    _pressed(Session(address, "code-space", query | {"seed": str(number)}), "Maximise with", report)


def _measured(address: str, number: int, report: HeavyReport) -> None:
    """The first figure of the invariance study."""
    query = {"network": DIGITS, "image": DRAWN[0], "seed": str(number)}
    _pressed(Session(address, "invariance", query), "Measure A", report)


def _pressed(session: Session, start: str, report: HeavyReport) -> None:
    """Start work, and wait until its files are offered."""
    session.press_labelled(start)
    session.wait(lambda: True)
    while not any("NPZ" in button.label for button in session.find("download_button")):
        time.sleep(0.5)
        session.look_again()
    _end(session, report)


def _end(session: Session, report: HeavyReport) -> None:
    with report.lock:
        report.failures += session.exceptions
    session.close()


_WORK: dict[str, Callable[[str, int, HeavyReport], None]] = {
    "maps": _attributed, "maximisation": _maximised, "measurement": _measured,
}  # fmt: skip
# Most sessions look at maps, as people do.
_SHARES = ("maps", "maximisation", "maps", "measurement")


def _upload(address: str, count: int, report: HeavyReport) -> None:
    """Send the files that cannot be opened, in one session, which goes on being used."""
    session = Session(address, "attribute", {"network": NETWORK})
    with tempfile.TemporaryDirectory() as folder:
        for name, write, pattern in islice(cycle(REFUSED.values()), count):
            path = Path(folder) / name
            path.unlink(missing_ok=True)
            write(path)
            session.upload("weights", name, path.read_bytes())
            session.wait(lambda name=name: any(name in alert.body for alert in session.find("alert")))  # type: ignore[misc]
            told = re.sub(r"`|\\", "", " ".join(alert.body for alert in session.find("alert")))  # of Markdown
            right = re.search(pattern, told) is not None
            with report.lock:
                report.refused += right
                if not right:
                    report.failures.append(f"{name}: {told}")
    _end(session, report)


def heavy_visit(address: str, process: int, sessions: int, uploads: int, seed: int = 0) -> HeavyReport:
    """Visit the explorer.

    Args:
        address, process: of `visits.explorer`.
        sessions: that ask for heavy work at once.
        uploads: of hostile checkpoints, one after the other, meanwhile.
        seed: of the order of the work.
    """
    report = HeavyReport(memory=[resident(process)])

    def noted(kind: str, work: Callable[[], None]) -> None:
        start = time.monotonic()
        try:
            work()
        except Exception:
            with report.lock:
                report.failures.append(f"{kind}: {traceback.format_exc()}")
        with report.lock:
            report.finished.setdefault(kind, []).append(time.monotonic() - start)

    kinds = list(islice(cycle(_SHARES), sessions))
    random.Random(seed).shuffle(kinds)
    threads = [
        threading.Thread(
            target=noted, args=(kind, lambda kind=kind, number=number: _WORK[kind](address, number, report))
        )  # type: ignore[misc]
        for number, kind in enumerate(kinds)
    ]
    threads.append(threading.Thread(target=noted, args=("uploads", lambda: _upload(address, uploads, report))))
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        start = time.monotonic()
        newcomer = Session(address)
        report.opened.append(time.monotonic() - start)
        _end(newcomer, report)
        report.memory.append(resident(process))
        time.sleep(1)
    report.memory.append(resident(process))
    return report
