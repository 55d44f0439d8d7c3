"""Images in [0, 1] of the codes of any generator.

A generator takes codes `(N, d)`, `(N, d, 1, 1)` as in PyTorch's DCGAN tutorial, or maps `(N, C, H, W)`; it returns
pixels in [0, 1], in [-1, 1] (a tanh) or in [0, 255]. The shape is found by trial, the range by measurement.
"""

import itertools
import math
import operator
import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from plugin.seeds import normal, random_generator

from .activations import TYPES, as_module, evaluating, name_of, tensor_of
from .held_noise import Held
from .separate_rows import ONE_BY_ONE, UNFIT, reason_of, refuse_mixed_rows, takes_one

Range = tuple[float, float]
UNIT: Range = (0.0, 1.0)

# Number of random codes whose images measure the range, and the tolerance beyond it.
_CODES, _SLACK = 16, 0.01
# Tolerance beyond a range given by the caller, as a share of it: small excesses are usual without a tanh.
CLIPPED = 0.25


class Generated:
    """Draws images by a generator, which stays unchanged.

    Args:
        generator: a module or a function.
        code_size: length or shape of a code.
        image_range: the generator's black and white; None measures them.
        like: a tensor of the codes' type and on their device.
        own_size: the generator's attribute `code_size`, taken if the argument is None.

    Attributes:
        generator: as a module.
        code_shape: of one code.
        image_shape: (C, H, W).
        image_range: the values that become 0 and 1; None where images are used as they are.
        held: the context of its forward passes.

    Raises:
        ValueError: the length of codes is unknown or does not fit, or the outputs are no images.

    Warns:
        UserWarning: the images lie in another range than [0, 1] and none is given.
    """

    def __init__(
        self,
        generator: nn.Module | Callable[[Tensor], Tensor],
        code_size: int | tuple[int, ...] | None,
        image_range: Range | None,
        like: Tensor,
        own_size: object = None,
    ) -> None:
        self.generator = as_module(generator)
        self.name = name_of(self.generator)
        self.held = Held(like.device)
        types = [value.dtype for value in self.generator.parameters() if value.is_floating_point()]
        # A function does not declare its number type.
        self._like, self._types = like, types[:1] or [like.dtype, *(kind for kind in TYPES if kind != like.dtype)]
        self._type = self._types[0]
        sizes = _sizes(code_size if code_size is not None else own_size, self.name)
        with self.held.watching(self.generator, self.name):
            self.code_shape, self.example = self._try(sizes)
        self._refuse_mixed_rows()
        self.image_shape = tuple(self.example.shape[1:])
        self.image_range: Range | None = UNIT
        if image_range is not None:
            self.image_range = _checked_range(image_range)
            self._warn_of_clipping(*self.image_range)
        else:
            self.image_range = self._measure()
        self.example = self._scaled(self.example)

    def __call__(self, codes: Tensor) -> Tensor:
        """Images `(n, C, H, W)` of codes `(n, *code_shape)`, with their graph."""
        return self._scaled(self._draw(codes))

    def _draw(self, codes: Tensor) -> Tensor:
        with self.held:
            images: Tensor = tensor_of(self.generator(codes.to(self._type)))
        return images

    def _scaled(self, images: Tensor) -> Tensor:
        if self.image_range is None:
            return images
        low, high = self.image_range
        # Pixels beyond black and white are clipped, as in a file.
        return (images if self.image_range == UNIT else (images - low) / (high - low)).clamp(0, 1)

    def _try(self, shapes: list[tuple[int, ...]]) -> tuple[tuple[int, ...], Tensor]:
        """The first shape of codes that the generator takes, and the image `(1, C, H, W)` of the code 0.

        Their number type is found as well.
        """
        problem: Exception | None = None
        for kind, shape in itertools.product(self._types, shapes):
            self._type = kind
            with evaluating(self.generator), torch.no_grad():
                try:
                    # Two codes reveal a generator that drops or mixes rows.
                    images = self._draw(self._like.new_zeros(2, *shape))
                except UNFIT as error:
                    problem = problem or error
                    if takes_one(lambda: self._draw(self._like.new_zeros(1, *shape))):  # noqa: B023 - called at once
                        raise ValueError(
                            f"the {self.name} takes one code at a time ({reason_of(error)}): {ONE_BY_ONE}"
                        ) from error
                    continue
            if not isinstance(images, Tensor) or images.ndim != 4 or len(images) != 2:
                found = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
                raise ValueError(
                    f"the {self.name} makes {found} of two codes: images are (2, C, H, W); pass a function of codes "
                    "(N, ...) that returns them"
                )
            return shape, images[:1]
        remedy = "pass code_size=, the length of its codes, or their shape"
        if isinstance(problem, TypeError):  # it has more arguments, such as a class
            remedy = "pass a function of codes alone, such as lambda codes: generator(codes, label)"
        assert problem is not None
        raise ValueError(
            f"the {self.name} does not take codes {(2, *shapes[0])} ({reason_of(problem)}): {remedy}"
        ) from problem

    def _refuse_mixed_rows(self) -> None:
        codes = normal(random_generator(0), 2, *self.code_shape).to(self._like)
        with evaluating(self.generator):
            refuse_mixed_rows(self._draw, codes, f"the image that the {self.name} makes")

    def _warn_of_clipping(self, low: float, high: float) -> None:
        """Warn of images far beyond the black and white that the caller gave."""
        least, most = self._extremes()
        slack = CLIPPED * (high - low)
        if least < low - slack or most > high + slack:
            warnings.warn(
                f"the {self.name}'s images lie in [{least:.3g}, {most:.3g}], and image_range=({low:g}, {high:g}) clips "
                "them: give its black and white, or leave it out to have them measured",
                stacklevel=4,
            )

    def _extremes(self) -> tuple[float, float]:
        """The darkest and the brightest pixel of the images of random codes."""
        random = random_generator(0)
        codes = normal(random, _CODES, *self.code_shape).to(self._like)
        with evaluating(self.generator), torch.no_grad():
            images = torch.cat([self._draw(code) for code in codes.split(1)])
        if not bool(images.isfinite().all()):
            raise ValueError(f"the {self.name} makes images with NaN or infinite pixels of random codes")
        return float(images.min()), float(images.max())

    def _measure(self) -> Range | None:
        """The range of the images of random codes; a warning names any other than [0, 1]."""
        low, high = self._extremes()
        if low >= -_SLACK and high <= 1 + _SLACK:
            return UNIT
        found: Range | None = None
        if low < -0.5 and high <= 1 + _SLACK and low >= -1 - _SLACK:
            found = (-1.0, 1.0)
        elif low >= -_SLACK and 2 < high <= 255.5:
            found = (0.0, 255.0)
        taken = "used as they are" if found is None else f"taken as [{found[0]:g}, {found[1]:g}] and mapped to [0, 1]"
        warnings.warn(
            f"the {self.name}'s images lie in [{low:.3g}, {high:.3g}] and are {taken}: pass image_range=, the values "
            "of black and white; a transform= gets images in [0, 1]",
            stacklevel=4,
        )
        return found


def _checked_range(image_range: Range) -> Range:
    """
    Raises:
        ValueError: it is not two finite numbers, the smaller one first.
    """
    try:
        low, high = map(float, image_range)
    except (TypeError, ValueError):
        low = high = math.nan
    if not -math.inf < low < high < math.inf:
        raise ValueError(f"image_range={image_range}: give the generator's black and white, such as (-1, 1)")
    return low, high


def _sizes(size: object, name: str) -> list[tuple[int, ...]]:
    """The shapes of a code to try."""
    if size is None:
        raise ValueError(f"the {name} does not say how long its codes are: pass code_size=")
    try:
        numbers = tuple(map(operator.index, size if isinstance(size, Sequence) else (size,)))
    except TypeError:
        numbers = ()
    if not numbers or min(numbers) < 1:
        raise ValueError(f"code_size={size!r} of the {name}: give the length of its codes, or their shape")
    return [numbers, (*numbers, 1, 1)] if len(numbers) == 1 else [numbers]
