"""The table of limits in docs/methods/README.md, measured anew: `python scripts/limits.py`.

The methods of `scripts/gallery.py` are measured with All-CNN-C on the first test images of CIFAR-10, which the folder
`REAL_DATA` holds: how far a map depends on the weights and on the class, and whether it predicts removal.
"""

import os
import re
import statistics
import sys
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor, nn

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

import gallery

from plugin import models
from plugin.experiments.faithfulness import removal_curves
from plugin.experiments.sanity import class_check, randomisation_check
from plugin.files import write_text
from plugin.models.data import cifar10, normalise

PAGE = ROOT / "docs" / "methods" / "README.md"
BEGIN, END = "<!-- limits: begin -->", "<!-- limits: end -->"
CHECKED, REMOVED = 8, 24  # images
# The links of the rows; maps at a layer and of a neuron have no last layer, or no class.
LABELS = {
    "guided-backprop": "[guided backprop](guided-backprop.md)",
    "guided-grad-cam": "[Guided Grad-CAM](guided-grad-cam.md)",
    "deconvnet": "[deconvnet](deconvnet.md)",
    "linear-adjoint": "[linear adjoint](deconvnet.md#the-family)",
    "gradient": "[gradient](gradient.md)",
    "input-x-gradient": "[input times gradient](gradient.md#input-times-gradient), [`lrp_0`](lrp.md#lrp_0)",
    "rule-gamma": "[gamma rule](lrp.md#gamma-rule) in every layer",
    "rule-w-square": "[w-square rule](lrp.md#w-square-rule) first, z-plus above",
    "rule-box": "[box rule](lrp.md#box-rule) first, z-plus above",
} | {
    f"preset-{name.replace('_', '-')}": f"[`{name}`](lrp.md#{name})"
    for name in (
        "epsilon",
        "epsilon_plus",
        "epsilon_plus_flat",
        "epsilon_gamma_box",
        "epsilon_alpha2_beta1",
        "epsilon_alpha2_beta1_flat",
        "excitation_backprop",
    )
}


@dataclass(frozen=True)
class Explained:
    """A method of the gallery with the interface of an attribution."""

    explain: gallery.Explain
    model: models.LoadedModel

    def attribute(self, inputs: Tensor, *, target: Tensor) -> Tensor:
        return self.explain(self.model, inputs, target)


def line(name: str, model: models.LoadedModel, images: Tensor) -> tuple[float, str]:
    """The similarity by which the rows are sorted, and a row of the table."""

    def method(network: nn.Module) -> Explained:
        return Explained(gallery.GALLERY[name][0], replace(model, network=network))

    first, second = model.network(images).topk(2).indices.unbind(1)
    few = images[:CHECKED]
    weights = randomisation_check(method, model.network, few, first[:CHECKED]).steps[0].similarity
    classes = class_check(method, model.network, few, first[:CHECKED], second[:CHECKED])
    ratios = []
    for image, target in zip(images.split(1), first.split(1), strict=True):
        score = lambda pictures, target=target: model.network(pictures)[:, int(target)]  # noqa: E731
        curves = removal_curves(score, image, method(model.network).attribute(image, target=target))
        ratios.append(float(curves.ratio))
    values = (weights.magnitude, weights.signed, classes.magnitude, classes.signed)
    cells = [f"{value:.2f}" for value in values] + [f"{statistics.median(ratios):.1f}"]
    return weights.magnitude, f"| {LABELS[name]} | {' | '.join(cells)} |"


def main() -> None:
    """Write the table."""
    warnings.simplefilter("ignore")  # the check warns of each method that hardly changes
    model = models.load("all-cnn-c")
    data = Path(os.environ.get("REAL_DATA", ROOT.parent / "shared" / "data")) / "cifar10"
    images = normalise(cifar10(data, train=False)[0][:REMOVED])
    rows = sorted((line(name, model, images) for name in LABELS), reverse=True)
    head = ("method", "weights", "with signs", "class", "with signs", "removal")
    table = "\n".join([f"| {' | '.join(head)} |", "|---" * len(head) + "|", *(text for _, text in rows)])
    text = PAGE.read_text(encoding="utf-8")
    write_text(PAGE, re.sub(f"{BEGIN}.*?{END}", f"{BEGIN}\n\n{table}\n\n{END}", text, flags=re.S))
    print(table)


if __name__ == "__main__":
    main()
