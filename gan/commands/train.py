"""Train a GAN or a classifier. An interrupted training goes on when the same command is given again."""

import argparse
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from plugin.devices import choose_device
from plugin.models.training_runs import FILE_NAME, where_to_go_on

from ..classifiers import CLASSIFIERS
from ..data import NAMES, ImageSet, read
from ..loading import load_classifier
from ..networks import NETWORKS
from ..training import Recipe, train, train_classifier
from ..training.recipes import PRECISIONS, recipe_for
from ..training.supervised import unfinished

# The shipped judges, by name and shape of the images that they know.
JUDGES = {("mnist", (1, 28, 28)): "mnist-judge", ("cifar10", (3, 32, 32)): "cifar10-judge"}

# Options that apply to one kind of network only.
OF_GANS = ("steps", "batch-size", "learning-rate", "penalty", "code-size", "conditional", "precision", "judge")
OF_CLASSIFIERS = ("epochs",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options left out are taken from the recipe of the shipped checkpoint."""
    parser.add_argument("--data", default="mnist", help=f"{', '.join(NAMES)}, or a folder of pictures; default: mnist")
    parser.add_argument("--network", choices=(*NETWORKS, *CLASSIFIERS), default="dcgan")
    parser.add_argument("--data-folder", help="where the files of the data set lie; default: downloaded once")
    parser.add_argument("--size", type=int, help="resize the images to this many pixels per side")
    parser.add_argument("--out", type=Path, help="folder of the run; default: runs/NETWORK-DATA")
    parser.add_argument("--judge", help="classifier for the scores: a name or a file; mnist and cifar10 have their own")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--epochs", type=int, help="of a classifier; default: 8")
    for name, kind in (("steps", int), ("batch-size", int), ("learning-rate", float), ("penalty", float)):
        parser.add_argument(f"--{name}", type=kind, help="of a GAN")
    parser.add_argument("--code-size", type=int, help="of a GAN")
    parser.add_argument("--conditional", action="store_true", default=None, help="tell a GAN the classes of the images")
    parser.add_argument("--mirror", action="store_true", default=None, help="show half of the images mirrored")
    parser.add_argument("--device", help="such as cpu or cuda:1; default: a GPU if there is one")
    parser.add_argument("--precision", choices=PRECISIONS, help="of a GAN's training")


def run(options: argparse.Namespace) -> int:
    """Train, store, and print the scores."""
    choose_device(options.device)  # before the data are read
    _refuse_options_of_others(options)
    data, test = (read(options.data, split, options.data_folder, options.size) for split in (True, False))
    folder = options.out or Path("runs") / f"{options.network}-{data.name}"
    path = folder / f"{options.network}.safetensors"
    is_classifier = options.network in CLASSIFIERS
    try:
        metadata = (_train_classifier if is_classifier else _train_gan)(path, data, test, options)
    except KeyboardInterrupt:
        print(where_to_go_on(unfinished(path) if is_classifier else folder / FILE_NAME), file=sys.stderr)
        return 130
    if is_classifier:
        print(f"{path}: test accuracy {metadata['accuracy']:.4f}")
        return 0
    print(path)
    for name, value in metadata["scores"].items():
        print(f"  {name:24} {value:.4f}")
    return 0


def _train_classifier(path: Path, data: ImageSet, test: ImageSet, options: argparse.Namespace) -> dict[str, Any]:
    epochs, seed = 8 if options.epochs is None else options.epochs, options.seed or 0
    return train_classifier(path, data, test, options.network, epochs, seed, options.device, bool(options.mirror))


def _train_gan(path: Path, data: ImageSet, test: ImageSet, options: argparse.Namespace) -> dict[str, Any]:
    # The name as it was given: a folder may be called like a data set and hold other images.
    recipe, judge = _recipe(options, options.data), _judge(options.judge, options.data, data)
    return train(recipe, data, test, path.parent, judge, device=options.device)


def _recipe(options: argparse.Namespace, data: str) -> Recipe:
    recipe = recipe_for(options.network, data)
    names = {field.name for field in fields(recipe)}
    given: dict[str, Any] = {k: v for k, v in vars(options).items() if k in names and v is not None}
    if options.code_size is not None:
        given["arguments"] = {**recipe.arguments, "code_size": options.code_size}
    return replace(recipe, **given)


def _judge(name: str | None, source: str, data: ImageSet) -> Any:
    if name is None:
        name = JUDGES.get((source, data.image_shape))
    return None if name is None else load_classifier(name)


def _refuse_options_of_others(options: argparse.Namespace) -> None:
    """Refuse options that do not apply to the network.

    Raises:
        ValueError: such an option is given.
    """
    is_classifier = options.network in CLASSIFIERS
    others = OF_GANS if is_classifier else OF_CLASSIFIERS
    given = [name for name in others if getattr(options, name.replace("-", "_")) is not None]
    if given:
        whose = "a GAN" if is_classifier else "a classifier"
        raise ValueError(f"--{given[0]} is of {whose}: leave it out for --network {options.network}")
