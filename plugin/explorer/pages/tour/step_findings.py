"""The findings of the guided tour's steps: each function computes a figure with the library, and a sentence on it."""

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import plotly.graph_objects as go
import torch
from numpy.typing import NDArray
from torch import nn

from plugin import figures
from plugin.attr import DeconvNet

from ...choices.offered_methods import METHODS, lrp_key
from ...inputs.image_sets import bundled_digits
from ...inputs.offered_networks import DIGITS
from ...inputs.offered_pictures import sample
from ...inputs.subject import Subject
from ...maps import answers, ledgers, unit_pictures
from ...maps.answers import Answer
from ...maps.questions import Asked, Look, Question
from ...server.turns import PROCESSOR
from . import figure_tiles
from .figure_tiles import FigureTile

Open = Callable[[str], Subject]

RELU_RULES = ("gradient", "deconvnet", "guided-backprop")
# In front of them the forward values and the signal that arrives from above: all four combinations of signs occur.
FORWARD = ((1.0, -1.0, 3.0), (2.0, 4.0, -3.0), (-2.0, 1.0, 2.0))
INCOMING = ((-2.0, 3.0, 2.0), (1.0, -1.0, -3.0), (2.0, -4.0, 5.0))
# A unit of each network where it has pooled, or strode, twice; both respond to both pictures.
UNITS = {"model-c": ("features.relu5", (4, 3, 3)), "all-cnn-c": ("features.relu7", (168, 3, 3))}
_PAIR = ("cat", "coffee")
LOW, HIGH = "features.relu3", "features.relu7"
_PRESETS = ("lrp_0", "epsilon_plus_flat", "epsilon_alpha2_beta1_flat", "epsilon_gamma_box")
_GENERATORS = {"gan-mnist": "MLP GAN", "dcgan-mnist": "DCGAN"}
_DIGITS, _SHIFTS = 400, (1.0, 2.0)


@dataclass(frozen=True)
class Found:
    """The figure of a step, with its finding and its numbers.

    Attributes:
        figure: of plotly.
        alternative: the figure in words.
        finding: Markdown, with the numbers that came out.
        arrays: the numbers of the figure, by name.
        maps: those of a picture that can be checked, by name, each with its question.
        seconds, peak_bytes: the time and the peak memory.
        device: where it was computed.
    """

    figure: go.Figure
    alternative: str
    finding: str
    arrays: dict[str, NDArray[Any]]
    maps: dict[str, tuple[Asked, Answer]] = field(default_factory=dict)
    seconds: float = 0.0
    peak_bytes: int | None = None
    device: str = PROCESSOR


def relu_rules(_: Open) -> Found:
    """Three backward rules of one ReLU, on numbers: the network hands `INCOMING` down to the ReLU's output."""
    linear = nn.Linear(9, 1, bias=False)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor(INCOMING).reshape(1, 9))
    network = nn.Sequential(nn.ReLU(), nn.Flatten(), linear)
    inputs = torch.tensor(FORWARD).reshape(1, 1, 3, 3)
    with torch.no_grad():
        arrays = {"Input x": inputs, "Output relu(x)": network[0](inputs), "Signal from above": torch.tensor(INCOMING)}
    for key in RELU_RULES:
        method = METHODS[key]
        explain = method.attribution_class(False)(network, **method.construct)
        arrays[method.label] = explain.attribute(inputs, target=0, **method.call)
    numbers = {name: values.detach().reshape(3, 3).numpy() for name, values in arrays.items()}
    passed = {METHODS[key].label: int(np.count_nonzero(numbers[METHODS[key].label])) for key in RELU_RULES}
    return Found(
        figure_tiles.tiles([FigureTile(name, values, printed=True) for name, values in numbers.items()], columns=3),
        "Tables of three by three numbers. " + "; ".join(f"{name}: {_spoken(v)}" for name, v in numbers.items()),
        "Of nine numbers arrive " + ", ".join(f"{count} by {name.lower()}" for name, count in passed.items()) + ".",
        numbers,
    )


