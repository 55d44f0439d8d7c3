"""Scikit-learn's bundled handwritten digits, as MNIST shows them: white on black, 28 x 28 pixels."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from plugin.extras import require


def digit(label: int) -> Image.Image:
    """The first digit of a label as an RGB image.

    Args:
        label: 0 to 9.

    Raises:
        MissingExtraError: scikit-learn is not installed.
    """
    data = _digits()
    return Image.fromarray(_at_mnist_size(data.images[int((data.target == label).argmax())])).convert("RGB")


def handwritten(count: int = 1797) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The first `count` digits `(N, 28, 28)`, and their labels `(N,)`; errors as `digit`."""
    data = _digits()
    pixels = np.stack([_at_mnist_size(values) for values in data.images[:count]])
    return pixels, data.target[:count].astype(np.int64)


def _digits() -> Any:
    return require("sklearn.datasets", extra="app", purpose="a handwritten digit").load_digits()


def _at_mnist_size(values: NDArray[np.float64]) -> NDArray[np.uint8]:
    """8 x 8 values from 0 to 16 as 28 x 28 grey levels."""
    grey = Image.fromarray((values * 15.9375).astype(np.uint8))
    sheet = Image.new("L", (28, 28))
    sheet.paste(grey.resize((22, 22), Image.Resampling.BICUBIC), (3, 3))
    return np.asarray(sheet)
