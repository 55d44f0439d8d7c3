"""The command line of `plugin.experiments.invariance`, which connects the experiments and `gan`."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image
from torch import nn

from gan import CodeSpaceAM, PixelAM, branch_of, load_classifier
from gan import load as load_gan
from gan.data import read
from gan.loading import names as trained_names
from gan.maximising.maximizer import ActivationMaximizer

from ...files import replacing
from ...models import WeightsUnavailable, known_names, load, names
from ...models.data import cifar10, normalise
from ..deconvnet import read_images, unit_count
from ..sanity import untrained
from .figures import draw_solutions, short
from .maximising_set import MaximisingSet
from .report import Findings, write_report
from .study import PIXEL, Study, StudySubject


def run(
    subjects: Sequence[StudySubject], folder: Path, options: argparse.Namespace, generators: dict[str, nn.Module]
) -> list[Findings]:
    """Measure the missing parts, with progress on the standard error, and write `report.html` and the PNGs.

    Args:
        subjects: networks and their data; each is compared with itself untrained.
        folder: the folder of the parts, the report and the pictures; it is made.
        options: options of the command line.
        generators: the generators named by `options.maximize`.
    """
    findings = [Findings(subject.name, len(subject.images)) for subject in subjects]
    for subject, found in zip(subjects, findings, strict=True):
        fresh = replace(subject, network=untrained(subject.network, options.seed))
        for state, version in (("trained", subject), ("untrained", fresh)):
            study = Study(version, state, folder, options, generators, make_maximizer, branch_of)
            if "A" in options.figures:
                found.invariance[state] = study.invariance()
            if "B" in options.figures:
                found.sufficiency[state] = study.sufficiency()
            for name, generator in generators.items() if "C" in options.figures else ():
                sets = found.sets.setdefault(name, {})[state] = study.maximising_sets(name)
                found.pictures |= _draw(sets, generator, f"{study.name}-{name}")
        for name, picture in found.pictures.items():
            with replacing(folder / f"{name}.png") as partial:
                picture.save(partial, optimize=True)
    write_report(findings, folder)
    return findings


def make_maximizer(subject: StudySubject, layer: str | None, generator: nn.Module | None) -> ActivationMaximizer:
    """Activation maximisation by `gan`; see `plugin.experiments.invariance.study.MakesMaximizers`."""
    if generator is None:
        channels, height, width = subject.images.shape[1:]
        return PixelAM(subject.network, (channels, height, width), layer, subject.as_inputs)
    return CodeSpaceAM(subject.network, generator, layer, transform=subject.as_inputs)


def _draw(sets: Sequence[MaximisingSet], generator: nn.Module, name: str) -> dict[str, Image.Image]:
    layers: dict[str, list[MaximisingSet]] = {}
    for found in sets:
        layers.setdefault(short(found.layer), []).append(found)
    return {
        f"{name}-{layer}": draw_solutions(group, lambda codes: generator(torch.tensor(codes, device="cpu")).detach())
        for layer, group in layers.items()
    }


def read_subject(network: str, data: Path, limit: int) -> StudySubject:
    """A network with its data: this package's with CIFAR-10, `gan`'s classifiers, or torchvision's with a folder.

    Args:
        network: its name, or NAME=CHECKPOINT for weights of your own.
        data: the folder of the data set, or of pictures.
        limit: the number of images.

    Raises:
        FileNotFoundError: the data are missing.
        ValueError: there is no such network.
    """
    name, _, checkpoint = network.partition("=")
    if name in trained_names() and name not in known_names():
        found = read(name.rpartition("-")[0], train=False, folder=data)
        labels = None if found.labels is None else found.labels[:limit]
        return StudySubject(name, load_classifier(name), found.values()[:limit], labels)
    model = load(name, checkpoint=checkpoint or None)
    if name in known_names():
        pictures, labels = (values[:limit] for values in cifar10(data, train=False))
        return StudySubject(name, model.network, normalise(pictures), labels, normalise)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (model.preprocessing.mean, model.preprocessing.std))
    images = read_images(model, data, limit)
    return StudySubject(name, model.network, images, as_inputs=lambda pictures: (pictures - mean) / std)


def read_generators(wanted: Sequence[str]) -> dict[str, nn.Module]:
    """The generators of GANs by name or file; "pixel" needs none.

    Raises:
        FileNotFoundError: there is no such GAN.
    """
    return {name: load_gan(name).generator for name in wanted if name != PIXEL}


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    description = "Invariance by depth, whether one picture suffices, and the shape of maximising sets."
    parser = argparse.ArgumentParser(prog="python -m plugin.experiments.invariance", description=description)
    parser.add_argument("networks", nargs="*", default=list(names()), metavar="NETWORK[=CHECKPOINT]")
    parser.add_argument("--data", type=Path, required=True, help="folder with CIFAR-10, MNIST, or pictures")
    parser.add_argument("--out", type=Path, default=Path("runs/invariance"), help="folder for the report and its parts")
    parser.add_argument("--figures", nargs="+", choices=("A", "B", "C"), default=["A", "B", "C"])
    parser.add_argument(
        "--maximize", nargs="*", default=[], metavar="WHERE", help='"pixel", and GANs such as dcgan-mnist: C needs one'
    )
    parser.add_argument("--images", type=int, default=1000, help="how many images of the test set")
    parser.add_argument("--layers", type=int, help="how many layers, evenly; default: all")
    parser.add_argument(
        "--units", type=unit_count, default=8, help='how many units of each layer, or "all", for B and C'
    )
    parser.add_argument("--runs", type=int, default=16, help="how many runs for each unit, for C")
    parser.add_argument("--steps", type=int, default=200, help="how many steps of maximisation")
    parser.add_argument("--seed", type=int, default=0, help="decides directions, fresh weights and runs")
    options = parser.parse_args(arguments)
    try:
        subjects = [read_subject(name, options.data, options.images) for name in options.networks]
        run(subjects, options.out, options, read_generators(options.maximize))
    except KeyboardInterrupt:
        print(f"stopped; the same command goes on from the parts in {options.out}", file=sys.stderr)
        return 130
    except (OSError, ValueError, WeightsUnavailable) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(options.out / "report.html")
    return 0
