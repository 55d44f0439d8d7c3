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

Units are taken evenly over the channels that respond at all; they are not selected by the look of their pictures.
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
from ..models import LoadedModel, WeightsUnavailable, known_names, load, names
from ..models.data import cifar10, normalise
from ..statistics import mean_cosine
from .deconvnet_report import write_report
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


def examine(
    model: LoadedModel,
    images: Tensor,
    layers: int | Sequence[str] = 6,
    units: int | Sequence[int] = 4,
    progress: Callable[[Iterable[str]], Iterable[str]] = iter,
    conditioned: Mapping[str, str] = CONDITIONED,
) -> NetworkFindings:
    """Find the preferred patterns of units of a network.

    Args:
        model: the network.
        images: normalised images `(N, 3, H, W)`, at least three, among which to find the best.
        layers: their names (any that return maps or one value per channel), or the number to take evenly over the
            convolutions.
        units: the number of units of each layer, or a list of channels.
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
        for channel, picture in zip(channels, free, strict=True):
            best = values[:, channel].topk(BEST)
            unit = (channel, *position)
            examined = _examine_unit(
                model.network, layer, unit, images[best.indices], float(best.values[0]), picture, conditioned
            )
            found.append(replace(examined, class_name=classes[channel]) if classes else examined)
    return NetworkFindings(model, len(images), found, time.perf_counter() - start)


def _examine_unit(
    network: nn.Module,
    layer: str,
    unit: tuple[int, ...],
    images: Tensor,
    best: float,
    free: Tensor,
    conditioned: Mapping[str, str],
) -> UnitFinding:
    """Draw a unit's pictures on its best images `(BEST, 3, H, W)`, best first, and measure them."""
    maps = {
        name: NeuronModifiedBackprop(network, layer, rule).attribute(images, unit) for name, rule in conditioned.items()
    }
    pictures = {IMAGE_FREE: free, **{name: values[0] for name, values in maps.items()}}
    box = seen_pixels(torch.cat([free[None], *maps.values()]))
    values = scaled_responses(network, layer, unit, torch.stack(list(pictures.values())), images[0], box) / best
    return UnitFinding(
        layer=layer,
        unit=unit,
        image=images[0],
        best=best,
        box=box,
        pictures=pictures,
        response=dict(zip(pictures, values.tolist(), strict=True)),
        cosine={name: mean_cosine(values) for name, values in maps.items()},
    )


def scaled_responses(
    network: nn.Module, layer: str, unit: tuple[int, ...], pictures: Tensor, image: Tensor, box: tuple[slice, slice]
) -> Tensor:
    """A unit's responses `(n,)` to pictures `(n, C, H, W)` scaled to the norm of an image on the pixels it sees."""
    norms = pictures[:, :, *box].flatten(1).norm(dim=1).clamp(min=1e-12)
    scaled = pictures * (image[:, *box].norm() / norms).view(-1, 1, 1, 1)
    return responses_in_the_middle(network, scaled, [layer])[layer][0][:, unit[0]]


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
    units: int = 4,
) -> list[NetworkFindings]:
    """Examine networks, with progress on the standard error, and write `report.html` and one PNG per layer.

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
    return findings


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m plugin.experiments.deconvnet", description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="*", default=list(names()), metavar="NETWORK[=CHECKPOINT]")
    parser.add_argument("--data", type=Path, required=True, help="CIFAR-10, or a folder of pictures for other networks")
    parser.add_argument("--out", type=Path, default=Path("runs/deconvnet"), help="folder for report.html and the PNGs")
    parser.add_argument("--images", type=int, default=2000, help="how many images the best are found in")
    parser.add_argument("--layers", type=int, default=6, help="how many layers, evenly over the convolutions")
    parser.add_argument("--units", type=int, default=4, help="how many units of each layer")
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
