"""Two generative adversarial networks for small images: a perceptron (Goodfellow et al. 2014) and a DCGAN.

A generator maps codes `z ~ N(0, I)` of shape `(N, d)` to images `(N, C, H, W)` in [0, 1]; a discriminator maps images
in [0, 1] to logits `(N,)`, positive for real ones. Each pair is one module with `.generator` and `.discriminator`.
The DCGAN follows Radford, Metz and Chintala (2016), with the spread of features over the batch shown to the
discriminator (Karras et al. 2018), which keeps the generator from favouring a few kinds of images.
"""

import itertools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

ImageShape = tuple[int, int, int]


class Generator(nn.Module):
    """Codes `(N, code_size)` to images `(N, *image_shape)` in [0, 1]; `body` ends in pixel logits.

    With `classes`, the position of the largest of a code's first `classes` numbers is the class of its image.
    """

    def __init__(self, body: nn.Module, code_size: int, image_shape: ImageShape, classes: int = 0) -> None:
        super().__init__()
        self.body, self.code_size, self.image_shape, self.classes = body, code_size, image_shape, classes

    def forward(self, codes: Tensor) -> Tensor:
        return torch.sigmoid(self.body(codes).float())

    def labels(self, codes: Tensor) -> Tensor | None:
        """The class `(N,)` that each code asks for; None for a generator that knows no classes."""
        return codes[:, : self.classes].argmax(dim=1) if self.classes else None


class Discriminator(nn.Module):
    """Images `(N, C, H, W)` in [0, 1] to logits `(N,)`; `body` sees them in [low, high].

    With labels `(N,)` each logit is conditioned on the image's class. The last layer of `body` then has one output for
    any image and one for each class. Their sum is the projection discriminator of Miyato and Koyama (2018),

        D(x, y) = (v + e_y) . features(x).
    """

    def __init__(self, body: nn.Module, low: float = -1.0, high: float = 1.0) -> None:
        super().__init__()
        self.body, self.low, self.high = body, low, high

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        logits: Tensor = self.body(images * (self.high - self.low) + self.low)
        if labels is None:
            return logits[:, 0]
        return logits[:, 0] + logits[:, 1:].gather(1, labels.unsqueeze(1)).squeeze(1)


class BatchSpread(nn.Module):
    """Flattens features `(N, C, H, W)` to `(N, k + 1)`: the last column is their spread within groups of the batch.

    The spread is the standard deviation over a group, averaged over the k features; all rows of a group share it.
    """

    def __init__(self, group_size: int = 8) -> None:
        super().__init__()
        self.group_size = group_size

    def forward(self, features: Tensor) -> Tensor:
        flat = features.permute(0, 2, 3, 1).flatten(1)  # a view where channels are last in memory
        size = self.group_size if len(flat) % self.group_size == 0 else len(flat)
        groups = flat.float().view(size, -1, flat.shape[1])
        variance = (groups - groups.mean(dim=0)).square().mean(dim=0)
        spread = (variance + 1e-8).sqrt().mean(dim=1)
        return torch.cat([flat, spread.repeat(size).unsqueeze(1).to(flat.dtype)], dim=1)


class Branches(nn.Module):
    """A linear layer on the code, plus one of several learned offsets, chosen by the largest of its first coordinates.

    Images of several kinds lie on separate manifolds, while codes fill one connected space: a smooth generator has to
    draw intermediate images between any two kinds. A nearly discrete choice of an offset makes them rare:

        y = W z + E softmax(sharpness * z[:branches])

    For z ~ N(0, I) all offsets are equally frequent, for any learned weights. The layer assigns no kind to an offset.

    Args:
        code_size: length of a code.
        units: length of the output.
        branches: number of offsets, at most `code_size`; 1 makes it a plain linear layer.
        sharpness: factor of the coordinates; the larger, the closer to discrete is the choice.
    """

    def __init__(self, code_size: int, units: int, branches: int, sharpness: float = 20.0) -> None:
        super().__init__()
        self.branches, self.sharpness = min(branches, code_size), sharpness
        self.linear = nn.Linear(code_size, units, bias=False)
        self.offsets = nn.Parameter(torch.randn(self.branches, units))

    def chosen(self, codes: Tensor) -> Tensor:
        """The index of the offset chosen by each code `(N, d)`: `(N,)`."""
        return codes[:, : self.branches].argmax(dim=1)

    def forward(self, codes: Tensor) -> Tensor:
        choice = (self.sharpness * codes[:, : self.branches]).softmax(dim=1)
        units: Tensor = self.linear(codes) + choice @ self.offsets
        return units


