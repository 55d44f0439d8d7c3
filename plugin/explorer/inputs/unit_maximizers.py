"""What finds images that excite a unit of a network most: in the codes of a shipped generator, or in pixels."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from torch import Tensor, nn

from plugin.observing import ModuleTrace

from .subject import Subject

if TYPE_CHECKING:  # gan brings its own dependencies along, which other pages need not wait for
    from gan import CodeSpaceAM, PixelAM

# In place of a generator's name: pixels are maximised themselves.
PIXELS = "pixels"


def maximizer_of(
    subject: Subject, generator: str, layer: str = "", prior: str = "shell", network: nn.Module | None = None
) -> "CodeSpaceAM | PixelAM":
    """What maximises units of a network.

    Args:
        subject: the network.
        generator: a name of `gan.load`, or `PIXELS`.
        layer: of the units; empty is the output.
        prior: of the codes.
        network: one that is built like the subject's, to be taken in its place.
    """
    from gan import CodeSpaceAM, PixelAM

    network = subject.model.network if network is None else network
    if generator == PIXELS:
        channels, height, width = subject.input_shape
        return PixelAM(network, (channels, height, width), layer or None, normalisation(subject), device=subject.device)
    return CodeSpaceAM(network, generator_of(generator), layer or None, prior, device=subject.device)


def generator_of(name: str) -> nn.Module:
    """In whose codes is maximised."""
    from gan import load

    generator: nn.Module = load(name).generator
    return generator


def normalisation(subject: Subject) -> Callable[[Tensor], Tensor] | None:
    """From images in [0, 1] to the network's input; None where it takes them as they are."""
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
