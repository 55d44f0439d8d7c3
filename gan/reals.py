"""Real images from tensors, arrays, data sets and loaders, as one tensor in [0, 1]."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from plugin.devices import as_tensor

from .data import ImageSet

Reals: TypeAlias = (
    ImageSet | DataLoader[Any] | IterableDataset[Any] | tuple[Any, Any] | Tensor | np.ndarray[Any, Any] | Sequence[Any]
)

# Keys of images and of labels in examples that are dictionaries, as in Hugging Face data sets.
_IMAGES, _LABELS = ("image", "images", "img", "pixel_values"), ("label", "labels", "target", "targets")


def images_and_labels(real: Reals, image_shape: Sequence[int] | None = None) -> tuple[Tensor, Tensor | None]:
    """Images `(M, C, H, W)` in [0, 1], and labels `(M,)` if there are any.

    Args:
        real: images in [0, 1], or in uint8, as a tensor or array `(M, C, H, W)`, `(M, H, W, C)` or `(M, H, W)`; a pair
            of such images and their labels; an `ImageSet`; a data set of pairs as in torchvision, or of dictionaries
            with "image" and "label", whose images are PIL pictures or tensors; a `DataLoader` over one. Labels are
            class numbers.
        image_shape: (C, H, W) that the images must have.

    Raises:
        ValueError: the images have another shape, values outside [0, 1] or NaN, or are integers whose largest is 1; the
            labels are no class numbers; or there are no images.
        TypeError: `real` has none of these forms.
    """
    with torch.random.fork_rng(devices=[]):  # a loader draws from the caller's random state
        images, labels = _read(real)
    images = _scaled(images)
    if labels is not None and len(labels) != len(images):
        raise ValueError(f"{len(images)} real images with {len(labels)} labels: give one for each")
    if image_shape is not None and tuple(images.shape[1:]) != tuple(image_shape):
        raise ValueError(
            f"real images are {tuple(images.shape[1:])}, those that were made {tuple(image_shape)}: give them "
            "the same size and channels"
        )
    return images, labels


def _read(real: Any) -> tuple[Tensor, Tensor | None]:
    if isinstance(real, ImageSet):
        return real.images, real.labels
    if isinstance(real, (Tensor, np.ndarray)):
        return _tensor(real), None
    if isinstance(real, tuple) and len(real) == 2 and hasattr(real[0], "shape") and np.ndim(real[0]) > 2:
        return _tensor(real[0]), _numbers(real[1])
    if isinstance(real, DataLoader):
        return _joined(map(_parts, real))
    if isinstance(real, IterableDataset):
        return _joined(map(_batch_of_one, real))
    if isinstance(real, (str, Path)):
        raise TypeError(f"real images as the path {real}: read the folder by gan.data.read(path, train=False)")
    if hasattr(real, "__len__") and hasattr(real, "__getitem__") and not isinstance(real, Mapping):
        return _joined(_batch_of_one(real[index]) for index in range(len(real)))
    raise TypeError(f"real images as {type(real).__name__}: give a tensor, (images, labels), a data set or a loader")


def _scaled(images: Tensor) -> Tensor:
    """Images `(M, C, H, W)` as floats in [0, 1].

    Raises:
        ValueError: they are in another range.
    """
    if images.ndim != 4 or not len(images):
        raise ValueError(f"real images have shape {tuple(images.shape)}: they are (M, C, H, W), with M above 0")
    if images.dtype == torch.uint8:
        if int(images.max()) == 1:
            raise ValueError(
                "real images are whole numbers of which the largest is 1: give them as floats, or times 255"
            )
        return images.float() / 255
    images = images.float() if images.dtype != torch.float64 else images
    low, high = float(images.min()), float(images.max())
    if not (low >= -1e-3 and high <= 1 + 1e-3):
        raise ValueError(
            f"real images have values from {low:.3g} to {high:.3g}: give them in [0, 1], without normalisation, "
            "or as uint8"
        )
    return images.clamp(0, 1)


def _tensor(images: Any) -> Tensor:
    """A tensor or an array as `(M, C, H, W)`; its channels may come last or be left out."""
    found = as_tensor(images)
    if found.ndim == 3:
        return found.unsqueeze(1)
    if found.ndim == 4 and found.shape[3] in (1, 3) and found.shape[1] not in (1, 3):
        return found.permute(0, 3, 1, 2)
    return found


def _numbers(labels: Any) -> Tensor:
    """Class numbers `(M,)`.

    Raises:
        ValueError: the labels are names, class probabilities, or fractions.
    """
    try:
        found = as_tensor(labels)
    except (TypeError, ValueError, RuntimeError) as error:
        first = next(iter(labels), labels) if isinstance(labels, (list, tuple)) else labels
        raise ValueError(f"real images have labels such as {first!r}: give the number of each one's class") from error
    if found.ndim == 2 and found.shape[1] == 1:
        found = found.squeeze(1)
    if found.ndim != 1:
        raise ValueError(
            f"real images have labels of shape {tuple(found.shape)}: give the number of each one's class, such as "
            "labels.argmax(1)"
        )
    if found.is_floating_point() and not bool((found == found.round()).all()):
        raise ValueError(f"real images have labels such as {float(found[0]):g}: give the number of each one's class")
    return found.long()


def _parts(example: Any) -> tuple[Any, Any]:
    """The image and the label, or None, of an example of a data set or a batch of a loader."""
    if isinstance(example, Mapping):
        image = next((example[name] for name in _IMAGES if name in example), None)
        if image is None:
            raise TypeError(
                f"real images come as dictionaries with {', '.join(map(str, example))}: name images {_IMAGES[0]!r}, "
                f"and the numbers of their classes {_LABELS[0]!r}"
            )
        return image, next((example[name] for name in _LABELS if name in example), None)
    if isinstance(example, (tuple, list)):  # entries after the label, such as a path, are ignored
        return example[0], example[1] if len(example) > 1 else None
    return example, None


def _batch_of_one(example: Any) -> tuple[Any, Any]:
    """One example of a data set as a batch; a PIL picture becomes a tensor."""
    from torchvision.transforms.functional import pil_to_tensor

    image, label = _parts(example)
    if not isinstance(image, (Tensor, np.ndarray)):
        if getattr(image, "mode", "") in ("P", "PA"):  # palette images: their pixels index colours
            image = image.convert("RGB")
        image = pil_to_tensor(image)
    return as_tensor(image).unsqueeze(0), None if label is None else [label]


def _joined(batches: Iterable[tuple[Any, Any]]) -> tuple[Tensor, Tensor | None]:
    """One batch of images and of labels, or None, from many."""
    images: list[Tensor] = []
    labels: list[Tensor] = []
    for some, classes in batches:
        if images and _tensor(some).shape[1:] != images[0].shape[1:]:
            raise ValueError(
                f"real images are of several sizes, {tuple(images[0].shape[1:])} and {tuple(_tensor(some).shape[1:])}"
            )
        images.append(_tensor(some))
        if classes is not None:
            labels.append(_numbers(classes))
    if not images:
        raise ValueError("there are no real images")
    return torch.cat(images), torch.cat(labels) if labels else None
