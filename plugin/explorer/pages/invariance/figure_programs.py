"""A program that measures a figure of the Invariance page again."""

from ...inputs.image_sets import inputs
from ...inputs.subject import Subject
from ...inputs.unit_maximizers import normalisation
from .figure_questions import UNITS, FigureQuestion, rate_of


def program(question: FigureQuestion, subject: Subject) -> str:
    """A program whose `states` and `figure` are those of the page."""
    experiment, drawing = {
        "A": ("invariance", "invariance_figure"),
        "B": ("sufficiency", "sufficiency_figure"),
        "C": ("maximising_sets", "maximising_set_figure"),
    }[question.figure]
    imports = {
        f"from plugin.experiments.invariance import {experiment}",
        f"from plugin.experiments.invariance.figures import {drawing}",
        "from plugin.experiments.sanity import untrained",
        f"from {inputs.__module__} import {inputs.__name__}",
        *subject.imports,
    }
    if "models." in subject.source:
        imports.add("from plugin import models")
    body = {"A": _firing_lines, "B": _picture_lines, "C": _set_lines}[question.figure](question, subject, imports)
    return "\n".join(
        [
            *sorted(imports),
            "",
            f"model = {subject.source}",
            f"images, labels = inputs({question.data!r}, model, {question.count})",
            f'networks = {{"trained": model.network, "untrained": untrained(model.network, {question.seed})}}',
            *body,
            f"figure = {drawing}(states)",
            "figure.show()",
            "",
        ]
    )


def _firing_lines(question: FigureQuestion, subject: Subject, imports: set[str]) -> list[str]:
    rate = rate_of(question.count)
    return [
        "states = {",
        f"    state: invariance(network, images, labels=labels, rate={rate!r}, seed={question.seed})",
        "    for state, network in networks.items()",
        "}",
    ]


def _picture_lines(question: FigureQuestion, subject: Subject, imports: set[str]) -> list[str]:
    as_inputs = ", as_inputs=normalise" if normalisation(subject) is not None else ""
    return [
        *_maximizer_lines(question, subject, imports),
        "states = {",
        f"    state: sufficiency(network, images, None, {UNITS}, {{'maximised': maximizers(network)}}{as_inputs}, "
        f"seed={question.seed})",
        "    for state, network in networks.items()",
        "}",
    ]


def _set_lines(question: FigureQuestion, subject: Subject, imports: set[str]) -> list[str]:
    imports |= {"from gan import branch_of", "from plugin.experiments.units import layers_with_units"}
    normalises = normalisation(subject) is not None
    generate = "lambda codes: normalise(generator(codes))" if normalises else "generator"
    return [
        *_maximizer_lines(question, subject, imports),
        f"chosen = ('trained', {question.layer!r})",
        "states = {",
        "    state: [",
        "        found",
        "        for layer in layers_with_units(network, images)",
        "        for found in maximising_sets(",
        f"            network, images, {generate}, maximizers(network), [layer],",
        f"            [{question.channel}] if (state, layer) == chosen else 1, {question.runs}, seed={question.seed},",
        "            branch_of=branch_of(generator),",
        "        )",
        "    ]",
        "    for state, network in networks.items()",
        "}",
    ]


def _maximizer_lines(question: FigureQuestion, subject: Subject, imports: set[str]) -> list[str]:
    """A function of a network that makes the maximisers of its layers."""
    imports.add("from plugin.experiments.invariance.study import ToTheEnd")
    lines, transform = [], ""
    if normalisation(subject) is not None:
        imports.add("from torchvision.transforms import Normalize")
        mean, std = subject.model.preprocessing.mean, subject.model.preprocessing.std
        lines, transform = [f"normalise = Normalize({mean}, {std})"], ", transform=normalise"
    if question.generator:
        imports.add("from gan import CodeSpaceAM, load")
        lines.append(f"generator = load({question.generator!r}).generator")
        made = f"CodeSpaceAM(network, generator, layer or None{transform})"
    else:
        imports.add("from gan import PixelAM")
        made = f"PixelAM(network, {subject.input_shape}, layer or None{transform})"
    return [
        *lines,
        "",
        "",
        "def maximizers(network):",
        f"    return lambda layer: ToTheEnd({made}, {question.steps})",
        "",
        "",
    ]
