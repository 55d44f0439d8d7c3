"""The command line of `plugin.experiments.invariance`.

Each part (what one figure says of one network in one state, for B and C also of one layer) is a JSON file in the output
folder, written when it is finished. The same command goes on after an interruption, or with other options: parts that
are there are read if what decides them is the same.
"""

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from tqdm import tqdm

from ...models import load, names
from ...models.data import cifar10, normalise
from ..deconvnet import read_images
from ..sanity import untrained
from ..units import evenly, layers_with_units
from .figures import draw_solutions, short
from .firing import LayerInvariance, invariance
from .maximising_set import MaximisingSet, maximising_sets
from .report import Findings, write_report
from .sufficiency import Maximizer, PictureResponse, Solutions, sufficiency, unchanged

PIXEL = "pixel"
Result = TypeVar("Result", LayerInvariance, PictureResponse, MaximisingSet)
Pictures = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Subject:
    """A network and its data.

    Attributes:
        name: of the network.
        network: in eval mode.
        images: its inputs `(N, C, H, W)`.
        labels: the classes of the images `(N,)`, if they are known.
        as_inputs: from images in [0, 1] to its inputs.
    """

    name: str
    network: nn.Module
    images: Tensor
    labels: Tensor | None = None
    as_inputs: Pictures = unchanged


@dataclass(frozen=True)
class ToTheEnd:
    """A maximiser of `gan` whose runs are not stopped early, since how far they can go is the question."""

    maximizer: Any
    steps: int

    def maximize(self, target: Any, *, seeds: Sequence[int]) -> Solutions:
        found: Solutions = self.maximizer.maximize(target, seeds=seeds, steps=self.steps, least_steps=self.steps)
        return found


class Study:
    """One network in one state, measured part by part.

    Args:
        subject: the network as it is to be measured.
        state: "trained" or "untrained".
        folder: where the parts are.
        options: of the command line.
        generators: by name those whose codes the runs maximise in.
    """

    def __init__(
        self, subject: Subject, state: str, folder: Path, options: argparse.Namespace, generators: dict[str, nn.Module]
    ) -> None:
        self.subject, self.folder, self.options, self.generators = subject, folder, options, generators
        self.name = f"{subject.name}-{state}"
        layers = layers_with_units(subject.network, subject.images)
        self.layers = evenly(layers, options.layers or len(layers))
        self.digest = _digest([*subject.network.state_dict().values(), subject.images])

    def invariance(self) -> list[LayerInvariance]:
        """A."""
        show: Any = partial(tqdm, desc=f"{self.name} A", unit="transformation")
        subject = self.subject
        measure = partial(invariance, subject.network, subject.images, self.layers, subject.labels, progress=show)
        return self._part(
            "A", LayerInvariance, partial(measure, seed=self.options.seed), seed=self.options.seed, layers=self.layers
        )

    def sufficiency(self) -> list[PictureResponse]:
        """B."""
        methods = self.options.maximize
        makers = {f"maximised, {method}": partial(self._maximizer, method) for method in methods}
        results: list[PictureResponse] = []
        for layer in tqdm(self.layers, desc=f"{self.name} B", unit="layer"):
            measure = partial(sufficiency, self.subject.network, self.subject.images, [layer], self.options.units)
            compute = partial(measure, makers, self.subject.as_inputs, self.options.seed)
            part = "-".join(["B", *methods, short(layer)])
            results += self._part(part, PictureResponse, compute, **self._chosen(methods, "units", "seed"))
        return results

    def maximising_sets(self, generator: str) -> list[MaximisingSet]:
        """C."""
        results: list[MaximisingSet] = []
        for layer in tqdm(self.layers, desc=f"{self.name} C, {generator}", unit="layer"):
            compute = partial(
                maximising_sets,
                self.subject.network,
                self.subject.images,
                lambda codes: self.subject.as_inputs(self.generators[generator](codes)),
                partial(self._maximizer, generator),
                [layer],
                self.options.units,
                self.options.runs,
                seed=self.options.seed,
            )
            chosen = self._chosen([generator], "units", "runs", "seed")
            results += self._part(f"C-{generator}-{short(layer)}", MaximisingSet, compute, **chosen)
        return results

    def _maximizer(self, method: str, layer: str) -> Maximizer:
        from gan.maximization import CodeSpaceAM
        from gan.pixel import PixelAM

        network, place, transform = self.subject.network, layer or None, self.subject.as_inputs
        if method == PIXEL:
            channels, height, width = self.subject.images.shape[1:]
            pixels = PixelAM(network, (channels, height, width), place, transform)
            return ToTheEnd(pixels, self.options.steps)
        return ToTheEnd(CodeSpaceAM(network, self.generators[method], place, transform=transform), self.options.steps)

    def _chosen(self, methods: Sequence[str], *options: str) -> dict[str, Any]:
        """The options that decide a part, and if anything is maximised, how."""
        chosen = {name: getattr(self.options, name) for name in options}
        weights = {name: _digest(self.generators[name].state_dict().values()) for name in methods if name != PIXEL}
        return chosen | ({"steps": self.options.steps, "generators": weights} if methods else {})

    def _part(
        self, part: str, kind: type[Result], compute: Callable[[], Iterable[Result]], **settings: Any
    ) -> list[Result]:
        """What the part's file says if it was made with these settings; else it is computed, and written there."""
        path = self.folder / f"{self.name}-{part}.json"
        settings = {"weights and images": self.digest, **settings}
        if path.exists():
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["settings"] == settings:
                return [kind(**result) for result in content["results"]]
        results = list(compute())
        unfinished = path.with_suffix(".partial")
        unfinished.write_text(json.dumps({"settings": settings, "results": [asdict(result) for result in results]}))
        os.replace(unfinished, path)
        return results


