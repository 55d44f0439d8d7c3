"""Quality of maximised images, judged by a network that took no part, beside easier methods.

The classifier's own certainty proves nothing: noise in pixel space reaches it, and for digits so does a random code. A
scorecard therefore needs a judge (another architecture, another seed) and real images, and compares two baselines: the
best of as many random codes as the ascent cost forward passes, and ascent in pixel space.
"""

import math
import warnings
from collections.abc import Hashable, Mapping, Sequence

import torch
from torch import Tensor, nn

from plugin.devices import on_device
from plugin.heads import LOGITS

from ..maximising import Result
from ..maximising.activations import Activations, as_module, evaluating
from ..maximising.targets import Units, class_probabilities
from ..reals import Reals, images_and_labels
from .baselines import batch_speedup, best_of_random, best_of_real, pixel_ascent
from .measures import diversity, nearest, neighbour_distances, precision
from .scorecards import BEST, MEASURES, OWN, PIXEL, REAL, Scorecard, ScorecardRow

# The least share of real images that a judge must predict right.
WEAK = 0.5
# The least number of real images per unit beyond one per run: the runs are compared with them.
SPARE = 5


def scorecard(
    result: Result,
    judge: nn.Module,
    real: Reals,
    baselines: str | Sequence[str] = (BEST, PIXEL),
    generator_scores: Mapping[str, float] | None = None,
    speed: bool = False,
) -> Scorecard:
    """Judge runs, and the baselines for the same targets, seeds and steps.

    Args:
        result: of `CodeSpaceAM` or `PixelAM`.
        judge: classifier of images `(N, C, H, W)` in [0, 1] that took no part. Its features are the inputs
            of its last layer.
        real: real images in [0, 1], or uint8, and their labels, as `(images, labels)`, a `gan.data.ImageSet`, a
            torchvision data set or a `DataLoader`; or images alone. Runs for a class are compared with the real
            images of that class, runs for another unit with all of them.
        baselines: any of "best_of_n" and "pixel".
        generator_scores: `gan.load(...).scores`, to show its `fid_ratio`.
        speed: also time the runs one by one, and report the speedup of one batch.

    Raises:
        ValueError: a baseline is unknown or needs a generator; the real images are too few, or of another size or
            range; the result was loaded without its maximizer.

    Warns:
        UserWarning: the judge is wrong on most of the real images.

    >>> import torch
    >>> from gan import CodeSpaceAM, load, load_classifier, scorecard
    >>> generator, classifier = load("gan-mnist").generator, load_classifier("mnist-classifier")
    >>> codes = torch.randn(300, generator.code_size, generator=torch.Generator().manual_seed(0))
    >>> real = generator(codes)  # yours: real images
    >>> result = CodeSpaceAM(classifier, generator).maximize(target=3, runs=4, seed=0)
    >>> card = scorecard(result, load_classifier("mnist-judge"), (real, classifier(real).argmax(1)), baselines=())
    >>> [row.measure for row in card.rows][:4]  # print(card) draws the table
    ['reached', 'median_steps', 'agreement', 'judge_probability']
    """
    if result.maximizer is None:
        raise ValueError("the result does not hold its maximizer: load it by Result.load(path, maximizer)")
    baselines = (baselines,) if isinstance(baselines, str) else baselines
    unknown = [name for name in baselines if name not in (BEST, PIXEL)]
    if unknown:
        raise ValueError(f"unknown baseline {unknown[0]!r}: choose among {BEST} and {PIXEL}")
    bench = _Bench(result, judge, real)
    images, scores, count = {OWN: result.images}, {OWN: result.scores[-1]}, 0
    progress = {OWN: bench.progress(result)}
    if BEST in baselines:
        images[BEST], scores[BEST], count = best_of_random(result)
    if PIXEL in baselines:
        made = pixel_ascent(result)
        images[PIXEL], scores[PIXEL], progress[PIXEL] = made.images, made.scores[-1], bench.progress(made)
    images[REAL], scores[REAL] = bench.held_out, bench.scores(bench.held_out)
    columns = {name: bench.measure(images[name], scores[name]) | progress.get(name, {}) for name in images}
    if bench.labels is None:  # without labels no prediction can be checked
        for measure in ("agreement", "judge_probability"):
            columns[REAL].pop(measure, None)
    _warn_of_a_weak_judge(columns[REAL])
    others = ~bench.units.is_class
    if bool(others.any()):
        best = best_of_real(result, bench.real)
        for name, column in columns.items():
            column["beats_real"] = float((scores[name] >= best).cpu()[others].float().mean())
    if BEST in columns:
        for column in columns.values():
            column["gain"] = column["score"] / columns[BEST]["score"]
    if speed:
        columns[OWN]["speedup"] = batch_speedup(result)
    if generator_scores is not None and "fid_ratio" in generator_scores:
        columns[OWN]["fid_ratio"] = generator_scores["fid_ratio"]
    rows = []
    for measure, label in MEASURES.items():
        values = {name: column[measure] for name, column in columns.items() if measure in column}
        if values:
            rows.append(ScorecardRow(measure, label, values))
    return Scorecard(tuple(rows), images, count)


