"""Judge runs for classes: by a classifier that took no part, against real images, with two baselines beside them."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from plugin.devices import choose_device
from plugin.files import require_writable, write_json, write_text

from ..classifiers import Classifier, check_fit
from ..data import NAMES, ImageSet, read
from ..export import save_grid
from ..judging import scorecard
from ..judging.scorecards import BEST, PIXEL
from ..judging.scoring import SPARE
from ..loading import load, load_classifier
from ..maximising import CodeSpaceAM
from ..maximising.targets import Unit
from .maximize import CLASSIFIER, GAN, PRIOR, add_run_arguments, maximize, refuse_other_images, unit


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run_arguments(parser)
    parser.add_argument("--target", type=unit, nargs="+", metavar="CLASS", help="default: all classes")
    parser.add_argument("--judge", nargs="+", default=["mnist-judge"], help="names or files; default: mnist-judge")
    parser.add_argument("--data", default="mnist", help=f"{', '.join(NAMES)}, or a folder; default: mnist")
    parser.add_argument("--data-folder", help="where the files of the data set lie; default: downloaded once")
    both = [BEST, PIXEL]
    parser.add_argument("--baselines", nargs="*", choices=both, default=both, help="default: best_of_n pixel")
    parser.add_argument("--speed", action="store_true", help="also time the runs one by one")
    parser.add_argument("--out", type=Path, help="folder for scores.json, scores.html and the images of each method")


def run(options: argparse.Namespace) -> int:
    """Maximise, judge, and print one table per judge."""
    device = choose_device(options.device)  # before the data are read
    if options.out is not None:
        require_writable(options.out / "scores.json")
    classifier, gan = load_classifier(options.classifier or CLASSIFIER), load(options.gan or GAN)
    refuse_other_images(gan.generator, classifier, options)
    judges = {name: load_classifier(name) for name in options.judge}
    real = read(options.data, train=False, folder=options.data_folder, size=gan.generator.image_shape[-1])
    _refuse_other_classes(options.data, real, {"classifier": classifier, **judges})
    targets = options.target or list(range(len(classifier.classes)))
    _refuse_too_few(options, real, targets)
    result = maximize(
        CodeSpaceAM(classifier, gan.generator, prior=options.prior or PRIOR, device=device),
        targets,
        options,
    )
    cards = {}
    for index, (name, judge) in enumerate(tqdm(judges.items(), desc="judging", unit="judge")):
        cards[name] = scorecard(result, judge, real, options.baselines, gan.scores, speed=options.speed and index == 0)
    for name, card in cards.items():
        print(f"\n{gan.name}, judged by {name}; best of {card.random_codes} random codes per run\n{card}")
    if options.out is not None:
        write_json(options.out / "scores.json", {name: card.to_dict() for name, card in cards.items()})
        card = next(iter(cards.values()))
        write_text(options.out / "scores.html", card.figure().to_html())
        for method, images in card.images.items():
            save_grid(images, options.out / f"{method}.png", options.runs, side=28)
        print(options.out / "scores.json")
    return 0


def _refuse_other_classes(data: str, real: ImageSet, classifiers: dict[str, Classifier]) -> None:
    """Refuse a classifier whose classes differ from those of the data: its scores would mean nothing.

    Raises:
        ValueError: the classes differ, or the data have none.
    """
    if real.labels is None:
        raise ValueError(f"{data} has no classes to judge by: put the pictures in one folder per class")
    for name, classifier in classifiers.items():
        try:
            check_fit(classifier, real)
        except ValueError as error:
            raise ValueError(f"{name}: {error}, as --classifier and --judge") from error


def _refuse_too_few(options: argparse.Namespace, real: ImageSet, targets: Sequence[Unit]) -> None:
    """
    Raises:
        ValueError: there are too few real images of a class to judge the runs by.
    """
    for target in targets:
        if real.labels is None or not isinstance(target, int) or not 0 <= target < len(real.classes):
            continue  # the ascent refuses it
        count = int((real.labels == target).sum())
        if count < options.runs + SPARE:
            raise ValueError(
                f"{count} test images of class {target} in {options.data} are too few for --runs {options.runs}: "
                f"{options.runs + SPARE} are needed"
            )