def run(
    subjects: Sequence[Subject], folder: Path, options: argparse.Namespace, generators: dict[str, nn.Module]
) -> list[Findings]:
    """Measure what is not measured yet, with progress on the standard error, and write `report.html` and the PNGs.

    Args:
        subjects: networks and their data; each is compared with itself untrained.
        folder: where the parts, the report and the pictures go; it is made.
        options: of the command line.
        generators: those named by `options.maximize`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    findings = [Findings(subject.name, len(subject.images)) for subject in subjects]
    for subject, found in zip(subjects, findings, strict=True):
        fresh = replace(subject, network=untrained(subject.network, options.seed))
        for state, version in (("trained", subject), ("untrained", fresh)):
            study = Study(version, state, folder, options, generators)
            if "A" in options.figures:
                found.invariance[state] = study.invariance()
            if "B" in options.figures:
                found.sufficiency[state] = study.sufficiency()
            for name, generator in generators.items() if "C" in options.figures else ():
                sets = found.sets.setdefault(name, {})[state] = study.maximising_sets(name)
                found.pictures |= _draw(sets, generator, f"{study.name}-{name}")
        for name, picture in found.pictures.items():
            picture.save(folder / f"{name}.png", optimize=True)
    write_report(findings, folder)
    return findings


def _draw(sets: Sequence[MaximisingSet], generator: nn.Module, name: str) -> dict[str, Any]:
    layers: dict[str, list[MaximisingSet]] = {}
    for found in sets:
        layers.setdefault(short(found.layer), []).append(found)
    return {
        f"{name}-{layer}": draw_solutions(group, lambda codes: generator(torch.tensor(codes)).detach())
        for layer, group in layers.items()
    }


def _digest(tensors: Iterable[Tensor]) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def read_subject(network: str, data: Path, limit: int) -> Subject:
    """A bundled network with CIFAR-10, a classifier shipped with `gan` and its data, or torchvision's with a folder.

    Args:
        network: its name, or NAME=CHECKPOINT for weights of your own.
        data: where the data set lies, or a folder of pictures.
        limit: how many images.

    Raises:
        FileNotFoundError: the data are not there.
        ValueError: there is no such network.
    """
    name, _, checkpoint = network.partition("=")
    if name not in names():
        from gan import load_classifier
        from gan.data import read
        from gan.loading import names as trained

        if name in trained():
            found = read(name.rpartition("-")[0], train=False, folder=data)
            labels = None if found.labels is None else found.labels[:limit]
            return Subject(name, load_classifier(name), found.values()[:limit], labels)
    model = load(name, checkpoint=checkpoint or None)
    if name in names():
        pictures, labels = (values[:limit] for values in cifar10(data, train=False))
        return Subject(name, model.network, normalise(pictures), labels, normalise)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (model.preprocessing.mean, model.preprocessing.std))
    images = read_images(model, data, limit)
    return Subject(name, model.network, images, as_inputs=lambda pictures: (pictures - mean) / std)


def read_generators(wanted: Sequence[str]) -> dict[str, nn.Module]:
    """The generators of GANs by name or file; "pixel" has none.

    Raises:
        FileNotFoundError: there is no such GAN.
    """
    found = [name for name in wanted if name != PIXEL]
    if not found:
        return {}
    import gan

    return {name: gan.load(name).generator for name in found}


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
    parser.add_argument("--units", type=int, default=8, help="how many units of each layer, for B and C")
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
    except (FileNotFoundError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(options.out / "report.html")
    return 0
