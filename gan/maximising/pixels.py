"""Activation maximisation in pixel space: the baseline without a generator (Erhan et al. 2009, Yosinski et al. 2015).

    x* = argmax_x E_s f(shift_s(x)),        x in [0, 1]

Ascent on pixels; a gradient may be taken at a randomly shifted image (jitter), and after each step decay pulls towards
the background and total variation is reduced,

    x <- x - share [decay x + variation grad TV(x)],        TV(x) = sum |x_i+1,j - x_i,j| + |x_i,j+1 - x_i,j|.

Scores and probabilities are those of the unshifted images.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .activations import Activations, Transform, layer_in, placed
from .batching import rows_of_block
from .maximizer import ActivationMaximizer, check_shape, positive, random_codes
from .targets import Units


class PixelAM(ActivationMaximizer):
    """Finds pixels that activate a unit most; the interface is that of `CodeSpaceAM`, with images as codes.

    >>> import torch
    >>> from torch import nn
    >>> from gan import PixelAM
    >>> network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)).eval()
    >>> PixelAM(network, (1, 8, 8)).maximize(target=2, runs=3, steps=5, stop_at=None).images.shape
    torch.Size([3, 1, 8, 8])
    """

    def __init__(
        self,
        classifier: nn.Module | Callable[[Tensor], Any],
        image_shape: tuple[int, int, int],
        layer: nn.Module | str | None = None,
        transform: Transform | None = None,
        *,
        head: str | None = None,
        learning_rate: float = 0.06,
        decay: float = 0.005,
        variation: float = 0.002,
        jitter: int = 0,
        contrast: float = 0.1,
        device: str | torch.device | None = None,
        exact: bool = True,
    ) -> None:
        """
        Args:
            classifier: any module that takes images; parameters, modes and buffers are left as they are.
            image_shape: (C, H, W) of the images.
            layer: a module of the classifier, or its name, whose units are maximised; None for the output.
            transform: from images in [0, 1] to the classifier's input (a normalisation).
            head: the kind of the classifier's output, see `CodeSpaceAM`.
            learning_rate: the root mean square of the first step; pixels lie in [0, 1].
            decay: share by which pixels fall per step.
            variation: step of a pixel towards each of its four neighbours, per step of the ascent.
            jitter: largest shift of the images in pixels, around the edges; 0 for none.
            contrast: standard deviation of the first noise, around 0.5.
            device: of the computation, see `CodeSpaceAM`.
            exact: a run in a batch is, bit for bit, the single run with its seed. False saves time where there are few
                runs: see `CodeSpaceAM`.

        Raises:
            ValueError: the images do not fit the classifier, there is no such layer, or a number is out of range.
        """
        numbers = {"decay": decay, "variation": variation, "jitter": jitter, "contrast": contrast}
        for name, number in numbers.items():
            if not 0 <= number < math.inf:
                raise ValueError(f"{name}={number}: it must not be negative, and finite")
        check_shape("image_shape", image_shape, ("channels", "height", "width"))
        self.classifier = placed(classifier, device)
        self.networks = (self.classifier,)
        self.code_shape = self.image_shape = tuple(image_shape)
        self.learning_rate = positive("learning_rate", learning_rate)
        self.decay, self.variation, self.jitter, self.contrast = decay, variation, jitter, contrast
        self.rows = rows_of_block(image_shape, self.like.device)
        self.exact = exact
        example = self.like.new_full((1, *image_shape), 0.5)
        own = layer_in(self.classifier, classifier, layer)
        self.activations = Activations(self.classifier, own, transform, example, head)
        self.settle_rows()

    def start(self, units: Units, randoms: list[torch.Generator], clear: Tensor) -> tuple[Tensor, Tensor]:
        noise = random_codes(self.code_shape, randoms, self.like)
        return (0.5 + self.contrast * noise).clamp(0, 1), torch.ones(len(randoms), dtype=torch.int64, device="cpu")

    def render(self, codes: Tensor) -> Tensor:
        return codes

    def objective(
        self, value: Tensor, images: Tensor, randoms: list[torch.Generator], score: Callable[[Tensor], Tensor]
    ) -> Tensor:
        if self.jitter == 0:
            return value
        limits = (-self.jitter, self.jitter + 1)
        shifts = [torch.randint(*limits, (2,), generator=random, device="cpu").tolist() for random in randoms]
        shifted = [image.roll(shift, dims=(1, 2)) for image, shift in zip(images, shifts, strict=True)]
        return score(torch.stack(shifted))

    def move(self, codes: Tensor, share: Tensor | float, randoms: list[torch.Generator]) -> Tensor:
        steps = [codes.diff(dim=dimension).sign() for dimension in (2, 3)]
        # The derivative of the sum of |differences|: each pixel gets the signs of the differences it is in.
        slope = -F.pad(steps[0], (0, 0, 0, 1)) + F.pad(steps[0], (0, 0, 1, 0))
        slope = slope - F.pad(steps[1], (0, 1)) + F.pad(steps[1], (1, 0))
        return (codes * (1 - share * self.decay) - share * self.variation * slope).clamp(0, 1)
