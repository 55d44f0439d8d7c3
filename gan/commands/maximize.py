"""Find codes whose images activate a unit of a classifier most; write them as a PNG grid, and on request as a GIF."""

import argparse
import sys
from pathlib import Path

import torch
from torchvision.transforms import Normalize
from tqdm import tqdm

from plugin.devices import choose_device
from plugin.interrupts import InterruptLater
from plugin.models import load as load_network

from ..classifiers import Classifier
from ..export import Film, check_names, save_grid
from ..loading import load, load_classifier
from ..maximising import PRIORS, CodeSpaceAM, ImageSpaceAM, Result
from ..maximising.maximizer import ActivationMaximizer
from ..maximising.spaces import SPACES
from ..maximising.targets import Unit
from ..networks import Generator

GAN, CLASSIFIER, PRIOR = "dcgan-mnist", "mnist-classifier", "shell"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_run_arguments(parser)
    parser.add_argument(
        "--target",
        type=unit,
        nargs="+",
        required=True,
        metavar="UNIT",
        help="classes or channels, or CHANNEL,ROW,COLUMN of a layer",
    )
    parser.add_argument("--layer", help="layer of the classifier; default: its output")
    parser.add_argument(
        "--space",
        choices=("codes", *SPACES),
        default="codes",
        help="codes of --gan for --classifier; or an image for --network; default: codes",
    )
    parser.add_argument("--network", help="with another space: all-cnn-c, model-c, or a name of torchvision")
    parser.add_argument("--weights", type=Path, help="checkpoint of --network; default: its own")
    parser.add_argument("--repulsion", type=float, default=0.0, help="pushes the runs apart; default: 0")
    parser.add_argument("--out", type=Path, default=Path("maximized.png"), help="default: maximized.png")
    parser.add_argument("--gif", type=Path, help="also write all steps as a GIF")


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """The options shared by the commands that maximise."""
    parser.add_argument("--gan", help=f"a shipped name or a checkpoint; default: {GAN}")
    parser.add_argument("--classifier", help=f"a shipped name or a checkpoint; default: {CLASSIFIER}")
    parser.add_argument("--prior", choices=PRIORS, help=f"keeps codes near those of training; default: {PRIOR}")
    parser.add_argument("--runs", type=int, default=16, help="for each target; default: 16")
    parser.add_argument("--seed", type=int, default=0, help="of the first run for each target; default: 0")
    parser.add_argument("--steps", type=int, default=200, help="at most; default: 200")
    parser.add_argument("--device", help="such as cpu or cuda:1; default: a GPU if there is one")
    parser.add_argument("--stop-at", type=float, help="freeze a run that reaches it; default: 0.99 for classes")


def run(options: argparse.Namespace) -> int:
    """Maximise, write the files, and print the values reached."""
    check_names(options.out, options.gif)
    maximizer = _maximizer(options, choose_device(options.device))
    film = None if options.gif is None else Film()
    with InterruptLater() as interrupt:
        result = maximize(maximizer, options.target, options, options.repulsion, film, interrupt)
    columns = options.runs if len(options.target) > 1 else None
    print(save_grid(result.images, options.out, columns))
    if film is not None:
        print(film.save(options.gif, columns))
    for index, target in enumerate(options.target):
        print(f"  {target}: {_summary(result, slice(index * options.runs, (index + 1) * options.runs))}")
    if interrupt.asked:
        print(f"stopped after {result.step} of {options.steps} steps; the files show the runs there", file=sys.stderr)
        return 130
    return 0


def _maximizer(options: argparse.Namespace, device: torch.device) -> ActivationMaximizer:
    if options.space == "codes":
        given = next((name for name in ("network", "weights") if getattr(options, name) is not None), None)
        if given is not None:
            raise ValueError(f"--{given} needs --space fourier, maco or pixels: there is no generator of its images")
        classifier, generator = load_classifier(options.classifier or CLASSIFIER), load(options.gan or GAN).generator
        refuse_other_images(generator, classifier, options)
        return CodeSpaceAM(classifier, generator, options.layer, options.prior or PRIOR, device=device)
    given = next((name for name in ("gan", "classifier", "prior") if getattr(options, name) is not None), None)
    if given is not None:
        raise ValueError(f"--{given} is of --space codes: leave it out for --space {options.space}")
    if options.network is None:
        raise ValueError(f"--space {options.space} needs --network, such as all-cnn-c or squeezenet1_0")
    loaded = load_network(options.network, checkpoint=options.weights)
    seen = loaded.preprocessing
    normalise = Normalize(seen.mean, seen.std)
    shape = (len(seen.mean), seen.crop, seen.crop)
    return ImageSpaceAM(loaded.network, shape, options.layer, normalise, space=options.space, device=device)


def refuse_other_images(generator: Generator, classifier: Classifier, options: argparse.Namespace) -> None:
    """
    Raises:
        ValueError: the classifier was trained on images of another shape than the generator's.
    """
    if classifier.image_shape is not None and tuple(classifier.image_shape) != tuple(generator.image_shape):
        raise ValueError(
            f"{options.gan or GAN} makes images {tuple(generator.image_shape)}, and {options.classifier or CLASSIFIER} "
            f"knows {tuple(classifier.image_shape)}: give --gan and --classifier of the same data"
        )


def maximize(
    maximizer: ActivationMaximizer,
    targets: list[Unit],
    options: argparse.Namespace,
    repulsion: float = 0.0,
    film: Film | None = None,
    interrupt: InterruptLater | None = None,
) -> Result:
    """All runs of the command in one batch, with a progress bar.

    Args:
        maximizer, targets, options, repulsion: the units and the settings of the ascent.
        film: gets the images of each step.
        interrupt: ends the runs after the step in which Ctrl-C is pressed.
    """
    if options.runs < 1:
        raise ValueError(f"--runs must be at least 1, not {options.runs}")
    seeds = range(options.seed, options.seed + options.runs)
    with tqdm(total=options.steps, desc=f"{len(targets) * options.runs} runs", unit="step") as bar:

        def show(result: Result) -> bool:
            bar.update()
            if film is not None:
                film.add(result.images)
            return interrupt is not None and interrupt.asked

        return maximizer.maximize(
            [target for target in targets for _ in seeds],
            seeds=[*seeds] * len(targets),
            steps=options.steps,
            stop_at=options.stop_at,
            repulsion=repulsion,
            callback=show,
        )


def unit(text: str) -> Unit:
    """`3` or `12,4,4`."""
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor CHANNEL,ROW,COLUMN") from error
    return numbers[0] if len(numbers) == 1 else numbers


def _summary(result: Result, runs: slice) -> str:
    scores, steps = result.scores[-1, runs], result.steps_taken[runs]
    value = f"value {scores.mean():.3g} in the mean ({scores.min():.3g} to {scores.max():.3g})"
    if result.stop_at is None:
        return f"{value}, {int(steps.max())} steps"
    reached = f"{int(result.reached[runs].sum())} of {len(steps)} runs reached {result.stop_at:g}"
    return f"{reached} in {int(steps.median())} steps (median); {value}"
