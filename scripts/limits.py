"""The limits of the methods in docs/methods, measured anew: `python scripts/limits.py [--pages] [PART ...]`.

* `all-cnn-c`: the methods of `scripts/gallery.py` with All-CNN-C, on the first test images of CIFAR-10;
* `digit-transformer`: the presets for attention beside others, with the network of `scripts/digit_transformer.py`, on
  the first test images of MNIST;
* `random-maps`: the share of maps of random numbers whose removal ratio lies within the margin of the explorer;
* `relevance`: the positive relevance over the logit, for three photographs in All-CNN-C and SqueezeNet.

Without a PART all are measured, with `--pages` none. The images lie in the folder `REAL_DATA`. The results are stored
in `scripts/limits.json`. The tables in docs/methods/README.md and the sentences of `scripts/limit_sentences.py` are
written from it, and a test holds them to it.
"""

import argparse
import json
import os
import statistics
import sys
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

import digit_transformer
import gallery
from limit_sentences import PRESETS, PRESETS_FOR_ATTENTION, SENTENCES, row_of, updated
from page_tables import markdown, with_table

import gan
from plugin import models
from plugin.attr import LRPTranspose
from plugin.experiments.faithfulness import removal_curves
from plugin.experiments.sanity import class_check, randomisation_check
from plugin.explorer.maps.badges import MARGIN
from plugin.files import write_text
from plugin.models.data import cifar10, normalise

STORED = ROOT / "scripts" / "limits.json"
CHECKED, REMOVED, RANDOM = 8, 24, 128  # images: of correlations, of removal and colours, of random maps
STRONGEST = 16  # pixels of a map whose colours are tried
ONE_SIDED = ("epsilon_plus", "epsilon_plus_flat", "epsilon_gamma_box")  # presets that favour positive products
HEAD = ("method", "weights", "with signs", "class", "with signs", "removal", "colours")
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
} | {row_of(name): f"[`{name}`](lrp.md#{name})" for name in (*PRESETS, *PRESETS_FOR_ATTENTION)}
# Of the transformer. Its norms and its products of signals make input times gradient another map than LRP-0.
OF_ATTENTION: dict[str, gallery.Explain] = {
    "preset-attn-lrp": gallery.of_rule("attn_lrp"),
    "preset-cp-lrp": gallery.of_rule("cp_lrp"),
    "preset-epsilon": gallery.of_rule("epsilon"),
    "gradient": gallery.of_row("gradient"),
    "input-x-gradient": gallery.input_x_gradient,
    "guided-backprop": gallery.guided_backprop,
}
LABELS_OF_ATTENTION = LABELS | {"input-x-gradient": "[input times gradient](gradient.md#input-times-gradient)"}
Score = Callable[[Tensor], Tensor]


def percent(share: float, digits: int = 0) -> str:
    """A share as the pages print it."""
    return f"{100 * share:.{digits}f} %"


@dataclass(frozen=True)
class Explained:
    """A method of the gallery with the interface of an attribution."""

    explain: gallery.Explain
    model: models.LoadedModel

    def attribute(self, inputs: Tensor, *, target: Tensor) -> Tensor:
        return self.explain(self.model, inputs, target)


@dataclass(frozen=True)
class Limits:
    """The limits of a method; docs/methods/README.md defines them.

    Attributes:
        weights, weights_signed: rank correlation with the map after the last layer was randomised.
        classes, classes_signed: rank correlation between the maps of two classes.
        removal: the removal ratio, the median over the images.
        colours: the share of the strongest pixels that move the logit in the direction of their colour.
    """

    weights: float
    weights_signed: float
    classes: float
    classes_signed: float
    removal: float
    colours: float

    def stored(self) -> dict[str, float]:
        """The numbers to four digits."""
        return {name: round(value, 4) for name, value in asdict(self).items()}

    def cells(self) -> list[str]:
        """The numbers as the tables show them."""
        correlations = (self.weights, self.weights_signed, self.classes, self.classes_signed)
        return [f"{value:.2f}" for value in correlations] + [
            f"{self.removal:.1f}",
            percent(self.colours),
        ]


