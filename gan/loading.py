"""Trained networks by name or by file."""

from collections.abc import Container, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from plugin.models.checkpoints import load_weights, read_metadata
from plugin.seeds import seeded

from .classifiers import CLASSIFIERS, Classifier
from .networks import NETWORKS, Discriminator, Generator

WEIGHTS_FOLDER = Path(__file__).parent / "weights"


@dataclass(frozen=True)
class LoadedGAN:
    """A trained pair in eval mode, its parameters frozen.

    Attributes:
        name: the name or path given to `load`.
        generator: maps codes `(N, d)` to images `(N, C, H, W)` in [0, 1]; its weights are averaged over training.
        discriminator: maps images in [0, 1] to logits `(N,)`.
        scores: measured when it was stored (`gan.judging.generator_quality`).
        metadata: architecture, data, recipe, seed, steps, scores.

    >>> import torch
    >>> from gan import load
    >>> pair = load("gan-mnist")
    >>> images = pair.generator(torch.randn(2, pair.generator.code_size))
    >>> images.shape, pair.discriminator(images).shape
    (torch.Size([2, 1, 28, 28]), torch.Size([2]))
    """

    name: str
    generator: Generator
    discriminator: Discriminator
    scores: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)


def names() -> tuple[str, ...]:
    """The checkpoints that ship with the package."""
    return tuple(sorted(path.stem for path in WEIGHTS_FOLDER.glob("*.safetensors")))


def _find(name_or_path: str | Path, architectures: Container[str], kind: str) -> tuple[Path, dict[str, Any]]:
    shipped = WEIGHTS_FOLDER / f"{name_or_path}.safetensors"
    path = shipped if shipped.is_file() else Path(name_or_path)
    if not path.is_file():
        shipped_ones = {name: read_metadata(WEIGHTS_FOLDER / f"{name}.safetensors") for name in names()}
        known = [name for name, facts in shipped_ones.items() if facts["architecture"] in architectures]
        raise FileNotFoundError(
            f"no {kind} {str(name_or_path)!r}: give a file that python -m gan train has written, or one of "
            f"{', '.join(known)}"
        )
    try:
        metadata = read_metadata(path)
    except Exception as error:  # the parser may raise anything for a damaged file
        raise ValueError(
            f"{path} is not a .safetensors checkpoint ({type(error).__name__}): give a file that python -m gan train "
            "has written"
        ) from error
    if metadata.get("architecture") not in architectures:
        raise ValueError(f"{path.name} holds no {kind}: its architecture is {metadata.get('architecture')!r}")
    return path, metadata


@contextmanager
def _fitting(path: Path) -> Iterator[None]:
    """
    Raises:
        ValueError: the weights of a file do not fit its header.
    """
    try:
        yield
    except (KeyError, TypeError, RuntimeError) as error:
        raise ValueError(
            f"{path.name} is no checkpoint of this version: its weights do not fit its header "
            f"({type(error).__name__}); train it again"
        ) from error


def load(name_or_path: str | Path) -> LoadedGAN:
    """A trained GAN.

    Args:
        name_or_path: "gan-mnist", "dcgan-mnist", or a checkpoint written by `gan.train`.

    Raises:
        FileNotFoundError: neither a shipped name nor a file.
        ValueError: the file is no checkpoint of a GAN.

    >>> from gan import load
    >>> load("dcgan-mnist").metadata["architecture"]
    'dcgan'
    """
    path, metadata = _find(name_or_path, NETWORKS, "GAN")
    with _fitting(path), seeded(0):  # for the initial weights, which are overwritten
        arguments = dict(metadata["arguments"], image_shape=tuple(metadata["arguments"]["image_shape"]))
        network = NETWORKS[metadata["architecture"]](**arguments)
        network.load_state_dict(load_weights(path))
    network.requires_grad_(False).eval()
    return LoadedGAN(str(name_or_path), network.generator, network.discriminator, metadata.get("scores", {}), metadata)


def load_classifier(name_or_path: str | Path) -> Classifier:
    """A trained classifier of images in [0, 1], in eval mode, its parameters frozen.

    Args:
        name_or_path: "mnist-classifier", "mnist-judge", or a checkpoint written by `gan.train_classifier`.

    Raises:
        FileNotFoundError: neither a shipped name nor a file.
        ValueError: the file is no checkpoint of a classifier.

    >>> from gan import load, load_classifier
    >>> import torch
    >>> generator, classifier = load("gan-mnist").generator, load_classifier("mnist-classifier")
    >>> classifier(generator(torch.randn(2, generator.code_size))).shape
    torch.Size([2, 10])
    """
    path, metadata = _find(name_or_path, CLASSIFIERS, "classifier")
    with _fitting(path), seeded(0):  # for the initial weights, which are overwritten
        image_shape, classes = tuple(metadata["image_shape"]), tuple(metadata["classes"])
        classifier = CLASSIFIERS[metadata["architecture"]](image_shape, classes)
        classifier.load_state_dict(load_weights(path))
        classifier.accuracy = metadata["accuracy"]
    return classifier.requires_grad_(False).eval()
