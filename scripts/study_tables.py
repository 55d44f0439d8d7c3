"""The tables of docs/deconvnet.md and docs/invariance.md, from the folders that their commands write:
`python scripts/study_tables.py INVARIANCE_FOLDER DECONVNET_FOLDER ...`.

Each stands between two marks of its page. The numbers are read from the JSON files of the folders; none is measured
here.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT)]

from page_tables import markdown, with_table
from study_figures import STATES, of_layers, read

from plugin.experiments.invariance import LayerInvariance, MaximisingSet, PictureResponse, response_quartiles
from plugin.experiments.invariance.figures import short
from plugin.files import write_text
from plugin.statistics import Quartiles, median_of_known

FAMILIES = ("shift", "rotation", "scale")
METHODS = {
    "no image": "deconvnet, no image",
    "switches": "switches",
    "no switches": "no switches",
    "guided": "guided",
    "gradient": "gradient",
    "maximised, pixel": "maximised, pixels",
    "maximised, gan-mnist": "maximised, GAN",
    "maximised, dcgan-cifar10": "maximised, GAN",
}
CLASS_MAPS = ("class_conv", "classifier.1")  # the second is SqueezeNet's


def named(layers: Iterable[str]) -> list[str]:
    """The layers as the pages call them: the last part of a name, where that tells the layers apart."""
    listed = [*layers]
    shorts = [short(layer) for layer in listed]
    names = shorts if len({*shorts}) == len(shorts) else listed
    return ["class maps" if layer.endswith(CLASS_MAPS) else name for layer, name in zip(listed, names, strict=True)]


def responses_of_units(found: dict[str, Any], methods: Sequence[str]) -> str:
    """The quartiles of the response by layer, for some methods."""
    rows = [
        [name, str(found["units"][layer]), *(str(Quartiles(*values[method])) for method in methods)]
        for name, (layer, values) in zip(named(found["response"]), found["response"].items(), strict=True)
    ]
    return markdown(["layer", "units", *(METHODS[method] for method in methods)], rows)


def invariance_by_layer(folder: Path, network: str, layers: Sequence[str]) -> str:
    """The median scores and the class agreement by layer, trained / untrained."""
    states = [
        {short(one.layer): one for one in read(folder, f"{network}-{state}-A", LayerInvariance)} for state in STATES
    ]
    rows = []
    for name, layer in zip(named(layers), layers, strict=True):
        scores = [" / ".join(f"{state[layer].median_score(family):.0f}" for state in states) for family in FAMILIES]
        agreement = " / ".join(f"{statistics.median(state[layer].agreement):.2f}" for state in states)
        rows.append([name, *scores, agreement])
    return markdown(["layer", *FAMILIES, "class agreement"], rows)


def responses_by_layer(found: Sequence[PictureResponse], methods: Sequence[str]) -> str:
    """The quartiles of the response to a picture by layer."""
    layers = response_quartiles(found)
    rows = [
        [name, *(str(values[method]) for method in methods)]
        for name, values in zip(named(layers), layers.values(), strict=True)
    ]
    return markdown(["layer", *(METHODS[method] for method in methods)], rows)


SET_MEASURES: dict[str, tuple[str, Callable[[MaximisingSet], float]]] = {
    "modes": (".1f", lambda found: found.modes),
    "of the best images": (".1f", lambda found: found.modes_of_best),
    "ratio": (".2f", lambda found: found.relative_modes),
    "barrier": (".2f", lambda found: found.barrier),
    "within a branch": (".2f", lambda found: found.barrier_within),
    "between branches": (".2f", lambda found: found.barrier_between),
    "islands": (".1f", MaximisingSet.islands),
}


def sets_by_layer(states: Sequence[Sequence[MaximisingSet]]) -> str:
    """The medians over the units by layer, one number for each generator or state."""
    layers = list(dict.fromkeys(found.layer for found in states[0]))
    rows = []
    for name, layer in zip(named(layers), layers, strict=True):
        groups = [[found for found in sets if found.layer == layer] for sets in states]
        cells = [
            " / ".join(format(median_of_known(map(measure, group)), form).replace("nan", "-") for group in groups)
            for form, measure in SET_MEASURES.values()
        ]
        rows.append([name, *cells])
    return markdown(["layer", *SET_MEASURES], rows)


def tables(folder: Path, deconvnet: Sequence[Path]) -> dict[str, str]:
    """The tables by the names of their marks."""
    studied: dict[str, Any] = {}
    for one in deconvnet:
        studied |= json.loads((one / "findings.json").read_text(encoding="utf-8"))
    pooled = ("no image", "switches", "no switches", "guided", "gradient")
    found = {f"responses {name}": responses_of_units(studied[name], pooled) for name in studied if name != "all-cnn-c"}
    found["responses all-cnn-c"] = responses_of_units(studied["all-cnn-c"], ("no image", "guided", "gradient"))
    odd = ("conv1", "conv3", "conv5", "conv7", "class_conv", "output")
    found["invariance all-cnn-c"] = invariance_by_layer(folder, "all-cnn-c", odd)
    found["invariance model-c"] = invariance_by_layer(folder, "model-c", [name for name in odd if name != "conv7"])
    for state in STATES:
        pictures = of_layers(folder, "all-cnn-c", "B", PictureResponse)[state]
        found[f"pictures all-cnn-c {state}"] = responses_by_layer(pictures, ("no image", "guided"))
    for network, part, generator in (
        ("all-cnn-c", "B-pixel-dcgan-cifar10", "dcgan-cifar10"), ("mnist-classifier", "B-pixel-gan-mnist", "gan-mnist"),
    ):  # fmt: skip
        pictures = of_layers(folder, network, part, PictureResponse)["trained"]
        methods = ("no image", "guided", "maximised, pixel", f"maximised, {generator}")
        found[f"maximised {network}"] = responses_by_layer(pictures, methods)
    for state in STATES:
        both = [
            of_layers(folder, "mnist-classifier", f"C-{generator}", MaximisingSet)[state]
            for generator in ("gan-mnist", "dcgan-mnist")
        ]
        found[f"sets mnist-classifier {state}"] = sets_by_layer(both)
    states = of_layers(folder, "all-cnn-c", "C-dcgan-cifar10", MaximisingSet)
    found["sets all-cnn-c"] = sets_by_layer([*states.values()])
    return found


def main(arguments: list[str] | None = None) -> int:
    """Write the tables into their pages; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("invariance", type=Path, help="--out of plugin.experiments.invariance")
    parser.add_argument("deconvnet", type=Path, nargs="+", help="--out of plugin.experiments.deconvnet")
    options = parser.parse_args(arguments)
    found = tables(options.invariance, options.deconvnet)
    for page in (ROOT / "docs" / "deconvnet.md", ROOT / "docs" / "invariance.md"):
        text = page.read_text(encoding="utf-8")
        for mark, table in found.items():
            text = with_table(text, mark, table)
        write_text(page, text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
