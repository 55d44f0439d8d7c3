"""Many sessions at once on one explorer: every map that any of them sees is compared with the library's.

`python scripts/load.py --sessions 10 --seconds 120` prints the outcome; `tests/explorer/test_load.py` does the same
for a short while. Each session changes settings as a person does, several at once, leaves, and comes back by a
link. The last one maximises units of a network that the others attribute, and every other time closes the page
meanwhile.
"""

import io
import os
import random
import re
import statistics
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from plugin import models
from plugin.attr.methods import METHODS
from plugin.explorer.app import PAGES
from plugin.explorer.inputs.offered_networks import DIGITS, digit_classifier
from plugin.explorer.inputs.offered_pictures import sample
from plugin.models import LoadedModel
from plugin.random_weights import SeededWeights

from .browser import server
from .sessions import Session

# A network of the size of ImageNet's, which the server is given as the user's own.
OWN = f"{__name__}:squeezenet"
NETWORKS = ("all-cnn-c", "model-c", OWN, DIGITS)
PHOTOGRAPHS, DRAWN = ("cat", "coffee", "rocket"), ("digit-3", "digit-5", "digit-8")
CLASS_METHODS = ("gradient", "deconvnet", "guided-backprop", "guided-grad-cam", "lrp-epsilon", "lrp-epsilon-plus-flat")
NEURON_METHODS = ("gradient", "deconvnet", "guided-backprop", "lrp-epsilon")
TARGETS = (0, 3, 7)
PRESETS = ("epsilon_plus_flat", "epsilon", "epsilon_plus")
_LABELS = {"class": "Class", "neuron": "Neuron"}
# Largest difference to the library, as a share of the map's largest magnitude: threads sum in another order.
TOLERANCE = 1e-4


def squeezenet() -> LoadedModel:
    """A SqueezeNet whose random weights are the same in every process and thread."""
    from torchvision.models import squeezenet1_1

    with SeededWeights(0):
        return models.load(squeezenet1_1().eval())


@cache
def network(name: str) -> LoadedModel:
    """The network that the explorer shows under this name, as the library loads it."""
    return {OWN: squeezenet, DIGITS: digit_classifier}.get(name, lambda: models.load(name))()


@cache
def expected(name: str, image: str, method: str, target: int, layer: str, neuron: str) -> NDArray[Any]:
    """The attribution `(C, H, W)` by the library; of a neuron if one is given, else of a class."""
    model, chosen = network(name), METHODS[method]
    inputs = model.preprocess(sample(image).image)
    layers = [model.network.get_submodule(layer)] if neuron or chosen.needs_layer else []
    construct = {**chosen.construct, **({"rules": chosen.preset} if chosen.preset else {})}
    attribution = chosen.attribution_class(bool(neuron))(model.network, *layers, **construct)
    if neuron:
        selector = tuple(map(int, neuron.split(".")))
        return np.asarray(attribution.attribute(inputs, neuron_selector=selector)[0].detach())
    return np.asarray(attribution.attribute(inputs, target=target, **chosen.call)[0].detach())


# Hooks of Captum's classes must not meet those of another thread; and it is the server that should be loaded.
_library = threading.Lock()