def branch_of(generator: nn.Module) -> Callable[[Tensor], Tensor] | None:
    """A function from codes `(N, d)` to the generator's branches `(N,)` that draw them; None without branches.

    Args:
        generator: of a GAN of this package, or any other.

    >>> import torch
    >>> from gan import branch_of, load
    >>> branches = branch_of(load("dcgan-mnist").generator)
    >>> branches(torch.eye(100)[:3])
    tensor([0, 1, 2])
    """
    found = next((module for module in generator.modules() if isinstance(module, Branches)), None)
    return None if found is None or found.branches < 2 else found.chosen


class Smooth(nn.Module):
    """Each pixel of `(N, C, H, W)` averaged with its neighbours: (1 2 1) / 4 along rows and columns, edges repeated.

    A perceptron does not know which pixels are neighbours. This layer after its last linear layer tells it: each
    gradient of a pixel also reaches the neighbours, and speckles of single weights vanish.
    """

    def forward(self, images: Tensor) -> Tensor:
        rows = F.pad(images, (0, 0, 1, 1), mode="replicate")
        images = (rows[..., :-2, :] + 2 * rows[..., 1:-1, :] + rows[..., 2:, :]) / 4
        columns = F.pad(images, (1, 1, 0, 0), mode="replicate")
        return (columns[..., :-2] + 2 * columns[..., 1:-1] + columns[..., 2:]) / 4


def _check_code(code_size: int, classes: int) -> None:
    """
    Raises:
        ValueError: a code is empty, or has fewer numbers than there are classes.
    """
    if code_size < 1:
        raise ValueError(f"code_size={code_size}: a code has at least one number")
    if code_size < classes:
        raise ValueError(f"code_size={code_size}: {classes} classes are chosen by as many numbers of a code, give more")


class MLPGAN(nn.Module):
    """Perceptrons: code - hidden layers - pixels, and back from pixels to one logit.

    The discriminator sees images in [0, 3]. If most pixels are black, as in pictures of digits, most of its inputs are
    then 0, and it learns faster than with most inputs at -1.

    Args:
        image_shape: (C, H, W).
        code_size: length d of a code.
        hidden: units of the generator's layers; the discriminator has them in reverse.
        branches: number of branches of the first layer, see `Branches`.
        classes: number of classes, to condition both networks on them; the generator then has one branch per class,
            instead of `branches`.

    Raises:
        ValueError: a code is empty, or has fewer numbers than there are classes.

    >>> import torch
    >>> from gan import MLPGAN
    >>> MLPGAN((1, 28, 28), code_size=16).generator(torch.randn(2, 16)).shape
    torch.Size([2, 1, 28, 28])
    """

    def __init__(
        self,
        image_shape: ImageShape = (1, 28, 28),
        code_size: int = 64,
        hidden: tuple[int, ...] = (256, 512),
        branches: int = 32,
        classes: int = 0,
    ) -> None:
        super().__init__()
        _check_code(code_size, classes)
        channels, height, width = image_shape
        pixels = channels * height * width
        layers: list[nn.Module] = [Branches(code_size, hidden[0], classes or branches)]
        for inputs, units in itertools.pairwise(hidden):
            layers += [nn.BatchNorm1d(inputs), nn.LeakyReLU(0.2), nn.Linear(inputs, units, bias=False)]
        layers += [nn.BatchNorm1d(hidden[-1]), nn.LeakyReLU(0.2), nn.Linear(hidden[-1], pixels)]
        layers += [nn.Unflatten(1, image_shape), Smooth()]
        self.generator = Generator(nn.Sequential(*layers), code_size, image_shape, classes)

        layers = [nn.Flatten()]
        backwards = tuple(reversed(hidden))
        for inputs, units in zip((pixels, *backwards), backwards, strict=False):
            layers += [nn.Linear(inputs, units), nn.LeakyReLU(0.2)]
        self.discriminator = Discriminator(
            nn.Sequential(*layers, nn.Linear(backwards[-1], 1 + classes)), low=0.0, high=3.0
        )


