"""Eager and compiled maps on a CPU by processor time: `python scripts/compiled_speed.py [--pages]` measures them.

One image of 224 pixels and one thread. A round times every call once, one after the other, and divides each by the
eager baseline of its round, so that other work on the machine affects all of them. The compiled baseline is
`torch.compile(model)` and its gradient at the input. The results are stored in `scripts/compiled_speed.json`. The table
in README.md and docs/accelerate.md is written from it, and a test holds both to it. Measure where little else runs.
"""

import argparse
import json
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

from page_tables import markdown, with_table

from plugin import accelerate
from plugin.attr import GuidedBackprop, LRPTranspose
from plugin.files import write_text
from plugin.measuring import measured_networks
from plugin.measuring.stored_results import commit, machine_facts
from plugin.measuring.timing import spread

STORED = ROOT / "scripts" / "compiled_speed.json"
PAGES = (ROOT / "README.md", ROOT / "docs" / "accelerate.md")
NETWORKS = ("vgg16", "resnet50")
METHODS = ("guided backprop", "epsilon", "epsilon_plus_flat")
ROUNDS, TARGET = 9, 3
WAYS = ("eager", "compiled", "compiled, channels last")


def gradient(model: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """The baseline: one forward pass and one gradient at the input."""
    leaf = images.clone().requires_grad_()
    return torch.autograd.grad(model(leaf)[:, TARGET].sum(), leaf)[0]


def calls(network: nn.Module, images: Tensor) -> dict[str, Callable[[], Any]]:
    """Every call by "method, way", compiled and warm."""
    made = torch.compile(network)
    found: dict[str, Callable[[], Any]] = {
        "baseline, eager": lambda: gradient(network, images),
        "baseline, compiled": lambda: gradient(made, images),
    }
    for method in METHODS:
        explained = GuidedBackprop(network) if method == "guided backprop" else LRPTranspose(network, method)
        fast = [accelerate.compile(explained, images, TARGET, channels_last=last) for last in (False, True)]
        for way, each in zip(WAYS, (explained, *fast), strict=True):
            found[f"{method}, {way}"] = lambda each=each: each.attribute(images, target=TARGET)
    for call in found.values():
        call()
        call()
    return found


def seconds(call: Callable[[], Any]) -> float:
    """The processor time of a call."""
    start = time.process_time()
    call()
    return time.process_time() - start


def measured(name: str) -> dict[str, list[float]]:
    """The time of each call over that of the eager baseline, a number for each round."""
    timed = calls(measured_networks.build(name), measured_networks.images(1))
    rounds = [{key: seconds(call) for key, call in timed.items()} for _ in range(ROUNDS)]
    return {key: [round(each[key] / each["baseline, eager"], 4) for each in rounds] for key in timed}


def cell(quotients: Sequence[float] | None) -> str:
    """Median and quartiles."""
    if not quotients:
        return ""
    low, median, high = spread(quotients)
    return f"{median:.2f} ({low:.2f} to {high:.2f})"


def rewritten(text: str, stored: dict[str, Any]) -> str:
    """A page with the stored results in its table."""
    rows = []
    for name, found in stored["networks"].items():
        rows.append([f"{measured_networks.NAMES[name]}, baseline", "1", cell(found["baseline, compiled"]), ""])
        for method in METHODS:
            label = method if " " in method else f"`{method}`"
            rows.append(
                [f"{measured_networks.NAMES[name]}, {label}", *(cell(found[f"{method}, {way}"]) for way in WAYS)]
            )
    return with_table(text, "compiled speed", markdown(["one image, x baseline", *WAYS], rows))


def main() -> None:
    """Measure, store, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pages", action="store_true", help="measure nothing, write the page from the stored results")
    if not parser.parse_args().pages:
        warnings.simplefilter("ignore")
        torch.set_num_threads(1)
        facts = machine_facts("cpu")
        stored = {
            "machine": f"{facts['cpu']}, PyTorch {facts['versions']['torch']}",
            "commit": commit(),
            "networks": {name: measured(name) for name in NETWORKS},
        }
        write_text(STORED, json.dumps(stored) + "\n")
    for page in PAGES:
        text = rewritten(page.read_text(encoding="utf-8"), json.loads(STORED.read_text(encoding="utf-8")))
        write_text(page, text)


if __name__ == "__main__":
    main()
