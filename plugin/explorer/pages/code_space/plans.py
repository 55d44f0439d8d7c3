"""The questions of the Code space page: a `RunPlan` holds the unit to maximise and the settings of the runs."""

from dataclasses import dataclass, replace
from typing import Any

from ...choices.fitting import generator_of
from ...choices.settings import Settings
from ...inputs import image_sets
from ...inputs.layer_outputs import has_channels, middle, place
from ...inputs.offered_pictures import Picture
from ...inputs.subject import Subject
from ...inputs.unit_maximizers import SPACES
from ...server.jobs import name_of
from ...server.turns import PROCESSOR

# Networks that see more pixels than this take so long that fewer runs are made at a time.
_SMALL_SIDE, _MOST_LARGE_RUNS = 64, 4


@dataclass(frozen=True)
class RunPlan:
    """The unit to maximise, and the settings of the runs.

    Attributes:
        network: name of the network whose unit it is.
        identity: tells it from networks of the same name with other weights.
        generator: "dcgan-mnist", "gan-mnist", or one of `SPACES`.
        layer: of the unit; empty is the output.
        target: a class, a channel in the mean over its positions, or an index.
        contrast: a class whose logit is subtracted, or None.
        picture: the digest of a picture, or empty. With a picture, the runs maximise not the unit but the direction of
            all channels that the layer has for the picture at the unit's position.
        prior: of the codes.
        runs, seed, steps: the number of runs, the seed of the first, and the most steps.
        stop_at: the probability at which a run for a class ends; None if it ends elsewhere.
        data, count: the real images at whose value a run ends, and their number; empty and 0 if it ends elsewhere.
        device: where the runs are made.
    """

    network: str
    identity: str
    generator: str
    layer: str
    target: int | tuple[int, ...]
    contrast: int | None
    picture: str
    prior: str
    runs: int
    seed: int
    steps: int
    stop_at: float | None
    data: str
    count: int
    device: str = PROCESSOR

    @property
    def name(self) -> str:
        """A name that tells plans apart."""
        return name_of(self)

    @property
    def of_class(self) -> bool:
        """Whether a single class is maximised, which has a probability."""
        return not self.layer and self.contrast is None

    @property
    def keywords(self) -> dict[str, Any]:
        """Keyword arguments of `maximize` besides the target and the images of `data`."""
        ends: dict[str, Any] = {"stop_at": "data"} if self.data else {}
        if self.stop_at is not None:
            ends = {"stop_at": self.stop_at}
        elif not self.data and self.of_class and self.generator not in SPACES:
            ends = {"least_steps": self.steps}
        return {"runs": self.runs, "seed": self.seed, "steps": self.steps, **ends}


def real_sets(settings: Settings, subject: Subject) -> tuple[str, ...]:
    """The sets of real images on this machine at whose value runs can end; for a class, only labelled ones."""
    if max(subject.input_shape[1:]) > _SMALL_SIDE:
        return ()
    of_class = settings.explain == "class" and _contrast(settings) is None
    found = [
        name
        for name in image_sets.fitting(subject.model)
        if name != "generated" and image_sets.available(name)
        if image_sets.labelled(name, subject.model) or not of_class
    ]
    # Those that the shipped networks were tested on come first.
    return tuple(sorted(found, key=lambda name: name not in ("mnist", "cifar10")))


def endings(settings: Settings, subject: Subject) -> tuple[str, ...]:
    """The possible ends of the runs, keys of `settings.UNTIL`; the most suitable comes first."""
    probability = ("probability",) if settings.explain == "class" and _contrast(settings) is None else ()
    # In a space of images a class is certain long before its picture is legible.
    first = ("steps", *probability) if generator_of(settings) in SPACES else (*probability, "steps")
    return (*first, "data") if real_sets(settings, subject) else first


def settled(settings: Settings, subject: Subject) -> Settings:
    """The settings with a possible choice in place of each that is left open or impossible."""
    settings = replace(settings, generator=generator_of(settings))
    possible, sets = endings(settings, subject), real_sets(settings, subject)
    until = settings.until if settings.until in possible else possible[0]
    data = settings.data if settings.data in sets else next(iter(sets), settings.data)
    return replace(settings, until=until, data=data if until == "data" else settings.data)


def asks_for_picture(settings: Settings, subject: Subject) -> bool:
    """Whether the runs maximise the direction that the channels of a layer have for the open picture."""
    unit = settings.explain == "neuron" and settings.span == "direction"
    return unit and has_channels(subject.layers[settings.layer])


def plan_of(settings: Settings, subject: Subject, picture: Picture | None = None) -> RunPlan:
    """The plan that valid settings ask for; an open class is the first, an open neuron the first in the middle.

    Args:
        settings: the choices on the page.
        subject: the network.
        picture: the open one, where `asks_for_picture`.
    """
    settings = settled(settings, subject)
    unit, generator = settings.explain == "neuron", generator_of(settings)
    side = max(subject.input_shape[1:])
    runs = settings.runs if side <= _SMALL_SIDE else min(settings.runs, _MOST_LARGE_RUNS)
    return RunPlan(
        network=subject.name,
        identity=subject.identity,
        generator=generator,
        layer=settings.layer if unit else "",
        target=_unit(settings, subject.layers[settings.layer]) if unit else settings.target or 0,
        contrast=None if unit else _contrast(settings),
        picture=picture.digest if picture is not None and asks_for_picture(settings, subject) else "",
        prior="" if generator in SPACES else settings.prior,
        runs=runs,
        seed=settings.seed,
        steps=settings.steps,
        stop_at=settings.stop_at if settings.until == "probability" else None,
        data=settings.data if settings.until == "data" else "",
        count=settings.count if settings.until == "data" else 0,
        device=subject.device,
    )


def _contrast(settings: Settings) -> int | None:
    """The class that is subtracted; none where it is the class itself."""
    return None if settings.contrast == (settings.target or 0) else settings.contrast


def _unit(settings: Settings, shape: tuple[int, ...]) -> int | tuple[int, ...]:
    neuron = settings.neuron or middle(shape)
    if len(shape) == 1 or (settings.span == "channel" and has_channels(shape)):
        return neuron[0]
    return neuron


def described(plan: RunPlan, subject: Subject) -> str:
    """The unit in words, for people."""
    if not plan.layer:
        assert isinstance(plan.target, int)
        minus = "" if plan.contrast is None else f" minus class {subject.model.classes[plan.contrast]}"
        return f"class {subject.model.classes[plan.target]}{minus}"
    shape = subject.layers[plan.layer]
    index = plan.target if isinstance(plan.target, tuple) else (plan.target,)
    if plan.picture:
        return f"direction of the picture in {plan.layer} at row {index[1]}, column {index[2]}"
    return place(plan.layer, shape, index) + (" (mean over its positions)" if len(index) < len(shape) else "")