def _warn_of_a_weak_judge(of_real: Mapping[str, float]) -> None:
    """Warn of a judge that fails on real images: its scores of other images mean little."""
    if of_real.get("agreement", 1.0) < WEAK:
        warnings.warn(
            f"the judge's first choice is right for {of_real['agreement']:.0%} of the real images: its scores mean "
            "little; give another judge, or images as it was trained on",
            stacklevel=3,
        )


class _Bench:
    """Judge and real images, ready to measure images of the runs' targets."""

    def __init__(self, result: Result, judge: nn.Module, real: Reals) -> None:
        self.result, maximizer = result, result.maximizer
        self.units = Units(result.targets, len(result), maximizer.activations)
        # The judge runs on the device of the images.
        self.judge = on_device(as_module(judge), result.images.device)
        self._read = Activations(self.judge, None, None, result.images[:1])
        if self.units.classes is not None and self._read.head is None:
            raise ValueError(f"{self._read.name} is {self._read.shape} per image: a judge returns one row of classes")
        self._head = self._read.head or LOGITS
        self.groups: dict[Hashable, list[int]] = {}
        for run, key in enumerate(self.units.keys):
            self.groups.setdefault(key, []).append(run)
        images, labels = images_and_labels(real, result.images.shape[1:])
        self.real, self.labels = images, labels
        self.held_out = torch.empty_like(result.images)
        self.reference: dict[Hashable, Tensor] = {}
        for key, runs in self.groups.items():
            chosen = images
            if labels is not None and self.units.classes is not None and self.units.is_class[runs[0]]:
                chosen = images[labels == self.units.classes[runs[0]]]
            if len(chosen) < len(runs) + SPARE:
                raise ValueError(
                    f"{len(chosen)} real images for target {result.targets[runs[0]]!r} are too few: "
                    f"{len(runs) + SPARE} are needed"
                )
            self.held_out[runs] = chosen[: len(runs)].to(self.held_out)
            self.reference[key] = self.describe(chosen[len(runs) :].to(self.held_out))[0]
        self.between = {key: diversity(found[:1000]) for key, found in self.reference.items()}
        self.apart = {key: float(neighbour_distances(found).mean()) for key, found in self.reference.items()}

    def describe(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The judge's features `(n, k)` and outputs `(n, classes)`."""
        with evaluating(self.judge), torch.no_grad():
            parts = [self._read.with_features(some) for some in images.split(500)]
        return torch.cat([features for _, features in parts]), torch.cat([outputs for outputs, _ in parts])

    def scores(self, images: Tensor) -> Tensor:
        """The units' values at one image per run."""
        runs = torch.arange(len(images), device="cpu")
        with evaluating(self.result.maximizer.classifier), torch.no_grad():
            return self.units.select(self.result.maximizer.activations(images), runs)

    def measure(self, images: Tensor, scores: Tensor) -> dict[str, float]:
        """The measures of one image per run; means over the targets."""
        features, outputs = self.describe(images)
        found: dict[str, list[float]] = {}
        for key, runs in self.groups.items():
            for name, value in self._measure_group(features[runs], key).items():
                found.setdefault(name, []).append(value)
        values = {name: sum(numbers) / len(numbers) for name, numbers in found.items() if not math.isnan(sum(numbers))}
        values["least_distinct"] = min(found["distinct"])
        values["score"] = float(scores.mean())
        if self.units.classes is not None:
            outputs = outputs[self.units.is_class.to(outputs.device)]
            classes = self.units.classes[self.units.is_class].to(outputs.device)
            chances = class_probabilities(self._head, outputs, classes)
            first = outputs.argmax(dim=1) == classes if outputs.shape[1] > 1 else chances > 0.5
            values["agreement"] = float(first.float().mean())
            values["judge_probability"] = float(chances.mean())
        return values

    def _measure_group(self, features: Tensor, key: Hashable) -> dict[str, float]:
        reference = self.reference[key]
        distances, which = nearest(features, reference)
        return {
            "diversity": diversity(features) / self.between[key],
            "distance": float(distances.mean()) / self.apart[key],
            "precision": precision(features, reference),
            "distinct": float(len(which.unique())),
        }

    def progress(self, result: Result) -> dict[str, float]:
        """The measures that only an ascent has."""
        if result.stop_at is None:
            return {}
        steps = float(result.steps_taken.float().quantile(0.5))
        able = ~torch.as_tensor(result.stop_at, device="cpu").isnan().expand(
            len(result)
        )  # runs with something to reach
        return {"reached": float(result.reached[able].float().mean()), "median_steps": steps}
