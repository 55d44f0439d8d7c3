"""A program that makes the runs of the Code space page again."""

from ...inputs.image_sets import real_images
from ...inputs.offered_networks import DIGITS
from ...inputs.offered_pictures import Picture
from ...inputs.subject import Subject
from ...inputs.unit_maximizers import SPACES, normalisation
from ...server.turns import PROCESSOR
from .plans import RunPlan
from .runs import COSINE_POWER, Outcome


def program(outcome: Outcome, subject: Subject) -> str:
    """A program whose `result` is the one on screen."""
    plan = outcome.plan
    layer = f", layer={plan.layer!r}" if plan.layer else ""
    target = repr(plan.target)
    if plan.generator in SPACES:
        imports, lines = _space_lines(plan, subject, layer)
    elif plan.network == DIGITS:
        imports = ["from gan import CodeSpaceAM, load, load_classifier"]
        lines = [
            f"classifier, generator = load_classifier({plan.network!r}), load({plan.generator!r}).generator",
            f"maximizer = CodeSpaceAM(classifier, generator{layer}, prior={plan.prior!r}{_device(plan)})",
        ]
    else:
        imports, lines = _generator_lines(plan, subject, layer)
    if plan.contrast is not None:
        imports.append("from gan.maximising.objectives import channel")
        target = f"channel({plan.target}) - channel({plan.contrast})"
    if plan.picture and outcome.picture is not None and isinstance(plan.target, tuple):
        imports += ["from gan.maximising.objectives import direction", "from plugin.observing import outputs_of"]
        imports += [*_opening(subject), *outcome.picture.imports]
        imports += ["from plugin import models"] if "models." in outcome.picture.source else []
        lines += _direction_lines(plan, subject, outcome.picture)
        _, row, column = plan.target
        target = f"direction(outputs[0, :, {row}, {column}], {COSINE_POWER!r})"
    keywords = [f"{name}={value!r}" for name, value in plan.keywords.items()]
    if plan.data:
        imports += [f"from {real_images.__module__} import {real_images.__name__}", *_opening(subject)]
        lines += [] if any(line.startswith("model = ") for line in lines) else [f"model = {subject.source}"]
        keywords.append(f"real={real_images.__name__}({plan.data!r}, model, {plan.count})")
    # Runs that were stopped on screen stop at the same step again.
    keywords += [] if outcome.finished else [f"callback=lambda now: now.step >= {outcome.result.step}"]
    return "\n".join([
        *sorted({*imports, "from gan.export import save_grid"}), "", *lines,
        f"result = maximizer.maximize({target}, {', '.join(keywords)})",
        'save_grid(result.images, "maximized.png")', "",
    ])  # fmt: skip


def _device(plan: RunPlan) -> str:
    """The argument for a device other than the one on which the networks are opened."""
    return "" if plan.device == PROCESSOR else f", device={plan.device!r}"


def _opening(subject: Subject) -> list[str]:
    """The imports that are needed to open the network."""
    return [*subject.imports, *(["from plugin import models"] if "models." in subject.source else [])]


def _direction_lines(plan: RunPlan, subject: Subject, picture: Picture) -> list[str]:
    """Lines that compute the outputs of a layer for the picture."""
    network = "classifier" if plan.network == DIGITS and plan.generator not in SPACES else "model.network"
    there = "" if plan.device == PROCESSOR else f".to({plan.device!r})"
    return [
        *([] if network == "model.network" else [f"model = {subject.source}"]),
        f"inputs = model.preprocess({picture.source}){there}",
        f"outputs = outputs_of({network}, [{plan.layer!r}], inputs)[{plan.layer!r}]",
    ]


def _transform(subject: Subject) -> tuple[list[str], str]:
    """The argument that normalises images for the network, with its import."""
    if normalisation(subject) is None:
        return [], ""
    mean, std = subject.model.preprocessing.mean, subject.model.preprocessing.std
    return ["from torchvision.transforms import Normalize"], f", transform=Normalize({mean}, {std})"


def _generator_lines(plan: RunPlan, subject: Subject, layer: str) -> tuple[list[str], list[str]]:
    imports, transform = _transform(subject)
    lines = [
        f"model = {subject.source}",
        f"generator = load({plan.generator!r}).generator",
        f"maximizer = CodeSpaceAM(model.network, generator{layer}, prior={plan.prior!r}{transform}{_device(plan)})",
    ]
    return ["from gan import CodeSpaceAM, load", *_opening(subject), *imports], lines


def _space_lines(plan: RunPlan, subject: Subject, layer: str) -> tuple[list[str], list[str]]:
    imports, transform = _transform(subject)
    imports = ["from gan import ImageSpaceAM", *_opening(subject), *imports]
    lines = [
        f"model = {subject.source}",
        f"maximizer = ImageSpaceAM(model.network, {subject.input_shape}{layer}{transform}, space={plan.generator!r}"
        f"{_device(plan)})",
    ]
    return imports, lines
