"""Sets of images to measure with: in folders of the command line, elsewhere on this machine, and shipped ones."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from plugin import models
from plugin.models import LoadedModel
from plugin.models.data import CIFAR10_CLASSES

from .handwritten_digits import handwritten

if TYPE_CHECKING:
    from gan.data import ImageSet

LABELS = {
    "digits": "Scikit-learn's digits",
    "generated": "Digits drawn by the DCGAN",
    "mnist": "MNIST's test images",
    "crops": "Crops of the bundled photographs",
    "cifar10": "CIFAR-10's test images",
}
_SMALLEST_CROP = 48
# Below one of the `folders`.
_MNIST = Path("MNIST", "raw")
_DIGITS = tuple(map(str, range(10)))
# The classes of the sets that have labels.
CLASSES = {"digits": _DIGITS, "mnist": _DIGITS, "cifar10": CIFAR10_CLASSES}

# The folders of the command line, which alone sets them, with MNIST, CIFAR-10 or pictures.
_folders: list[Path] = []


@dataclass(frozen=True)
class Labelled:
    """Images like those that a shipped network was trained on.

    Attributes:
        images: `(N, C, H, W)` in [0, 1].
        labels: `(N,)`.
        label: their source, for people.
        same_data: whether they are test images of its own data, from which distances can be measured.
    """

    images: Tensor
    labels: Tensor
    label: str
    same_data: bool


def add_folder(folder: str | Path) -> None:
    """Let the pages measure with the images in a folder.

    Raises:
        ValueError: there is no such folder.
    """
    if not Path(folder).is_dir():
        raise ValueError(f"{folder} is no folder: give one that holds MNIST, CIFAR-10, or pictures")
    _folders.append(Path(folder))


def folders() -> tuple[Path, ...]:
    """Where images may be, the last given first."""
    from gan.data import CACHE

    return (*reversed(_folders), CACHE)


def mnist_test() -> "ImageSet | None":
    """MNIST's 10,000 test images, if they are on this machine; nothing is downloaded."""
    place = _mnist_folder()
    return None if place is None else _mnist_test(place, version("mnist"))


def _mnist_folder() -> Path | None:
    return next((folder for folder in folders() if (folder / _MNIST).is_dir()), None)


@lru_cache(maxsize=1)
def _mnist_test(folder: Path, version: str) -> "ImageSet | None":
    from gan.data import read

    try:
        return read("mnist", train=False, folder=folder)
    except FileNotFoundError:  # the folder is there, the files are not
        return None


def digits() -> Labelled:
    """MNIST's test images where they are, else the digits that scikit-learn ships, drawn at MNIST's size."""
    found = mnist_test()
    if found is not None and found.labels is not None:
        return Labelled(found.values(), found.labels, "MNIST's test images", True)
    return bundled_digits()


@lru_cache(maxsize=1)
def bundled_digits() -> Labelled:
    """Scikit-learn's 1,797 digits, drawn at MNIST's size."""
    pixels, labels = handwritten()
    values = torch.from_numpy(pixels).unsqueeze(1).float() / 255
    return Labelled(values, torch.from_numpy(labels), "scikit-learn's digits", False)


def labelled_for(model: LoadedModel) -> Labelled | None:
    """Images whose labels are a network's classes; None if this machine has none."""
    if tuple(model.classes) == CLASSES["digits"] and len(model.preprocessing.mean) == 1:
        return digits()
    if labelled("cifar10", model) and available("cifar10"):
        pixels, classes = _cifar10()
        return Labelled(pixels.float() / 255, classes, LABELS["cifar10"], True)
    return None


def fitting(model: LoadedModel) -> tuple[str, ...]:
    """The keys of `LABELS` whose images suit a network, on this machine or not; the first set always is.

    Args:
        model: digits are for networks that see grey pixels.
    """
    return ("digits", "generated", "mnist") if len(model.preprocessing.mean) == 1 else ("crops", "cifar10")


def version(name: str) -> str:
    """A text that changes when the files of a set do, also while pages are open; empty without files."""
    if name == "mnist":
        files = [file for folder in [_mnist_folder()] if folder for file in (folder / _MNIST).iterdir()]
    elif name == "cifar10":
        files = [file for folder in [_cifar10_folder()] if folder for file in _cifar10_files(folder)]
    else:
        return ""
    stamps = [(file, file.stat()) for file in sorted(files)]
    return " ".join(f"{file}:{stamp.st_size}:{stamp.st_mtime_ns}" for file, stamp in stamps)


def available(name: str) -> bool:
    """Whether a set is on this machine."""
    if name == "mnist":
        return mnist_test() is not None
    return name != "cifar10" or _cifar10_folder() is not None


