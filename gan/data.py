"""Small images for training and judging: torchvision's data sets, scikit-learn's digits, or a folder of pictures."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from plugin.extras import require
from plugin.models.data import CIFAR10_CLASSES, cifar10
from plugin.models.training_runs import sha256_of

from .picture_folders import read_folder

CACHE = Path.home() / ".cache" / "captum-simplicity"
DIGITS = tuple("0123456789")
NAMES = ("mnist", "fashion-mnist", "cifar10", "digits")
# Data sets whose files may lie in a folder named by the caller.
_FILED = NAMES[:3]


@dataclass(frozen=True)
class ImageSet:
    """One split of a data set.

    Attributes:
        name: of the data set.
        images: `(N, C, H, W)` uint8.
        labels: `(N,)` int64; None where the images have no classes.
        classes: the name of each label.
    """

    name: str
    images: Tensor
    labels: Tensor | None = None
    classes: tuple[str, ...] = ()

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    def __len__(self) -> int:
        return len(self.images)

    def sha256(self) -> str:
        """The SHA-256 of the images and labels, in hexadecimal."""
        return sha256_of(self.images) if self.labels is None else sha256_of(self.images, self.labels)

    def values(self) -> Tensor:
        """The images as float32 in [0, 1]."""
        return self.images.float() / 255


def read(data: str | Path, train: bool, folder: str | Path | None = None, size: int | None = None) -> ImageSet:
    """Read one split into memory.

    Args:
        data: one of `NAMES`, or a folder of pictures, which may hold class folders, and `train/` and `test/` (or
            `val/`) above them, in any case. Without a folder for testing every tenth picture is for testing. Pictures
            are turned upright; they are grey if all of them are, else RGB. Hidden files are left out.
        train: True for the training split, False for the test split.
        folder: holds the files of a named data set; by default they are downloaded once to `CACHE`.
        size: resize the images to this many pixels per side.

    Raises:
        FileNotFoundError: the data are not there, or there are too few pictures.
        MissingExtraError: "digits" without scikit-learn.
        ValueError: no picture can be read, the pictures differ in size and no `size` is given, the splits differ in
            classes, `folder` is given for data that need none, or `size` is below 1.

    Warns:
        UserWarning: unreadable pictures of a folder are left out; or its classes may be others than its folders say.
    """
    if size is not None and size < 1:
        raise ValueError(f"size={size}: give the pixels of a side, at least 1")
    if folder is not None and data not in _FILED:
        raise ValueError(f"folder={str(folder)!r} is where {', '.join(_FILED)} lie: leave it out for {data}")
    if data in ("mnist", "fashion-mnist"):
        found = _torchvision(str(data), train, folder)
    elif data == "cifar10":
        images, labels = cifar10(folder, train)
        found = ImageSet("cifar10", images, labels, CIFAR10_CLASSES)
    elif data == "digits":
        found = _digits(train)
    else:
        return _pictures(Path(data), train, size)
    if size is None or size == found.images.shape[-1]:
        return found
    resized = torch.nn.functional.interpolate(found.images.float(), (size, size), mode="bilinear", antialias=True)
    return ImageSet(found.name, resized.round().clamp(0, 255).byte(), found.labels, found.classes)


def _torchvision(name: str, train: bool, folder: str | Path | None) -> ImageSet:
    from torchvision.datasets import MNIST, FashionMNIST

    dataset = MNIST if name == "mnist" else FashionMNIST
    root = Path(folder) if folder is not None else CACHE
    try:
        found = dataset(str(root), train=train, download=folder is None)
    except RuntimeError as error:
        expected = root / dataset.__name__ / "raw"
        reason = str(error).splitlines()[0].rstrip(":")
        raise FileNotFoundError(
            f"no {name} in {expected}, where torchvision puts it ({reason}): connect once, or give folder=, the "
            f"folder that holds {dataset.__name__}/raw"
        ) from error
    classes = DIGITS if name == "mnist" else tuple(found.classes)
    return ImageSet(name, found.data.unsqueeze(1), found.targets, classes)


def _digits(train: bool) -> ImageSet:
    """The 1,797 digits of 8 x 8 pixels that scikit-learn ships: 1,500 to train on, 297 by other writers to test."""
    datasets = require("sklearn.datasets", extra="gan", purpose="the data set digits")
    images, labels = datasets.load_digits(return_X_y=True)
    part = slice(0, 1500) if train else slice(1500, None)
    pixels = torch.from_numpy(images[part].reshape(-1, 1, 8, 8) * (255 / 16)).round().byte()
    return ImageSet("digits", pixels, torch.from_numpy(labels[part]).long(), DIGITS)


def _pictures(folder: Path, train: bool, size: int | None) -> ImageSet:
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is neither a folder nor one of {', '.join(NAMES)}")
    return ImageSet(folder.resolve().name, *read_folder(folder, train, size))
