"""Real images in the forms that people have them, as one tensor in [0, 1]."""

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from .data import ImageSet

Reals: TypeAlias = ImageSet | DataLoader[Any] | tuple[Any, Any] | Tensor | np.ndarray[Any, Any] | Sequence[Any]


def images_and_labels(real: Reals, image_shape: Sequence[int] | None = None) -> tuple[Tensor, Tensor | None]:
    """Images `(M, C, H, W)` in [0, 1], and labels `(M,)` if there are any.

    Args:
        real: images in [0, 1], or whole numbers in 0 to 255 (uint8), as a tensor or array `(M, C, H, W)`,
            `(M, H, W, C)` or `(M, H, W)`; with labels as a pair of these; an `ImageSet`; a data set of pairs as
            torchvision has them, of PIL pictures or of tensors; a `DataLoader` over one.
        image_shape: (C, H, W) that they must have.

    Raises:
        ValueError: another shape, values outside [0, 1], NaN, or no images at all.
        TypeError: none of these forms.
    """
    if isinstance(real, ImageSet):
        images, labels = real.images, real.labels
    elif isinstance(real, (Tensor, np.ndarray)):
        images, labels = _tensor(real), None
    elif isinstance(real, tuple) and len(real) == 2 and hasattr(real[0], "shape") and np.ndim(real[0]) > 2:
        images, labels = _tensor(real[0]), torch.as_tensor(real[1])
    elif isinstance(real, DataLoader):
        images, labels = _joined(real)
    elif hasattr(real, "__len__") and hasattr(real, "__getitem__"):
        images, labels = _joined(_batch_of_one(real[index]) for index in range(len(real)))
    else:
        raise TypeError(
            f"real images as {type(real).__name__}: give a tensor, (images, labels), a data set or a loader"
        )
    images = _scaled(images)
    if labels is not None and len(labels) != len(images):
        raise ValueError(f"{len(images)} real images with {len(labels)} labels: give one for each")
    if image_shape is not None and tuple(images.shape[1:]) != tuple(image_shape):
        raise ValueError(
            f"real images are {tuple(images.shape[1:])}, those that were made {tuple(image_shape)}: resize them"
        )
    return images, labels


def _scaled(images: Tensor) -> Tensor:
    """Images `(M, C, H, W)` as floats in [0, 1].

    Raises:
        ValueError: they are in another range.
    """
    if images.ndim != 4 or not len(images):
        raise ValueError(f"real images have shape {tuple(images.shape)}: they are (M, C, H, W), with M above 0")
    if images.dtype == torch.uint8:
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
    """`(M, C, H, W)` of a tensor or an array, whose channels may come last or be left out."""
    found = torch.as_tensor(images)
    if found.ndim == 3:
        return found.unsqueeze(1)
    if found.ndim == 4 and found.shape[3] in (1, 3) and found.shape[1] not in (1, 3):
        return found.permute(0, 3, 1, 2)
    return found


def _batch_of_one(example: Any) -> tuple[Any, Any]:
    """One example of a data set, an image or a pair, as a batch; a PIL picture becomes a tensor."""
    from torchvision.transforms.functional import pil_to_tensor

    image, label = example if isinstance(example, (tuple, list)) else (example, None)
    if not isinstance(image, (Tensor, np.ndarray)):
        image = pil_to_tensor(image)
    return torch.as_tensor(image).unsqueeze(0), None if label is None else torch.as_tensor(label).reshape(1)


def _joined(batches: Iterable[Any]) -> tuple[Tensor, Tensor | None]:
    """Batches of images, or of images and labels, in one."""
    images: list[Tensor] = []
    labels: list[Tensor] = []
    for batch in batches:
        some, classes = (batch[0], batch[1]) if isinstance(batch, (tuple, list)) else (batch, None)
        if images and _tensor(some).shape[1:] != images[0].shape[1:]:
            raise ValueError(
                f"real images are of several sizes, {tuple(images[0].shape[1:])} and {tuple(_tensor(some).shape[1:])}"
            )
        images.append(_tensor(some))
        if classes is not None:
            labels.append(torch.as_tensor(classes))
    if not images:
        raise ValueError("there are no real images")
    return torch.cat(images), torch.cat(labels) if labels else None