@dataclass
class Report:
    """The outcome of a load.

    Attributes:
        maps: figures compared with the library.
        files: NPZ files compared with it.
        runs: of activation maximisation whose images were compared with it.
        difference: the largest one, as a share of the largest magnitude of its map.
        seconds: from each change to its maps.
        reopened: sessions that were left and opened again by their link.
        failures: faults, in words.
        memory: resident bytes of the server, each second.
    """

    maps: int = 0
    files: int = 0
    runs: int = 0
    difference: float = 0.0
    seconds: list[float] = field(default_factory=list)
    reopened: int = 0
    failures: list[str] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)
    lock: Any = field(default_factory=threading.Lock, repr=False)

    def compare(self, what: str, found: NDArray[Any], right: NDArray[Any]) -> None:
        """Note how far a map is from the library's."""
        if found.shape != right.shape:
            with self.lock:
                self.failures.append(f"{what} has shape {found.shape}, not {right.shape}")
            return
        difference = float(np.abs(found - right).max() / max(np.abs(right).max(), 1e-30))
        with self.lock:
            self.difference = max(self.difference, difference)
            if not difference <= TOLERANCE:
                self.failures.append(f"{what} differs by {difference:.1e} of its largest magnitude")

    def summary(self) -> dict[str, Any]:
        """The same in numbers for people."""
        megabytes = [round(size / 2**20) for size in self.memory]
        return {
            "maps compared": self.maps,
            "NPZ files compared": self.files,
            "runs of activation maximisation compared": self.runs,
            "largest difference": self.difference,
            "changes": len(self.seconds),
            "seconds from change to maps, median": round(statistics.median(self.seconds), 2),
            "seconds from change to maps, longest": round(max(self.seconds), 2),
            "sessions reopened": self.reopened,
            "resident MB at start": megabytes[0],
            "resident MB at a quarter": megabytes[len(megabytes) // 4],
            "resident MB at half": megabytes[len(megabytes) // 2],
            "resident MB at three quarters": megabytes[3 * len(megabytes) // 4],
            "resident MB at end": megabytes[-1],
            "resident MB at most": max(megabytes),
            "failures": self.failures,
        }


@dataclass(frozen=True)
class View:
    """The last request of a session."""

    network: str = "all-cnn-c"
    image: str = "cat"
    methods: tuple[str, ...] = ("gradient", "deconvnet", "guided-backprop")
    target: int | None = None
    explain: str = "class"
    preset: str = PRESETS[0]

    def shown_by(self, query: dict[str, str], page: str = "attribute") -> bool:
        """Whether the address of a page says the same, as far as the page shows it."""
        asked = {"network": self.network, "image": self.image, "methods": ",".join(self.methods),
                 "explain": self.explain, "preset": self.preset}  # fmt: skip
        first = View()
        default = {"network": first.network, "image": first.image, "methods": ",".join(first.methods),
                   "explain": first.explain, "preset": first.preset}  # fmt: skip
        target = None if self.target is None else str(self.target)
        uses = {"network", "image", *next(each.uses for each in PAGES if each.path == page)}
        if page == "lrp" or self.explain == "class":
            asked["target"], default["target"] = str(target), str(None)
        return all(query.get(k, default[k]) == value for k, value in asked.items() if k in uses)


class Visitor(threading.Thread):
    """A person who changes the page until it is time to go."""

    def __init__(self, address: str, seed: int, deadline: float, report: Report) -> None:
        super().__init__(name=f"visitor {seed}")
        self._address, self._deadline, self._report = address, deadline, report
        self._random = random.Random(seed)
        self._view = View()
        # How each network was left; of this session.
        self._left: dict[str, View] = {}

    def run(self) -> None:
        """Visit, and note whatever goes wrong."""
        try:
            self._session = Session(self._address, "attribute")
            while time.monotonic() < self._deadline and not self._report.failures:
                self._turn()
            self._session.close()
        except Exception:
            with self._report.lock:
                self._report.failures.append(f"{self.name}, {self._view}: {traceback.format_exc()}")

    def _turn(self) -> None:
        dice = self._random.random()
        start = time.monotonic()
        if dice < 0.06:
            self._come_back()
        elif dice < 0.16:
            self._look_at_lrp()
        else:
            offers_the_same = self._change()
            if offers_the_same and dice > 0.8:
                self._change()  # before the first change was answered
        self._session.wait(lambda: self._view.shown_by(self._session.query))
        with self._report.lock:
            self._report.seconds.append(time.monotonic() - start)
        self._check_maps(self._view.methods)

    def _change(self) -> bool:
        """Change one thing; whether the page offers the same choices afterwards."""
        view, choice = self._view, self._random.choice
        what = choice(["methods", "methods", "methods", "target", "image", "network", "explain"])
        if what == "network":
            self._choose_network(choice(NETWORKS))
        elif what == "explain":
            explain = "neuron" if view.explain == "class" else "class"
            self._view = replace(view, explain=explain)
            self._session.set("explain", [_LABELS[explain]])
        elif what == "image":
            self._view = replace(view, image=choice(DRAWN if view.network == DIGITS else PHOTOGRAPHS))
            self._session.set("image", self._view.image)
        elif what == "target" and view.explain == "class":
            target = choice(TARGETS)
            self._view = replace(view, target=target)
            self._session.set("target", f"{self._class_names()[target]} ({target})")
        else:
            offered = NEURON_METHODS if view.explain == "neuron" else CLASS_METHODS
            methods = tuple(self._random.sample(offered, self._random.randint(1, 3)))
            self._view = replace(view, methods=methods)
            self._session.set("methods", [METHODS[method].label for method in methods])
        return what not in ("network", "explain")

    def _choose_network(self, name: str) -> None:
        """Another network may have other classes, and look at other pictures: those with which it was left, if it was
        shown before."""
        before = self._view
        if name != before.network:
            left = self._left.get(name, View(image=DRAWN[0] if name == DIGITS else PHOTOGRAPHS[0]))
            self._left[before.network] = before
            image = left.image if DIGITS in (name, before.network) else before.image
            same_classes = {name, before.network} <= {*NETWORKS[:2]}
            target = before.target if same_classes else left.target
            self._view = replace(before, network=name, image=image, target=target)
        self._session.set("network", name)

    def _class_names(self) -> list[str]:
        model = network(self._view.network)
        return list(model.classes or (f"class {index}" for index in range(1000)))

    def _come_back(self) -> None:
        query = self._session.query
        # A link holds the settings of its page.
        target = None if self._view.explain == "neuron" else self._view.target
        self._view = replace(self._view, preset=PRESETS[0], target=target)
        self._session.close()
        self._session, self._left = Session(self._address, "attribute", query), {}
        with self._report.lock:
            self._report.reopened += 1

    def _look_at_lrp(self) -> None:
        session, preset = self._session, self._random.choice(PRESETS)
        session.turn_to("lrp")
        session.wait(lambda: self._view.shown_by(session.query, "lrp"))
        self._view = replace(self._view, preset=preset)
        session.set("preset", METHODS[_lrp(preset)].label)
        session.wait(lambda: self._view.shown_by(session.query, "lrp"))
        self._check_maps((_lrp(preset),), of_class=True)
        session.turn_to("attribute")

    def _check_maps(self, methods: tuple[str, ...], of_class: bool = False) -> None:
        view, session, query = self._view, self._session, self._session.query
        maps = session.maps()
        prefix = f"{re.sub('[^A-Za-z0-9_-]', '-', view.network)}-"
        explained = methods
        if view.explain == "neuron" and not of_class:
            explained = tuple(method for method in methods if METHODS[method].explains_neuron)
        if set(maps) != {prefix + method for method in explained} or session.exceptions:
            with self._report.lock:
                self._report.failures.append(f"{view} shows {sorted(maps)} and {session.exceptions}")
            return
        file = self._random.choice(explained) if explained and self._random.random() < 0.2 else ""
        for method in explained:
            neuron = "" if of_class or view.explain == "class" else query["neuron"]
            right = self._expected(method, neuron)
            self._report.compare(f"{method} of {view}", maps[prefix + method], right.sum(axis=0))
            if method == file:
                self._report.compare(f"the NPZ of {method} of {view}", session.attribution(prefix + method), right)
        with self._report.lock:
            self._report.maps += len(explained)
            self._report.files += bool(file)

    def _expected(self, method: str, neuron: str) -> NDArray[Any]:
        view = self._view
        with _library:
            target = _top(view.network, view.image) if view.target is None else view.target
            layer = self._session.query.get("layer", "")
            needs_layer = bool(neuron) or METHODS[method].needs_layer
            return expected(view.network, view.image, method, target, layer if needs_layer else "", neuron)


class Maximiser(threading.Thread):
    """A person who watches images come about, and closes every other page before they are finished."""

    def __init__(self, address: str, seed: int, deadline: float, report: Report) -> None:
        super().__init__(name=f"maximiser {seed}")
        self._address, self._deadline, self._report = address, deadline, report
        self._random = random.Random(seed)

    def run(self) -> None:
        """Watch, and note whatever goes wrong."""
        try:
            while time.monotonic() < self._deadline and not self._report.failures:
                self._watch(self._random.randrange(100_000))
                session = Session(self._address, "code-space", {"runs": "4", "steps": "500", "stop_at": "1"})
                session.press_labelled("Maximise with")
                time.sleep(self._random.random())  # the run is under way
                session.close()
        except Exception:
            with self._report.lock:
                self._report.failures.append(f"{self.name}: {traceback.format_exc()}")

    def _watch(self, seed: int) -> None:
        query = {"network": DIGITS, "image": DRAWN[0], "runs": "2", "steps": "4", "seed": str(seed), "target": "3"}
        session = Session(self._address, "code-space", query)
        session.press_labelled("Maximise with")
        session.wait(lambda: True)
        while not any("NPZ" in button.label for button in session.find("download_button")):
            time.sleep(0.2)
            session.look_again()
        with np.load(io.BytesIO(session.download("NPZ"))) as arrays:
            self._report.compare(f"the images of seed {seed}", arrays["images"], maximised(seed))
        with self._report.lock:
            self._report.runs += 2
            self._report.failures += session.exceptions
        session.close()


def maximised(seed: int) -> NDArray[Any]:
    """The images `(2, 1, 28, 28)` of two runs for the digit 3, by the library."""
    from gan import CodeSpaceAM, load, load_classifier

    maximizer = CodeSpaceAM(load_classifier(DIGITS), load("dcgan-mnist").generator)
    with _library:
        return np.asarray(maximizer.maximize(3, runs=2, seed=seed, steps=4).images)


def _lrp(preset: str) -> str:
    return "lrp-" + preset.replace("_", "-")


@cache
def _top(name: str, image: str) -> int:
    model = network(name)
    with torch.no_grad():
        return int(model.network(model.preprocess(sample(image).image)).argmax())


@contextmanager
def explorer(log: Path) -> Iterator[tuple[str, int]]:
    """The explorer with `OWN`; yields its address and the identifier of its process."""
    path = [str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    with server(log, "-m", "plugin.explorer", "--model", OWN, PYTHONPATH=os.pathsep.join(path)) as found:
        yield found


def visit(address: str, process: int, sessions: int, seconds: float, seed: int = 0) -> Report:
    """Visit the explorer.

    Args:
        address, process: of `explorer`.
        sessions: that are open at once.
        seconds: how long.
        seed: of the sessions' actions.
    """
    report = Report()
    first = Session(address, "attribute")  # the memory of a warm server does not count as growth
    deadline = time.monotonic() + seconds
    visitors: list[threading.Thread] = [
        (Visitor if number < sessions - 1 else Maximiser)(address, 1000 * seed + number, deadline, report)
        for number in range(sessions)
    ]
    for visitor in visitors:
        visitor.start()
    while any(visitor.is_alive() for visitor in visitors):
        report.memory.append(resident(process))
        time.sleep(0.5)
    report.memory.append(resident(process))
    first.close()
    return report


def resident(process: int) -> int:
    """The resident bytes of a process."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))
