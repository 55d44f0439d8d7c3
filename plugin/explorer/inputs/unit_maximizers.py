"""The search for images that excite a unit most: in the codes of a shipped generator, or in a space of images."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from torch import Tensor, nn

from plugin.observing import ModuleTrace

from .offered_networks import CIFAR10, DIGITS, family
from .subject import Subject

if TYPE_CHECKING:  # gan brings its own dependencies along, which other pages need not wait for
    from gan import CodeSpaceAM, ImageSpaceAM, PixelAM

# `gan`'s spaces of images, which need no generator, with their labels. The first suits any network best.
SPACES = {"fourier": "Fourier", "maco": "MACO", "pixels": "Pixels"}
# The shipped generators, with their labels, by the family of the networks that classify their images. The first suits
# it best.
_GENERATORS = {DIGITS: {"dcgan-mnist": "DCGAN", "gan-mnist": "GAN"}, CIFAR10: {"dcgan-cifar10": "DCGAN"}}
GENERATORS = {name: label for generators in _GENERATORS.values() for name, label in generators.items()}


def generators_for(network: str) -> dict[str, str]:
    """The generators of images like the training data of the network of this name, with their labels; none for most."""
    return _GENERATORS.get(family(network), {})


def maximizer_of(
    subject: Subject, drawn_by: str, layer: str = "", prior: str = "shell"
) -> "CodeSpaceAM | ImageSpaceAM":
    """The activation maximisation of a network's units.

    Args:
        subject: the network.
        drawn_by: a name of `gan.load`, or one of `SPACES`.
        layer: the layer of the units; empty is the output.
        prior: the prior of the codes.
    """
    if drawn_by not in SPACES:
        return code_space_of(subject, subject.model.network, drawn_by, layer, prior)
    from gan import ImageSpaceAM

    channels, height, width = subject.input_shape
    return ImageSpaceAM(
        subject.model.network, (channels, height, width), layer or None, normalisation(subject), space=drawn_by,
        device=subject.device,
    )  # fmt: skip


def code_space_of(
    subject: Subject, network: nn.Module, generator: str, layer: str = "", prior: str = "shell"
) -> "CodeSpaceAM":
    """The activation maximisation of a layer's units in the codes of a generator.

    Args:
        subject: a network.
        network: its module, or another of the same architecture to be used instead.
        generator: a name of `gan.load`.
        layer: the layer of the units; empty is the output.
        prior: the prior of the codes.
    """
    from gan import CodeSpaceAM

    return CodeSpaceAM(
        network, generator_of(generator), layer or None, prior, normalisation(subject), device=subject.device
    )


def pixels_of(subject: Subject, network: nn.Module, layer: str) -> "PixelAM":
    """The search for the strongest response of a layer's units, by pixels alone.

    Args:
        subject: a network.
        network: another module of the same architecture to be used instead.
        layer: the layer of the units.
    """
    from gan import PixelAM

    channels, height, width = subject.input_shape
    return PixelAM(network, (channels, height, width), layer, normalisation(subject), device=subject.device)


def generator_of(name: str) -> nn.Module:
    """The generator of this name of `gan.load`."""
    from gan import load

    generator: nn.Module = load(name).generator
    return generator


def normalisation(subject: Subject) -> Callable[[Tensor], Tensor] | None:
    """The map from images in [0, 1] to the network's input; None where it takes them as they are."""
    from torchvision.transforms import Normalize

    mean, std = subject.model.preprocessing.mean, subject.model.preprocessing.std
    if set(mean) == {0.0} and set(std) == {1.0}:
        return None
    normalise: Callable[[Tensor], Tensor] = Normalize(mean, std)
    return normalise


@contextmanager
def interruptible(network: nn.Module, tell: Callable[[], None]) -> Iterator[None]:
    """A context in which `tell` is called, and may raise, whenever this thread calls the network."""
    with ModuleTrace(on_enter=lambda module, _: tell() if module is network else None):
        yield
