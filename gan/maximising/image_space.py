"""Activation maximisation of natural images: no generator, but a space in which steps look like photographs.

    s* = argmax_s E_t f(t(x(s)))

x(s) is an image written in a space (`gan.maximising.spaces`), t a random view of it (`gan.maximising.views`). The loop
is that of `CodeSpaceAM`, with Adam's steps: a single step cannot be judged by a value that depends on the view.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .activations import Activations, Transform, layer_in, placed
from .batching import rows_of_large
from .climbing import AdamClimb
from .maximizer import ActivationMaximizer, check_shape, positive, random_codes
from .spaces import Maco, Shape, Space, space_of
from .targets import Units
from .views import LUCID, MACO, WIDE, Views

_LARGE = 128  # least side, in pixels, of an image whose half is still legible


class ImageSpaceAM(ActivationMaximizer):
    """Finds images that activate a unit most in Fourier space, in MACO's phases, or in pixels under random views.

    >>> from torch import nn
    >>> from gan import ImageSpaceAM
    >>> layers = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)
    >>> network = nn.Sequential(*layers).eval()
    >>> ImageSpaceAM(network, (3, 16, 16), space="fourier").maximize(target=[1, 4], steps=3).images.shape
    torch.Size([2, 3, 16, 16])
    """

    noisy = True
    transforms = True
    climb = AdamClimb
    patience = 100  # Adam's steps from grey are short
    stop_at = None

    def __init__(
        self,
        classifier: nn.Module | Callable[[Tensor], Any],
        image_shape: Shape,
        layer: nn.Module | str | None = None,
        transform: Transform | None = None,
        *,
        space: str | Space = "fourier",
        views: Views | None = None,
        input_size: tuple[int, int] | None = None,
        head: str | None = None,
        learning_rate: float | None = None,
        device: str | torch.device | None = None,
        exact: bool = True,
    ) -> None:
        """
        Args:
            classifier: any module or function that takes images; parameters, modes and buffers are left as they are.
            image_shape: (C, H, W) of the images.
            layer: a module of the classifier, or its name, whose units are maximised; None for the output.
            transform: from images in [0, 1] to the classifier's input (a normalisation).
            space: "fourier", "maco", "pixels", or a `Space` such as `Maco(image_shape, photographs)`.
            views: random views of the images; by default `views.WIDE`, Lucid's below 128 pixels, crops for MACO.
            input_size: (height, width) of the classifier's input; by default that of the images.
            head: the kind of the classifier's output, see `CodeSpaceAM`.
            learning_rate: of Adam; by default the space's.
            device: of the computation, see `CodeSpaceAM`.
            exact: a run in a batch is, bit for bit, the single run with its seed. False saves time where there are few
                runs: on a GPU a single run then does not cost as much as eight.

        Raises:
            ValueError: the images do not fit the classifier, there is no such layer or space, or a number is out of
                range.
        """
        check_shape("image_shape", image_shape, ("channels", "height", "width"))
        if input_size is not None:
            check_shape("input_size", input_size, ("height", "width"))
        self.classifier, self.space = placed(classifier, device), space_of(space, image_shape)
        self.networks = (self.classifier,)
        self.image_shape, self.code_shape = tuple(image_shape), self.space.code_shape
        self.input_size, self.transform = input_size or (image_shape[1], image_shape[2]), transform
        self.views = views if views is not None else views_of(self.space, self.image_shape)
        own_rate = self.space.learning_rate if learning_rate is None else learning_rate
        self.learning_rate = positive("learning_rate", own_rate)
        self.rows = rows_of_large(self.like.device)
        self.exact = exact
        self._refuse_other_space()
        example = self.like.new_full((1, *image_shape), 0.5)
        own = layer_in(self.classifier, classifier, layer)
        self.activations = Activations(self.classifier, own, self._to_input, example, head)

    def _refuse_other_space(self) -> None:
        """
        Raises:
            ValueError: a space was made for images of another shape.
        """
        with torch.no_grad():
            made = self.render(self.space.start(self.like.new_zeros(1, *self.code_shape)))
        if tuple(made.shape[1:]) != self.image_shape:
            raise ValueError(
                f"the space makes images {tuple(made.shape[1:])}, and image_shape is {self.image_shape}: give both the "
                "same, and input_size= for the classifier's"
            )

    def start(self, units: Units, randoms: list[torch.Generator], clear: Tensor) -> tuple[Tensor, Tensor]:
        noise = random_codes(self.code_shape, randoms, self.like)
        return self.space.start(noise), torch.ones(len(randoms), dtype=torch.int64, device="cpu")

    def render(self, codes: Tensor) -> Tensor:
        return self.space.render(codes)

    def objective(
        self, value: Tensor, images: Tensor, randoms: list[torch.Generator], score: Callable[[Tensor], Tensor]
    ) -> Tensor:
        count = self.views.count
        values = [score(self.views.of(images, randoms, self.input_size)) for _ in range(count)]
        return torch.stack(values).mean(dim=0)

    def move(self, codes: Tensor, share: Tensor, randoms: list[torch.Generator]) -> Tensor:
        return codes

    def _to_input(self, images: Tensor) -> Tensor:
        """The classifier's input of whole images, or of views, which have its size."""
        if tuple(images.shape[2:]) != self.input_size:
            images = F.interpolate(images, self.input_size, mode="bilinear", antialias=True)
        return images if self.transform is None else self.transform(images)


def views_of(space: Space, image_shape: tuple[int, ...]) -> Views:
    """The default views of a space's images: half of a small image does not show its class."""
    if isinstance(space, Maco):
        return MACO
    return WIDE if min(image_shape[1:]) >= _LARGE else LUCID
