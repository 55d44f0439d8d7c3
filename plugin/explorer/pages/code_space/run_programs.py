"""A program that makes the runs of the Code space page again."""

from ...inputs.subject import Subject
from ...inputs.unit_maximizers import PIXELS, normalisation
from ...server.turns import PROCESSOR
from .plans import Plan
from .runs import Outcome


def program(outcome: Outcome, subject: Subject) -> str:
    """A program whose `result` is the one on screen."""
    plan = outcome.plan
    layer = f", layer={plan.layer!r}" if plan.layer else ""
    if plan.generator == PIXELS:
        imports, lines = _pixel_lines(plan, subject, layer)
    else:
        imports = ["from gan import CodeSpaceAM, load, load_classifier"]
        lines = [
            f"classifier, generator = load_classifier({plan.network!r}), load({plan.generator!r}).generator",
            f"maximizer = CodeSpaceAM(classifier, generator{layer}, prior={plan.prior!r}{_device(plan)})",
        ]
    keywords = [f"runs={plan.runs}", f"seed={plan.seed}", f"steps={plan.steps}"]
    keywords += [] if plan.stop_at is None else [f"stop_at={plan.stop_at:g}"]
    # What was stopped on screen stops there again.
    keywords += [] if outcome.finished else [f"callback=lambda now: now.step >= {outcome.result.step}"]
    return "\n".join([
        *sorted([*imports, "from gan.export import save_grid"]), "", *lines,
        f"result = maximizer.maximize({plan.target!r}, {', '.join(keywords)})",
        'save_grid(result.images, "maximized.png")', "",
    ])  # fmt: skip


def _device(plan: Plan) -> str:
    """The argument for another device than that where the networks are opened."""
    return "" if plan.device == PROCESSOR else f", device={plan.device!r}"


def _pixel_lines(plan: Plan, subject: Subject, layer: str) -> tuple[list[str], list[str]]:
    imports = ["from gan import PixelAM", *subject.imports]
    imports += ["from plugin import models"] if "models." in subject.source else []
    transform = ""
    if normalisation(subject) is not None:
        imports.append("from torchvision.transforms import Normalize")
        mean, std = subject.model.preprocessing.mean, subject.model.preprocessing.std
        transform = f", transform=Normalize({mean}, {std})"
    lines = [
        f"model = {subject.source}",
        f"maximizer = PixelAM(model.network, {subject.input_shape}{layer}{transform}{_device(plan)})",
    ]
    return imports, lines
