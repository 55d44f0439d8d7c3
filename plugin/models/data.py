"""CIFAR-10 as two tensors, from one of several sources."""

import io
import itertools
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.2470, 0.2435, 0.2616)


def cifar10(source: str | Path | None, train: bool) -> tuple[Tensor, Tensor]:
    """Read one split of CIFAR-10 into memory.

    Args:
        source: a folder with `train.npz` and `test.npz` (`jpeg`, `offsets`, `labels`; or `images`, `labels`); a folder
            with `train/CLASS/*.png` and `test/CLASS/*.png`; a folder in torchvision's layout. None downloads through
            torchvision into `~/.cache/captum-simplicity`.
        train: the 50,000 training images, or the 10,000 of the test set.

    Returns:
        Images `(N, 3, 32, 32)` uint8 and labels `(N,)` int64.

    Raises:
        FileNotFoundError: nothing at `source` has one of these layouts.
        ValueError: class folders are called otherwise than CIFAR-10's.
    """
    split = "train" if train else "test"
    if source is None:
        return _from_torchvision(Path.home() / ".cache" / "captum-simplicity", train, download=True)
    folder = Path(source)
    if (folder / f"{split}.npz").is_file():
        return _from_npz(folder / f"{split}.npz")
    if (folder / split).is_dir():
        return _from_images(folder / split)
    if (folder / "cifar-10-batches-py").is_dir():
        return _from_torchvision(folder, train, download=False)
    raise FileNotFoundError(
        f"no CIFAR-10 in {folder}: expected {split}.npz, a folder {split}/ of class folders, or cifar-10-batches-py/"
    )


def _stack(images: list[np.ndarray] | np.ndarray, labels: object) -> tuple[Tensor, Tensor]:
    pixels = torch.from_numpy(np.ascontiguousarray(np.stack(list(images)).transpose(0, 3, 1, 2)))
    return pixels, torch.as_tensor(np.asarray(labels), dtype=torch.int64, device="cpu")


def _from_npz(path: Path) -> tuple[Tensor, Tensor]:
    with np.load(path, allow_pickle=False) as arrays:
        if "images" in arrays:
            return _stack(arrays["images"], arrays["labels"])
        files, offsets = arrays["jpeg"], arrays["offsets"]
        decoded = [
            np.asarray(Image.open(io.BytesIO(files[start:stop].tobytes())).convert("RGB"))
            for start, stop in itertools.pairwise(offsets)
        ]
        return _stack(decoded, arrays["labels"])


def _from_images(folder: Path) -> tuple[Tensor, Tensor]:
    from torchvision.datasets import ImageFolder

    found = ImageFolder(str(folder))
    # By name: ImageFolder numbers the folders that are there, and one may be missing.
    numbers = {name: index for index, name in enumerate(CIFAR10_CLASSES)} | {str(index): index for index in range(10)}
    unknown = [name for name in found.classes if name not in numbers]
    if unknown:
        raise ValueError(
            f"{folder} has the class folder {unknown[0]}: those of CIFAR-10 are called {', '.join(CIFAR10_CLASSES)}, "
            "or 0 to 9"
        )
    pairs = [(np.asarray(image.convert("RGB")), numbers[found.classes[label]]) for image, label in found]
    images, labels = zip(*pairs, strict=True)
    return _stack(list(images), labels)


def _from_torchvision(folder: Path, train: bool, download: bool) -> tuple[Tensor, Tensor]:
    from torchvision.datasets import CIFAR10

    dataset = CIFAR10(str(folder), train=train, download=download)
    return _stack(dataset.data, dataset.targets)


def normalise(images: Tensor) -> Tensor:
    """uint8 or [0, 1] images `(N, 3, H, W)` to float32 with zero mean and unit deviation per channel over CIFAR-10."""
    values = images.float() / 255 if images.dtype == torch.uint8 else images
    mean, std = (torch.tensor(numbers, device=images.device).view(3, 1, 1) for numbers in (MEAN, STD))
    return (values - mean) / std