def inputs(name: str, model: LoadedModel, count: int) -> tuple[Tensor, Tensor | None]:
    """The first images of a set, as a network takes them.

    Args:
        name: a key of `LABELS`.
        model: the network, whose preprocessing sets their size and normalisation.
        count: the most images.

    Returns:
        Inputs `(N, C, H, W)`, and labels `(N,)` if they have any.

    Raises:
        FileNotFoundError: the set is not on this machine.
        ValueError: there is no such set.
    """
    pixels, labels = _as_seen(name, model, count)
    return model.preprocessing.normalised(pixels.permute(0, 2, 3, 1)), labels


def real_images(name: str, model: LoadedModel, count: int) -> Tensor | tuple[Tensor, Tensor]:
    """The first images of a set as a network sees them, `(N, C, H, W)` uint8, with their labels where `labelled`.

    Arguments and errors are those of `inputs`.
    """
    pixels, labels = _as_seen(name, model, count)
    return (pixels, labels) if labels is not None and labelled(name, model) else pixels


def labelled(name: str, model: LoadedModel) -> bool:
    """Whether the labels of a set are a network's classes."""
    return name in CLASSES and tuple(model.classes) == CLASSES[name]


def _as_seen(name: str, model: LoadedModel, count: int) -> tuple[Tensor, Tensor | None]:
    """The first images of a set `(N, C, H, W)` uint8 in a network's size, and their labels."""
    if name not in LABELS:
        raise ValueError(f"there is no set of images {name!r}: choose among {', '.join(LABELS)}")
    pixels, labels = pixels_of(name, count)
    side = model.preprocessing.crop
    if pixels.shape[-1] != side:
        pixels = torch.nn.functional.interpolate(pixels.float(), (side, side), mode="bilinear", antialias=True)
        pixels = pixels.round().clamp(0, 255).byte()
    return pixels, labels


def pixels_of(name: str, count: int) -> tuple[Tensor, Tensor | None]:
    """The first images of a set in their own size `(N, C, H, W)` uint8, and their labels; errors as `inputs`."""
    if name == "crops":
        return crops(count), None
    if name == "generated":
        return generated(count), None
    if name == "cifar10":
        pixels, classes = _cifar10()
        return pixels[:count], classes[:count]
    if name == "digits":
        drawn, digits_shown = handwritten(count)
        return torch.from_numpy(drawn).unsqueeze(1), torch.from_numpy(digits_shown)
    found = mnist_test()
    if found is None:
        raise FileNotFoundError("MNIST is not on this machine: start the explorer with --data FOLDER")
    return found.images[:count], None if found.labels is None else found.labels[:count]


def crops(count: int, seed: int = 0) -> Tensor:
    """Squares of random size and place `(count, 3, 32, 32)` uint8, from each of the bundled photographs in turn."""
    random = np.random.default_rng(seed)
    photographs = list(models.sample_images().values())
    squares = []
    for index in range(count):
        photograph = photographs[index % len(photographs)]
        side = int(random.integers(_SMALLEST_CROP, min(photograph.size) + 1))
        left, top = (int(random.integers(0, length - side + 1)) for length in photograph.size)
        square = photograph.crop((left, top, left + side, top + side)).resize((32, 32), Image.Resampling.BILINEAR)
        squares.append(np.asarray(square.convert("RGB")))
    return torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2).contiguous()


def generated(count: int, seed: int = 0) -> Tensor:
    """Digits that the shipped DCGAN draws of random codes `(count, 1, 28, 28)` uint8."""
    from gan import load

    generator = load("dcgan-mnist").generator
    codes = torch.randn(count, generator.code_size, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        return (torch.cat([generator(some) for some in codes.split(100)]) * 255).round().byte()


def _cifar10_folder() -> Path | None:
    places = [place for folder in folders() for place in (folder, folder / "cifar10")]
    return next((place for place in places if _cifar10_files(place)), None)


def _cifar10_files(folder: Path) -> list[Path]:
    """The files of the set in a folder, as `plugin.models.data.cifar10` looks for them; none if it is not there."""
    one, several = folder / "test.npz", folder / "cifar-10-batches-py"
    return [one] if one.is_file() else [*several.iterdir()] if several.is_dir() else []


def _cifar10() -> tuple[Tensor, Tensor]:
    folder = _cifar10_folder()
    if folder is None:
        raise FileNotFoundError("CIFAR-10 is not on this machine: start the explorer with --data FOLDER")
    return _cifar10_test(folder, version("cifar10"))


@lru_cache(maxsize=1)
def _cifar10_test(folder: Path, version: str) -> tuple[Tensor, Tensor]:
    from plugin.models.data import cifar10

    return cifar10(folder, train=False)