def switches(open_network: Open) -> Found:
    """One unit's deconvnet for two pictures, in the network with max-pooling and in the one without."""
    maps: dict[str, tuple[Asked, Answer]] = {}
    cosines = {}
    for name, (layer, neuron) in UNITS.items():
        subject, question = open_network(name), Question("deconvnet", layer=layer, neuron=neuron)
        pair = [_answered(subject, picture, question) for picture in _PAIR]
        maps |= {f"{name}, {picture}": found for picture, found in zip(_PAIR, pair, strict=True)}
        cosines[name] = unit_pictures.likeness(*(result for _, result in pair))
    arrays = _arrays(maps)
    zoom = unit_pictures.box(arrays.values())
    panels = [FigureTile(title, figures.as_image(values)) for title, values in arrays.items()]
    words = " and ".join(f"{cosine:.2f} in {name}" for name, cosine in cosines.items())
    return Found(
        figure_tiles.tiles(panels, zoom=zoom),
        f"The deconvnet of one unit for {' and '.join(_PAIR)} in {' and '.join(UNITS)}; cosine of the two: {words}",
        f"The cosine between the two maps of a unit is {words}.",
        arrays,
        maps,
    )


def _answered(subject: Subject, picture: str, question: Question) -> tuple[Asked, Answer]:
    """A question about a sample, with its answer."""
    asked = Look(subject, sample(picture)).ask(question)
    return asked, answers.compute(subject, asked.picture.image, question)


def _arrays(maps: Mapping[str, tuple[Asked, Answer]]) -> dict[str, NDArray[Any]]:
    return {name: result.attribution for name, (_, result) in maps.items()}


def without_a_picture(open_network: Open) -> Found:
    """Units of a low and of a high layer of All-CNN-C, from its weights alone."""
    subject, photograph = open_network("all-cnn-c"), sample("cat").image
    panels, arrays, excited = [], {}, {}
    for layer in (LOW, HIGH):
        responses = answers.responses(subject, photograph, layer)
        middle = responses.shape[1] // 2
        strongest = [int(channel) for channel in np.argsort(-responses[:, middle, middle])[:4]]
        explain = DeconvNet(subject.model.network, layer, subject.input_shape)
        values = explain.reconstruct([(channel, middle, middle) for channel in strongest]).numpy()
        (top, bottom), (left, right) = unit_pictures.box(values)
        arrays[layer] = values
        panels += [
            FigureTile(
                f"{layer.rpartition('.')[2]}<br>channel {channel}", figures.as_image(picture[:, top:bottom, left:right])
            )
            for channel, picture in zip(strongest, values, strict=True)
        ]
        excited[layer] = _median_excitation(subject, layer, middle, strongest, values)
    words = "; ".join(f"{layer}: {value:.2f} times" for layer, value in excited.items())
    return Found(
        figure_tiles.tiles(panels, columns=4),
        f"Four units of {LOW}, whose pictures are single patterns, and four of {HIGH}, whose pictures are textures",
        "Shown its own picture at the contrast of the photograph, the median unit responds so many times as strongly "
        f"as to the photograph: {words}.",
        arrays,
    )


def _median_excitation(
    subject: Subject, layer: str, middle: int, channels: list[int], pictures: NDArray[np.float32]
) -> float:
    image = sample("cat").image
    found = [
        unit_pictures.excitations(
            subject, image, layer, (channel, middle, middle), [answers.Answer(picture, 0.0, None)]
        )
        for channel, picture in zip(channels, pictures, strict=True)
    ]
    return statistics.median(value for (value,) in found if value is not None)


def guided(open_network: Open) -> Found:
    """Deconvnet and guided backprop of a class, in both networks."""
    image = sample("cat").image
    labels = {"deconvnet-center": "Deconvnet, no switches", "guided-backprop": "Guided backprop"}
    panels, maps, words = [], {}, []
    for name in UNITS:
        subject, edges = open_network(name), []
        grey = np.asarray(subject.model.visible(image).convert("L"), dtype=float)
        for method, label in labels.items():
            question = Question(method, subject.model.classes.index("cat"))
            maps[f"{label}, {name}"] = found = _answered(subject, "cat", question)
            values = found[1].attribution
            panels.append(FigureTile(f"{label}<br>{name}", figures.as_image(values)))
            edges.append(_follows(values, grey))
        words.append(f"{edges[0]:.2f} and {edges[1]:.2f} in {name}")
    finding = (
        "The rank correlation of the map's strength with the edges of the photograph, by deconvnet without switches "
        f"and by guided backprop, is {'; '.join(words)}."
    )
    return Found(
        figure_tiles.tiles(panels),
        f"Maps of the class cat. Only guided backprop shows the cat. {finding}",
        finding,
        _arrays(maps),
        maps,
    )