def limits(explain: gallery.Explain, model: models.LoadedModel, images: Tensor) -> Limits:
    """Measure one method on the two most probable classes of images `(REMOVED, C, H, W)`."""

    def method(network: nn.Module) -> Explained:
        return Explained(explain, replace(model, network=network))

    first, second = model.network(images).topk(2).indices.unbind(1)
    few = images[:CHECKED]
    weights = randomisation_check(method, model.network, few, first[:CHECKED]).steps[0].similarity
    classes = class_check(method, model.network, few, first[:CHECKED], second[:CHECKED])
    ratios, colours = [], []
    for image, target in zip(images.split(1), first.split(1), strict=True):
        score = lambda pictures, target=target: model.network(pictures)[:, int(target)]  # noqa: E731
        attribution = method(model.network).attribute(image, target=target)
        ratios.append(float(removal_curves(score, image, attribution).ratio))
        colours.append(share_of_colours(score, image, attribution))
    return Limits(
        weights.magnitude,
        weights.signed,
        classes.magnitude,
        classes.signed,
        statistics.median(ratios),
        statistics.fmean(colours),
    )


@torch.no_grad()
def share_of_colours(score: Score, image: Tensor, attribution: Tensor) -> float:
    """Which share of the strongest pixels of a map `(1, C, H, W)` moves the score in the direction of its colour.

    Each pixel by itself takes the mean colour of the picture. A red pixel, of a positive sum over the channels, must
    then lower the score, and a blue one must raise it.
    """
    values = attribution[0].sum(0).flatten()
    strongest = values.abs().topk(STRONGEST).indices
    pictures = image.repeat(STRONGEST, 1, 1, 1)
    pictures.flatten(2)[range(STRONGEST), :, strongest] = image.mean((2, 3))
    fall = score(image) - score(pictures)
    return float((fall.sign() == values[strongest].sign()).float().mean())


@torch.no_grad()
def within_margin(network: nn.Module, images: Tensor) -> float:
    """The share of images on which a map of random numbers has a removal ratio of 1, up to the explorer's margin."""
    random, ratios = torch.Generator().manual_seed(0), []
    for some in images.split(8):
        targets = network(some).argmax(1)
        maps = torch.randn(some[:, :1].shape, generator=random)
        score = lambda pictures, targets=targets: network(pictures)[range(len(targets)), targets]  # noqa: E731
        ratios.append(removal_curves(score, some, maps, batch=len(some)).ratio)
    return float(((torch.cat(ratios) - 1).abs() <= MARGIN).double().mean())


def photographs(count: int) -> Tensor:
    """The first test images of CIFAR-10, normalised."""
    folder = Path(os.environ.get("REAL_DATA", ROOT.parent / "shared" / "data")) / "cifar10"
    return normalise(cifar10(folder, train=False)[0][:count])


def of_all_cnn_c() -> dict[str, Any]:
    """The methods of the gallery."""
    model, images = models.load("all-cnn-c"), photographs(REMOVED)
    names = [name for name in LABELS if name in gallery.GALLERY]
    return {name: limits(gallery.GALLERY[name][0], model, images).stored() for name in names}


def of_transformer() -> dict[str, Any]:
    """The presets for attention, and the accuracy of the network."""
    model, images = digit_transformer.trained(), digit_transformer.digits(train=False)[0][:REMOVED]
    rows = {name: limits(explain, model, images).stored() for name, explain in OF_ATTENTION.items()}
    return {"accuracy": model.metadata["accuracy"], "methods": rows}


def of_random_maps() -> dict[str, Any]:
    """The two networks of the explorer's margin; the classifier of digits takes values in [0, 1]."""
    digits = digit_transformer.digits(train=False, normalised=False)[0][:RANDOM]
    return {
        "all-cnn-c": within_margin(models.load("all-cnn-c").network, photographs(RANDOM)),
        "mnist-classifier": within_margin(gan.load_classifier("mnist-classifier"), digits),
    }


