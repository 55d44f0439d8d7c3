"""Sets of images to measure with: what the explorer was started with, what is on this machine, and what it ships."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from . import images

if TYPE_CHECKING:
    from gan.data import ImageSet

# Of the person who started the explorer: where MNIST or CIFAR-10 lie, or pictures. Only the command line sets it.
_folders: list[Path] = []


@dataclass(frozen=True)
class Digits:
    """Handwritten digits like those that the networks for digits were trained on.

    Attributes:
        images: `(N, 1, 28, 28)` in [0, 1].
        labels: `(N,)`.
        label: where they are from, for people.
        mnist: whether they are MNIST's test images, from which distances can be measured.
    """

    images: Tensor
    labels: Tensor
    label: str
    mnist: bool


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
    place = next((folder for folder in folders() if (folder / "MNIST" / "raw").is_dir()), None)
    return None if place is None else _mnist_test(place)


@lru_cache(maxsize=1)
def _mnist_test(folder: Path) -> "ImageSet | None":
    from gan.data import read

    try:
        return read("mnist", train=False, folder=folder)
    except FileNotFoundError:  # the folder is there, the files are not
        return None


def digits() -> Digits:
    """MNIST's test images where they are, else the digits that scikit-learn ships, drawn at MNIST's size."""
    found = mnist_test()
    if found is not None and found.labels is not None:
        return Digits(found.values(), found.labels, "MNIST's test images", True)
    return bundled_digits()


@lru_cache(maxsize=1)
def bundled_digits() -> Digits:
    """Scikit-learn's 1,797 digits, drawn at MNIST's size."""
    pixels, labels = images.handwritten()
    values = torch.from_numpy(pixels).unsqueeze(1).float() / 255
    return Digits(values, torch.from_numpy(labels).long(), "scikit-learn's digits", False)