def _follows(attribution: NDArray[np.float32], grey: NDArray[Any]) -> float:
    """Rank correlation of a map's magnitude with the magnitude of the photograph's grey-value gradient."""
    from plugin.experiments.sanity import rank_correlation

    down, right = np.gradient(grey)
    pair = [torch.from_numpy(np.array(v, dtype=np.float32)).reshape(1, -1) for v in (
        np.abs(attribution).sum(0), np.hypot(down, right))]  # fmt: skip
    return float(rank_correlation(*pair)[0])


def conservation(open_network: Open) -> Found:
    """One class by four presets of LRP, each with its sum."""
    subject, image = open_network("all-cnn-c"), sample("cat").image
    target, panels, maps, books = subject.model.classes.index("cat"), [], {}, {}
    for preset in _PRESETS:
        question = Question(lrp_key(preset), target)
        label = METHODS[question.method].label
        maps[label] = _answered(subject, "cat", question)
        books[label] = ledger = ledgers.compute(subject, image, question)
        title = f"{label}<br>{ledger.input:.3f} + {ledger.absorbed:.3f}"
        panels.append(FigureTile(title, figures.reduce_channels(maps[label][1].attribution)))
    logit = next(iter(books.values())).output
    return Found(
        figure_tiles.tiles(panels),
        "; ".join(f"{n}: input {b.input:.4g}, absorbed {b.absorbed:.4g}" for n, b in books.items()),
        "Above each map: the relevance of the pixels + that of biases and stabilisers. Each sum is the logit of "
        f"*cat*, {logit:.3f}, to {max(abs(b.output - b.input - b.absorbed) for b in books.values()):.0e}.",
        _arrays(maps),
        maps,
    )


def code_space(open_network: Open) -> Found:
    """Sixteen runs for the digit 0 with each generator, judged by a classifier that took no part."""
    from gan import CodeSpaceAM, load, load_classifier
    from gan.export import grid

    subject, judge = open_network(DIGITS), load_classifier("mnist-judge")
    panels, arrays, words = [], {}, []
    for name, label in _GENERATORS.items():
        result = CodeSpaceAM(subject.model.network, load(name).generator).maximize(target=0, runs=16, seed=0)
        with torch.no_grad():
            agrees = int((judge(result.images).argmax(1) == 0).sum())
        arrays[label] = result.images.numpy()
        panels.append(FigureTile(label, np.asarray(grid(result.images, columns=4))))
        steps = int(result.steps_taken.float().median())
        reached = f"{int(result.reached.sum())} of 16 reach 0.99, in {steps} steps"
        words.append(f"{label}: {reached}, and the judge reads {agrees} as 0")
    finding = "; ".join(words) + "."
    return Found(figure_tiles.tiles(panels), f"Sixteen digits each. {finding}", finding, arrays)


def invariance(open_network: Open) -> Found:
    """How often units that fire still do once the digit is shifted, by layer, trained and untrained."""
    from plugin.experiments.invariance import invariance as measure
    from plugin.experiments.sanity import untrained

    subject, digits = open_network(DIGITS), bundled_digits()
    states = {"trained": subject.model.network, "untrained": untrained(subject.model.network)}
    found = {
        state: measure(each, digits.images[:_DIGITS], labels=digits.labels[:_DIGITS], amounts={"shift": _SHIFTS})
        for state, each in states.items()
    }
    names = [layer.layer.rpartition(".")[2] for layer in found["trained"]]
    scores = {state: [layer.median_score("shift") for layer in layers] for state, layers in found.items()}
    one_class = {state: statistics.median(layers[-1].agreement) for state, layers in found.items()}
    words = "; ".join(
        f"{state} {v[0]:.0f} % in {names[0]} and {v[-1]:.0f} % at the output" for state, v in scores.items()
    )
    return Found(
        figure_tiles.lines(names, scores, "still fires when shifted, %"),
        f"How many still fire, by layer: {words}",
        "Of the digits that fire a unit, so many still do when they are shifted by a pixel or two: "
        f"{words}. Two digits that fire the same output unit are of one class with probability "
        f"{one_class['trained']:.2f} when trained, {one_class['untrained']:.2f} when not: invariance counts only where "
        "contents are told apart.",
        {state: np.array(values) for state, values in scores.items()},
    )


def _spoken(values: NDArray[Any]) -> str:
    return ", ".join(" ".join(f"{value:g}" for value in row) for row in values)
