"""The patterns of units by layer, with an image and without (Springenberg et al. 2015, Section 4 and Figures 2-4).

    python -m plugin.experiments.deconvnet --data FOLDER --out FOLDER

For a few layers of each network, and a few units of each layer in the middle of the picture, the best images of a data
set are found and five pictures are drawn: the deconvnet without an image, and on the best image the deconvnet with
and without switches, guided backprop and the gradient. Numbers go with them:

* response: the unit's response to the picture instead of an image, over its best response to any image. The picture is
  first scaled to the norm that the best image has on the pixels the unit sees. Near 1 or above, the picture shows the
  unit's preferred pattern. Near 0, it does not.
* cosine: between the pictures from the unit's three best images, mean over the pairs. 1: the image has no influence.

* likeness, one number per layer and method: the cosine between the pictures of different units. At 1 all units have
  the same preferred pattern.

Units are taken evenly over the channels that respond at all, or all of them; none is selected by the look of its
pictures.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor, nn
from tqdm import tqdm

from ..attr import DeconvNet, NeuronModifiedBackprop
from ..files import write_json
from ..models import LoadedModel, WeightsUnavailable, known_names, load, names
from ..models.data import cifar10, normalise
from ..statistics import mean_cosine
from .deconvnet_report import numbers, write_report
from .unit_findings import NetworkFindings, UnitFinding
from .units import evenly, responding_channels, responses_in_the_middle, seen_pixels

IMAGE_FREE = "no image"
CONDITIONED = {
    "switches": "deconvnet",
    "no switches": "deconvnet without switches",
    "guided": "guided",
    "gradient": "gradient",
}
METHODS = (IMAGE_FREE, *CONDITIONED)
BEST = 3
_PIXELS_AT_ONCE = 1 << 17  # of the units that are examined together; each has BEST images


def examine(
    model: LoadedModel,
    images: Tensor,
    layers: int | Sequence[str] = 6,
    units: int | Sequence[int] | None = 4,
    progress: Callable[[Iterable[str]], Iterable[str]] = iter,
    conditioned: Mapping[str, str] = CONDITIONED,
) -> NetworkFindings:
    """Find the preferred patterns of units of a network.

    Args:
        model: the network.
        images: normalised images `(N, 3, H, W)`, at least three, among which to find the best.
        layers: their names (any that return maps or one value per channel), or the number to take evenly over the
            convolutions.
        units: the number of units of each layer, a list of channels, or None for all that respond to some image.
        progress: wraps the loop over the layers, to show the progress.
        conditioned: the methods that need an image: their names, and the rows of `plugin.rules.SIGNAL_RULES`.

    Raises:
        ValueError: there are too few images, the network has no convolutions with maps, or a channel responds to no
            image.

    >>> import torch
    >>> from torch import nn
    >>> from plugin import models
    >>> from plugin.experiments.deconvnet import examine
    >>> network = models.load(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()))
    >>> found = examine(network, torch.randn(8, 3, 16, 16), ["0"], units=2)
    >>> list(found.units[0].pictures)
    ['no image', 'switches', 'no switches', 'guided', 'gradient']
    """
    if len(images) < BEST:
        raise ValueError(f"{len(images)} images are too few: give at least {BEST}")
    start = time.perf_counter()
    known = dict(model.network.named_modules())
    named = [] if isinstance(layers, int) else [name for name in layers if name in known]
    responses = responses_in_the_middle(model.network, images, named)
    chosen = evenly(list(responses), layers) if isinstance(layers, int) else list(layers)
    missing = [name for name in chosen if name not in responses]
    if missing or not chosen:
        raise ValueError(f"{model.name} has no convolution {missing}: choose among {', '.join(responses)}")
    found = []
    for layer in progress(chosen):
        values, position = responses[layer]
        channels = responding_channels(values, units, layer)
        if not channels:
            continue
        classes = model.classes if layer == list(responses)[-1] and values.shape[1] == len(model.classes) else ()
        free = DeconvNet(model.network, layer, tuple(images.shape[1:]), "center").reconstruct(channels, position)
        at_once = max(1, _PIXELS_AT_ONCE // images[0, 0].numel())
        for some, drawn in zip(torch.tensor(channels, device="cpu").split(at_once), free.split(at_once), strict=True):
            best = values[:, some].topk(BEST, dim=0)
            group = [(channel, *position) for channel in some.tolist()]
            images_of_units = images[best.indices.T]
            examined = _examine_units(model.network, layer, group, images_of_units, best.values[0], drawn, conditioned)
            found += [replace(one, class_name=classes[one.unit[0]]) if classes else one for one in examined]
    return NetworkFindings(model, len(images), found, time.perf_counter() - start)


def _examine_units(
    network: nn.Module,
    layer: str,
    units: Sequence[tuple[int, ...]],
    images: Tensor,
    best: Tensor,
    free: Tensor,
    conditioned: Mapping[str, str],
) -> list[UnitFinding]:
    """Draw units' pictures on their best images `(units, BEST, 3, H, W)`, best first, and measure them."""
    where = [torch.tensor(indices, device="cpu").repeat_interleave(BEST) for indices in zip(*units, strict=True)]

    def own_units(output: Tensor) -> Tensor:
        return output[(torch.arange(len(output), device="cpu"), *where)]

    maps = {
        name: NeuronModifiedBackprop(network, layer, rule)
        .attribute(images.flatten(0, 1), own_units)
        .unflatten(0, (len(units), BEST))
        for name, rule in conditioned.items()
    }
    boxes = [seen_pixels(torch.cat(drawn)) for drawn in zip(free[:, None], *maps.values(), strict=True)]
    pictures = {IMAGE_FREE: free, **{name: values[:, 0] for name, values in maps.items()}}
    scaled = [
        scaled_like(picture, image, box)
        for drawn in pictures.values()
        for picture, image, box in zip(drawn, images[:, 0], boxes, strict=True)
    ]
    channels = [unit[0] for unit in units] * len(pictures)
    responses = channel_responses(network, layer, torch.stack(scaled), channels).view(len(pictures), -1) / best
    return [
        UnitFinding(
            layer=layer,
            unit=unit,
            image=images[index, 0],
            best=float(best[index]),
            box=boxes[index],
            pictures={name: drawn[index] for name, drawn in pictures.items()},
            response=dict(zip(pictures, responses[:, index].tolist(), strict=True)),
            cosine={name: mean_cosine(values[index]) for name, values in maps.items()},
        )
        for index, unit in enumerate(units)
    ]


