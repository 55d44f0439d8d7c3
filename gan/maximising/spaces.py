"""Parametrisations of images, in which an ascent makes other pictures than in pixels.

    pixels     x = sigmoid(C^(1/2) p)
    fourier    x = sigmoid(C^(1/2) F^-1(s a)),          a(f) = 1 / |f|            (Olah, Mordvintsev and Schubert 2017)
    maco       x = sigmoid(C^(1/2) F^-1(m e^(i phase)))                            (Fel et al. 2023)

F is the two-dimensional Fourier transform and C the covariance of the colours of photographs: steps that are equal in
all frequencies and in uncorrelated colours are large where photographs vary much. MACO holds the magnitudes m at those
of photographs and changes phases only, so no frequency can be exaggerated.
"""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from ..reals import images_and_labels

Shape = tuple[int, int, int]

# Square root of the covariance of ImageNet's colours, over the largest length of its columns: rows are red, green and
# blue, columns uncorrelated colours, of which the first is brightness (Olah et al. 2017).
_COLOURS = ((0.26, 0.09, 0.02), (0.27, 0.00, -0.05), (0.27, -0.09, 0.03))
# Standard deviation of the first codes, and divisor of a Fourier image, as in Lucid.
_FIRST, _FOURIER_SCALE = 0.01, 4.0
# Photographs' magnitudes fall like this power of the frequency: 1.1 to 1.4 in the three colours of 80 of ImageNet's.
_FALL = 1.2
# Smaller differences of pixels before the sigmoid are rounding: one of 255 levels of grey is 0.016 or more.
_VISIBLE = 1e-3


class Space(Protocol):
    """Codes of images.

    Attributes:
        code_shape: of one code.
        learning_rate: a suitable length of Adam's steps.
    """

    code_shape: tuple[int, ...]
    learning_rate: float

    def start(self, noise: Tensor) -> Tensor:
        """First codes `(n, *code_shape)` from standard normal noise in the same shape."""

    def render(self, codes: Tensor) -> Tensor:
        """Images `(n, C, H, W)` in [0, 1] of codes, with their graph."""


class Pixels:
    """The image itself, in uncorrelated colours and before the sigmoid."""

    learning_rate = 0.05

    def __init__(self, image_shape: Shape) -> None:
        self.code_shape: tuple[int, ...] = image_shape

    def start(self, noise: Tensor) -> Tensor:
        return _FIRST * noise

    def render(self, codes: Tensor) -> Tensor:
        return correlated(codes).sigmoid()


