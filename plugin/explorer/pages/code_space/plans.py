"""What the Code space page asks: a `Plan` of what is maximised, and how."""

from dataclasses import dataclass

from ...fitting import generator_of
from ...inputs.layer_outputs import has_channels, middle, place
from ...inputs.subject import Subject
from ...inputs.unit_maximizers import PIXELS
from ...server.jobs import name_of
from ...server.turns import PROCESSOR
from ...settings import Settings

# Networks that see more pixels than this take so long that fewer runs are made at a time.
_SMALL_SIDE, _MOST_LARGE_RUNS = 64, 4


@dataclass(frozen=True)
class Plan:
    """What is maximised, and how.

    Attributes:
        network: name of the network whose unit it is.
        identity: tells it from networks of the same name with other weights.
        generator: "dcgan-mnist", "gan-mnist", or `PIXELS`.
        layer: of the unit; empty is the output.
        target: as `gan.CodeSpaceAM.maximize` takes it: a class, a channel in the mean over its positions, or an index.
        prior: of the codes.
        runs, seed, steps: how many, the first one's seed, and the most steps.
        stop_at: the probability at which a run for a class ends; None for other units, which make all steps.
        device: where the runs are made.
    """

    network: str
    identity: str
    generator: str
    layer: str
    target: int | tuple[int, ...]
    prior: str
    runs: int
    seed: int
    steps: int
    stop_at: float | None
    device: str = PROCESSOR

    @property
    def name(self) -> str:
        """Tells plans apart."""
        return name_of(self)


def plan_of(settings: Settings, subject: Subject) -> Plan:
    """The plan that valid settings ask for; an open class is the first, an open neuron the first in the middle."""
    unit, generator = settings.explain == "neuron", generator_of(settings)
    side = max(subject.input_shape[1:])
    runs = settings.runs if side <= _SMALL_SIDE else min(settings.runs, _MOST_LARGE_RUNS)
    return Plan(
        network=subject.name,
        identity=subject.identity,
        generator=generator,
        layer=settings.layer if unit else "",
        target=_unit(settings, subject.layers[settings.layer]) if unit else settings.target or 0,
        prior="" if generator == PIXELS else settings.prior,
        runs=runs,
        seed=settings.seed,
        steps=settings.steps,
        stop_at=None if unit else settings.stop_at,
        device=subject.device,
    )


def _unit(settings: Settings, shape: tuple[int, ...]) -> int | tuple[int, ...]:
    neuron = settings.neuron or middle(shape)
    if len(shape) == 1 or (settings.span == "channel" and has_channels(shape)):
        return neuron[0]
    return neuron


def described(plan: Plan, subject: Subject) -> str:
    """The unit, for people."""
    if not plan.layer:
        assert isinstance(plan.target, int)
        return f"class {subject.model.classes[plan.target]}"
    shape = subject.layers[plan.layer]
    index = plan.target if isinstance(plan.target, tuple) else (plan.target,)
    return place(plan.layer, shape, index) + (" (mean over its positions)" if len(index) < len(shape) else "")