def scaled_like(picture: Tensor, image: Tensor, box: tuple[slice, slice]) -> Tensor:
    """A picture `(C, H, W)` scaled to the norm that an image `(C, H, W)` has on the pixels that a unit sees."""
    scale: Tensor = image[:, *box].norm() / picture[:, *box].norm().clamp(min=1e-12)
    return picture * scale


def channel_responses(network: nn.Module, layer: str, pictures: Tensor, channels: Sequence[int]) -> Tensor:
    """The response `(n,)` to each picture `(n, C, H, W)` of its own channel of a layer, in the middle."""
    responses = responses_in_the_middle(network, pictures, [layer])[layer][0]
    return responses[torch.arange(len(pictures), device="cpu"), torch.tensor(channels, device="cpu")]


def read_images(model: LoadedModel, folder: Path, limit: int) -> Tensor:
    """Normalised images `(N, 3, H, W)`: CIFAR-10's test set for this package's networks, else a folder's pictures.

    Raises:
        FileNotFoundError: there are no pictures.
    """
    if model.name in known_names():
        return normalise(cifar10(folder, train=False)[0][:limit])
    inputs: list[Tensor] = []
    for path in sorted(folder.glob("*")):
        try:
            with Image.open(path) as picture:
                inputs.append(model.preprocess(picture))
        except (UnidentifiedImageError, IsADirectoryError):
            continue
        if len(inputs) == limit:
            break
    if not inputs:
        raise FileNotFoundError(f"no pictures in {folder}: give a folder with image files for {model.name}")
    return torch.cat(inputs)


def run(
    models: Sequence[LoadedModel],
    images: Sequence[Tensor],
    folder: Path,
    layers: int | Sequence[str] = 6,
    units: int | None = 4,
) -> list[NetworkFindings]:
    """Examine networks, with progress on the standard error, and write `report.html` and one PNG per layer.

    The numbers are those of all units; of more than eight units, four are drawn. `findings.json` holds the numbers.

    Args:
        models: the networks.
        images: for each network the images, normalised `(N, 3, H, W)`, among which to find the best.
        folder: the folder of the files; it is made.
        layers, units: see `examine`.
    """
    findings = [
        examine(model, inputs, layers, units, partial(tqdm, desc=model.name, unit="layer"))
        for model, inputs in zip(models, images, strict=True)
    ]
    write_report(findings, METHODS, folder)
    write_json(folder / "findings.json", {found.model.name: numbers(found) for found in findings})
    return findings


def unit_count(text: str) -> int | None:
    """The number of units that an argument of the command line gives; "all" is None."""
    return None if text == "all" else int(text)


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m plugin.experiments.deconvnet", description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="*", default=list(names()), metavar="NETWORK[=CHECKPOINT]")
    parser.add_argument("--data", type=Path, required=True, help="CIFAR-10, or a folder of pictures for other networks")
    parser.add_argument("--out", type=Path, default=Path("runs/deconvnet"), help="folder for report.html and the PNGs")
    parser.add_argument("--images", type=int, default=2000, help="how many images the best are found in")
    parser.add_argument("--layers", type=int, default=6, help="how many layers, evenly over the convolutions")
    parser.add_argument("--units", type=unit_count, default=4, help='how many units of each layer, or "all"')
    options = parser.parse_args(arguments)
    try:
        pairs = [network.partition("=") for network in options.networks]
        models = [load(name, checkpoint=checkpoint or None) for name, _, checkpoint in pairs]
        images = [read_images(model, options.data, options.images) for model in models]
        findings = run(models, images, options.out, options.layers, options.units)
    except (OSError, ValueError, WeightsUnavailable) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for found in findings:
        print(f"{found.model.name}: {len(found.units)} units in {found.seconds:.0f} s")
    print(options.out / "report.html")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
