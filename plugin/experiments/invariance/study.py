"""The three figures of one network in one state, part by part.

Each part (one figure, for B and C of one layer) is a JSON file, written when it is finished. After an interruption, or
with other options, an existing part is read if its own settings are the same.
"""

import argparse
import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

from torch import Tensor, nn
from tqdm import tqdm

from ...files import write_text
from ..units import OUTPUT, evenly, layers_with_units, output_layer
from .figures import short
from .firing import LayerInvariance, invariance
from .maximising_set import MaximisingSet, maximising_sets
from .sufficiency import Maximizer, PictureResponse, Solutions, sufficiency, unchanged

PIXEL = "pixel"
Result = TypeVar("Result", LayerInvariance, PictureResponse, MaximisingSet)


@dataclass(frozen=True)
class StudySubject:
    """A network and its data.

    Attributes:
        name: name of the network.
        network: in eval mode.
        images: its inputs `(N, C, H, W)`.
        labels: the classes of the images `(N,)`, if they are known.
        as_inputs: from images in [0, 1] to its inputs.
    """

    name: str
    network: nn.Module
    images: Tensor
    labels: Tensor | None = None
    as_inputs: Callable[[Tensor], Tensor] = unchanged


@dataclass(frozen=True)
class ToTheEnd:
    """A maximiser whose runs are not stopped early, since the question is the response they can reach.

    Attributes:
        maximizer: such as `gan.CodeSpaceAM`: its `maximize` also takes `steps` and `least_steps`.
        steps: the number of steps of each run.
    """

    maximizer: Any
    steps: int

    def maximize(self, target: Any, *, seeds: Sequence[int]) -> Solutions:
        found: Solutions = self.maximizer.maximize(target, seeds=seeds, steps=self.steps, least_steps=self.steps)
        return found


class MakesMaximizers(Protocol):
    """Makes the maximiser of the units of a layer."""

    def __call__(self, subject: StudySubject, layer: str | None, generator: nn.Module | None) -> Any:
        """A maximiser for `ToTheEnd`.

        Args:
            subject: the network.
            layer: the layer whose units are maximised; None is the output.
            generator: the generator in whose codes they are maximised; None maximises in pixels.
        """


class Study:
    """One network in one state, measured part by part.

    Args:
        subject: the network in this state.
        state: "trained" or "untrained".
        folder: the folder of the parts.
        options: options of the command line.
        generators: the generators by name, in whose codes the runs maximise.
        make_maximizer: makes the maximisers.
        branch_of: from a generator to its branches, as `maximising_sets` takes them.
    """

    def __init__(
        self,
        subject: StudySubject,
        state: str,
        folder: Path,
        options: argparse.Namespace,
        generators: dict[str, nn.Module],
        make_maximizer: MakesMaximizers,
        branch_of: Callable[[nn.Module], Callable[[Tensor], Tensor] | None],
    ) -> None:
        self.subject, self.folder, self.options, self.generators = subject, folder, options, generators
        self.make_maximizer, self.branch_of = make_maximizer, branch_of
        self.name = f"{subject.name}-{state}"
        layers = layers_with_units(subject.network, subject.images)
        self.layers = evenly(layers, options.layers or len(layers))
        self.output_layer = output_layer(subject.network, subject.images)
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
            part = "-".join(["B", *methods, short(self._reported(layer))])
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
                branch_of=self.branch_of(self.generators[generator]),
            )
            chosen = self._chosen([generator], "units", "runs", "seed")
            results += self._part(f"C-{generator}-{short(self._reported(layer))}", MaximisingSet, compute, **chosen)
        return results

    def _reported(self, layer: str) -> str:
        """The name of a layer in the findings: the layer that returns the output is the output."""
        return OUTPUT if layer == self.output_layer else layer

    def _maximizer(self, method: str, layer: str) -> Maximizer:
        generator = None if method == PIXEL else self.generators[method]
        return ToTheEnd(self.make_maximizer(self.subject, layer or None, generator), self.options.steps)

    def _chosen(self, methods: Sequence[str], *options: str) -> dict[str, Any]:
        """The options that decide a part, and those of the maximisation if there is one."""
        chosen = {name: getattr(self.options, name) for name in options}
        weights = {name: _digest(self.generators[name].state_dict().values()) for name in methods if name != PIXEL}
        return chosen | ({"steps": self.options.steps, "generators": weights} if methods else {})

    def _part(
        self, part: str, kind: type[Result], compute: Callable[[], Iterable[Result]], **settings: Any
    ) -> list[Result]:
        """The results in the part's file if it has these settings; else they are computed, and written there."""
        path = self.folder / f"{self.name}-{part}.json"
        settings = {"weights and images": self.digest, **settings}
        if path.exists():
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["settings"] == settings:
                return [kind(**result) for result in content["results"]]
        results = [replace(result, layer=self._reported(result.layer)) for result in compute()]
        write_text(path, json.dumps({"settings": settings, "results": [asdict(result) for result in results]}))
        return results


def _digest(tensors: Iterable[Tensor]) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