def of_relevance() -> dict[str, Any]:
    """The range for LRP-0, the largest of the one-sided presets, and the balance of one map under alpha 2, beta 1."""
    networks = gallery.networks()
    if len(networks) < 2:
        raise FileNotFoundError("the weights of SqueezeNet are not in the folder REAL_DATA")
    found: dict[str, list[float]] = {preset: [] for preset in ("lrp_0", *ONE_SIDED)}
    for model in networks:
        for name in gallery.PHOTOGRAPHS:
            inputs = model.preprocess(models.sample_images()[name])
            logits, targets = model.network(inputs).max(1)
            for preset, ratios in found.items():
                explain = gallery.box if preset == "epsilon_gamma_box" else gallery.of_rule(preset)
                positive = explain(model, inputs, int(targets)).clamp(min=0).sum()
                ratios.append(float(positive / logits))
    inputs = networks[0].preprocess(models.sample_images()["cat"])
    ledger = LRPTranspose(networks[0].network, "epsilon_alpha2_beta1").ledger(inputs, target=3)
    numbers = {
        "lrp_0 least": min(found["lrp_0"]),
        "lrp_0 most": max(found["lrp_0"]),
        "one-sided most": max(max(found[preset]) for preset in ONE_SIDED),
        "cat logit": ledger.output,
        "cat absorbed": ledger.absorbed,
        "cat pixels": ledger.input,
    }
    return {name: round(float(number), 4) for name, number in numbers.items()}


PARTS: dict[str, Callable[[], dict[str, Any]]] = {
    "all-cnn-c": of_all_cnn_c,
    "digit-transformer": of_transformer,
    "random-maps": of_random_maps,
    "relevance": of_relevance,
}


def table(methods: dict[str, dict[str, float]], labels: dict[str, str]) -> str:
    """The limits of methods, those whose maps depend on the last layer least first."""
    rows = sorted(methods.items(), key=lambda row: (-row[1]["weights"], row[0]))
    return markdown(HEAD, [[labels[name], *Limits(**found).cells()] for name, found in rows])


def values(stored: dict[str, Any]) -> dict[str, str]:
    """The fields of the sentences, as the pages show them; those of the transformer begin with "attention."."""
    transformer, own = stored.get("digit-transformer", {}), stored.get("all-cnn-c", {})
    rows = own | {f"attention.{name}": found for name, found in transformer.get("methods", {}).items()}
    names = [field.name for field in fields(Limits)]
    found = {
        f"{row}.{name}": cell
        for row, measured in rows.items()
        for name, cell in zip(names, Limits(**measured).cells(), strict=True)
    }
    shares = [measured["colours"] for measured in own.values()]
    if shares:
        found |= {"colours.least": percent(min(shares)), "colours.most": percent(max(shares))}
    if transformer:
        found["accuracy"] = percent(transformer["accuracy"], digits=1)
    found |= {f"random-maps.{name}": percent(share) for name, share in stored.get("random-maps", {}).items()}
    for name, number in stored.get("relevance", {}).items():
        found[name] = f"{number:.0f}" if name.startswith("lrp_0") else f"{number:.1f}"
    return found


def rewritten(page: str, text: str, stored: dict[str, Any]) -> str:
    """A page, named by its path in the repository, with the stored results in its tables and sentences."""
    tables = {
        "limits": (stored.get("all-cnn-c", {}), LABELS),
        "limits of attention": (stored.get("digit-transformer", {}).get("methods", {}), LABELS_OF_ATTENTION),
    }
    for name, (methods, labels) in tables.items():
        if not methods:
            continue
        text = with_table(text, name, table(methods, labels))
    return updated(text, SENTENCES[page], values(stored))


def part_of_limits(name: str) -> str:
    """An argument of the command line. `choices` of argparse would refuse that none is given, before Python 3.12."""
    if name not in PARTS:
        raise argparse.ArgumentTypeError(f"invalid choice: {name!r} (choose from {', '.join(PARTS)})")
    return name


def main() -> None:
    """Measure, store, and write the tables and the sentences."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "parts", nargs="*", metavar="PART", type=part_of_limits, help=f"of {', '.join(PARTS)}; default: all"
    )
    parser.add_argument("--pages", action="store_true", help="measure nothing, write the pages from the stored results")
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # the check warns of each method that hardly changes
    stored = json.loads(STORED.read_text(encoding="utf-8")) if STORED.is_file() else {}
    for part in () if options.pages else options.parts or PARTS:
        stored[part] = PARTS[part]()
        print(part, json.dumps(stored[part], indent=2), flush=True)
        write_text(STORED, json.dumps(stored, indent=2, sort_keys=True) + "\n")
    for page in SENTENCES:
        write_text(ROOT / page, rewritten(page, (ROOT / page).read_text(encoding="utf-8"), stored))


if __name__ == "__main__":
    main()