class DCGAN(nn.Module):
    """Transposed convolutions from a quarter of the side to the image, and strided convolutions back.

    Args:
        image_shape: (C, side, side), side a multiple of 4 from 8 (28 and 32 are the usual ones).
        code_size: length d of a code.
        width: channels of the generator's widest maps; the discriminator's widest are four times as many.
        branches: number of branches of the first layer, see `Branches`.
        classes: number of classes, to condition both networks on them; the generator then has one branch per class,
            instead of `branches`.
        detail: channels of the generator's maps at full size; default a quarter of `width`.

    Raises:
        ValueError: the layers cannot make the shape, or a code is empty or has fewer numbers than there are classes.

    >>> import torch
    >>> from gan import DCGAN
    >>> DCGAN((3, 32, 32), code_size=16, width=8).generator(torch.randn(2, 16)).shape
    torch.Size([2, 3, 32, 32])
    """

    def __init__(
        self,
        image_shape: ImageShape = (1, 28, 28),
        code_size: int = 64,
        width: int = 64,
        branches: int = 32,
        classes: int = 0,
        detail: int | None = None,
    ) -> None:
        super().__init__()
        _check_code(code_size, classes)
        channels, side, other = image_shape
        detail = width // 4 if detail is None else detail
        if side != other or side % 4 or side < 8:
            raise ValueError(
                f"a DCGAN makes square images whose side is a multiple of 4 from 8, not {side} x {other}: "
                "resize the images (size=28 or size=32)"
            )
        base = side // 4
        self.generator = Generator(
            nn.Sequential(
                Branches(code_size, 2 * width, classes or branches),
                nn.BatchNorm1d(2 * width),
                nn.LeakyReLU(0.2),
                nn.Linear(2 * width, width * base * base, bias=False),
                nn.BatchNorm1d(width * base * base),
                nn.ReLU(),
                nn.Unflatten(1, (width, base, base)),
                nn.ConvTranspose2d(width, width, 4, 2, 1, bias=False),
                nn.BatchNorm2d(width),
                nn.ReLU(),
                nn.ConvTranspose2d(width, detail, 4, 2, 1, bias=False),
                nn.BatchNorm2d(detail),
                nn.ReLU(),
                nn.Conv2d(detail, channels, 3, 1, 1),
            ),
            code_size,
            image_shape,
            classes,
        )
        self.discriminator = Discriminator(
            nn.Sequential(
                nn.Conv2d(channels, width, 4, 2, 1),
                nn.LeakyReLU(0.2),
                nn.Conv2d(width, 2 * width, 4, 2, 1),
                nn.LeakyReLU(0.2),
                nn.Conv2d(2 * width, 4 * width, 3, 2, 1),
                nn.LeakyReLU(0.2),
                BatchSpread(),
                nn.Linear(4 * width * math.ceil(base / 2) ** 2 + 1, 1 + classes),
            )
        )


NETWORKS: dict[str, Callable[..., Any]] = {"mlp": MLPGAN, "dcgan": DCGAN}