class Fourier:
    """Fourier coefficients, real and imaginary part, in units of 1 / frequency."""

    learning_rate = 0.05

    @torch.inference_mode(False)  # its tensors are used with a graph later
    def __init__(self, image_shape: Shape) -> None:
        channels, height, width = image_shape
        self.image_shape = image_shape
        self.code_shape: tuple[int, ...] = (channels, height, width // 2 + 1, 2)
        self.scale = 1 / frequencies(height, width)

    def start(self, noise: Tensor) -> Tensor:
        return _FIRST * noise

    def render(self, codes: Tensor) -> Tensor:
        spectrum = torch.view_as_complex(codes.contiguous()) * self.scale.to(codes)
        images = torch.fft.irfft2(spectrum, s=self.image_shape[1:], norm="ortho")
        return correlated(images / _FOURIER_SCALE).sigmoid()


class Maco:
    """Phases of the Fourier coefficients, whose magnitudes are those of photographs.

    Args:
        image_shape: (C, H, W).
        photographs: `(N, C, H, W)` in [0, 1], whose mean magnitudes are held; None for the law 1 / frequency^1.2.

    Raises:
        ValueError: images have one pixel, or photographs do not fit or show nothing (`mean_magnitude`).
    """

    # In radians of the phases.
    learning_rate = 0.1

    @torch.inference_mode(False)  # its tensors are used with a graph later
    def __init__(self, image_shape: Shape, photographs: Tensor | None = None) -> None:
        channels, height, width = image_shape
        if height * width == 1:
            raise ValueError(f"MACO has no phases to choose in images {image_shape} of one pixel: use another space")
        self.image_shape = image_shape
        self.code_shape: tuple[int, ...] = (channels, height, width // 2 + 1)
        if photographs is None:
            self.magnitude = (1 / frequencies(height, width) ** _FALL).expand(self.code_shape).clone()
            self.magnitude[:, 0, 0] = 0
        else:
            self.magnitude = mean_magnitude(photographs, image_shape)

    def start(self, noise: Tensor) -> Tensor:
        return noise

    def render(self, codes: Tensor) -> Tensor:
        phases = _standardised(codes)
        images = torch.fft.irfft2(
            torch.polar(self.magnitude.to(codes).expand_as(phases), phases), s=self.image_shape[1:]
        )
        return correlated(_standardised(images)).sigmoid()


SPACES: dict[str, Callable[[Shape], Space]] = {"fourier": Fourier, "maco": Maco, "pixels": Pixels}


def space_of(space: str | Space, image_shape: Shape) -> Space:
    """A space by name, or as given.

    Raises:
        ValueError: there is no such space.
    """
    if not isinstance(space, str):
        return space
    if space not in SPACES:
        raise ValueError(f"unknown space {space!r}: choose one of {', '.join(SPACES)}, or pass a Space")
    return SPACES[space](image_shape)


def frequencies(height: int, width: int) -> Tensor:
    """|f| in cycles per pixel of the coefficients of `rfft2` `(height, width // 2 + 1)`, at least 1 / longer side."""
    rows, columns = torch.fft.fftfreq(height, device="cpu").unsqueeze(1), torch.fft.rfftfreq(width, device="cpu")
    lengths: Tensor = (rows.square() + columns.square()).sqrt()
    return lengths.clamp(min=1 / max(height, width))


def mean_magnitude(photographs: Tensor, image_shape: Shape) -> Tensor:
    """The mean magnitude of the Fourier coefficients of photographs `(C, H, W // 2 + 1)`, 0 at frequency 0.

    Args:
        photographs: `(N, C, H', W')` in [0, 1] or uint8, or in another form that `gan.scorecard` takes.
        image_shape: (C, H, W), to which they are scaled.

    Raises:
        ValueError: the photographs have other channels, another range or one colour each, or there are none.
    """
    pictures = images_and_labels(photographs)[0]
    if pictures.shape[1] != image_shape[0]:
        raise ValueError(f"photographs {tuple(pictures.shape)} do not fit images {image_shape}")
    resized = torch.nn.functional.interpolate(pictures.float(), image_shape[1:], mode="bilinear", antialias=True)
    colours = uncorrelated(resized.clamp(0.02, 0.98).logit())
    if bool((colours.amax(dim=(2, 3)) - colours.amin(dim=(2, 3)) < _VISIBLE).all()):
        raise ValueError(
            f"each of the {len(pictures)} photographs has a single colour, and so no frequency to hold: give "
            "photographs that show something, or none"
        )
    magnitude: Tensor = torch.fft.rfft2(colours).abs().mean(dim=0)
    magnitude[:, 0, 0] = 0
    return magnitude


def correlated(images: Tensor) -> Tensor:
    """Uncorrelated colours `(n, C, H, W)` as red, green and blue; images of other channels unchanged."""
    return images if images.shape[1] != 3 else torch.einsum("rc,nchw->nrhw", _colours().to(images), images)


def uncorrelated(images: Tensor) -> Tensor:
    """The inverse of `correlated`."""
    return images if images.shape[1] != 3 else torch.einsum("cr,nrhw->nchw", _colours().inverse().to(images), images)


def _colours() -> Tensor:
    colours = torch.tensor(_COLOURS, device="cpu")
    largest: Tensor = colours.norm(dim=0).max()
    return colours / largest


def _standardised(values: Tensor) -> Tensor:
    """Each row with mean 0 and deviation 1."""
    dimensions = tuple(range(1, values.ndim))
    centred = values - values.mean(dim=dimensions, keepdim=True)
    return centred / (centred.square().mean(dim=dimensions, keepdim=True).sqrt() + 1e-4)
