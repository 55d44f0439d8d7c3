"""Units of several kinds in one batch, and functions as units."""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gan import CodeSpaceAM, ImageSpaceAM, PixelAM, Result, scorecard
from gan.judging import batch_speedup, best_of_real
from gan.judging.scorecards import OWN, REAL
from gan.maximising.objectives import channel, neuron

SHAPE, CODE, CLASSES = (1, 8, 8), 16, 32
pytestmark = pytest.mark.filterwarnings("ignore:.*did not reach stop_at")


def classifier() -> nn.Sequential:
    torch.manual_seed(0)
    layers = nn.Conv2d(1, 16, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(144, CLASSES)
    return nn.Sequential(*layers, nn.Softmax(1)).eval()


def generator() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(CODE, 64), nn.Unflatten(1, SHAPE), nn.Sigmoid()).eval()


class Probe(nn.Module):
    """A direction of the activations; two of them look alike."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.weight = torch.randn(CLASSES, generator=torch.Generator().manual_seed(seed))

    def forward(self, activations: Tensor) -> Tensor:
        return activations @ self.weight


MAXIMIZERS: dict[str, Callable[[str | None], Any]] = {
    "codes": lambda layer: CodeSpaceAM(classifier(), generator(), layer, code_size=CODE),
    "pixels": lambda layer: PixelAM(classifier(), SHAPE, layer),
    "fourier": lambda layer: ImageSpaceAM(classifier(), SHAPE, layer),
}
TARGETS = {
    None: [3, lambda rows: rows[:, :4].sum(dim=1), (slice(0, 5),), channel(2) - channel(1), (7,)],
    "0": [3, lambda rows: rows[:, 4].amax(dim=(1, 2)), (slice(2, 5), 1), neuron(3), (7, 2, 2)],
}


@pytest.mark.parametrize("name", MAXIMIZERS)
@pytest.mark.parametrize("layer", TARGETS)
def test_each_run_of_a_batch_of_all_kinds_of_units_is_the_single_run(layer: str | None, name: str) -> None:
    am, targets, steps = MAXIMIZERS[name](layer), TARGETS[layer], 12
    batch = am.maximize(targets, seeds=range(5), steps=steps)
    is_class = torch.tensor([layer is None and run in (0, 4) for run in range(5)])
    if layer is None:
        assert torch.equal(~batch.probabilities.isnan(), is_class)
    else:
        assert batch.probabilities is None
    for run, target in enumerate(targets):
        single = am.maximize([target], seeds=[run], steps=steps)
        assert torch.equal(single.images[0], batch.images[run])
        assert torch.equal(single.scores[:, 0], batch.scores[:, run])
        assert torch.equal(single.steps_taken[0], batch.steps_taken[run])
        assert torch.equal(single.reached[0], batch.reached[run])
        if is_class[run]:
            assert torch.equal(single.probabilities[0], batch.probabilities[run])


def test_runs_of_all_kinds_stop_where_they_are_told(tmp_path: Any) -> None:
    am = MAXIMIZERS["codes"](None)
    targets = [3, channel(2) - channel(1)]
    free = am.maximize(targets, seeds=[0, 1], steps=12, stop_at=[0.03, None], least_steps=1)
    assert free.steps_taken[1] == 12
    assert free.reached.tolist() == [True, False]
    assert Result.load(free.save(tmp_path / "runs.pt")).stop_at.isnan().tolist() == [False, True]  # type: ignore[union-attr]
    both = am.maximize(targets, seeds=[0, 1], steps=12, stop_at=[0.03, float(free.scores[5, 1])], least_steps=1)
    assert both.steps_taken[1] == 1 + int((free.scores[:, 1] >= free.scores[5, 1]).nonzero()[0])
    real = torch.rand(40, *SHAPE, generator=torch.Generator().manual_seed(0))
    outputs = classifier()(real).detach()
    data = am.maximize(targets, seeds=[0, 1], steps=2, stop_at="data", real=(real, torch.arange(40) % CLASSES))
    expected = [outputs[[3, 35], 3].quantile(0.5), (outputs[:, 2] - outputs[:, 1]).max()]
    torch.testing.assert_close(data.stop_at, torch.stack(expected))
    with pytest.raises(ValueError, match="of a class it is a probability"):
        am.maximize(targets, stop_at=[None, 0.5])
    with pytest.warns(UserWarning, match="1 of 2 runs did not reach stop_at=0.99 in 2 steps"):
        am.maximize(targets, seeds=[0, 1], steps=2)


@pytest.mark.filterwarnings("ignore:the judge's first choice")
def test_runs_of_all_kinds_are_judged() -> None:
    am, judge, targets = MAXIMIZERS["codes"](None), classifier(), [3, channel(2) - channel(1)] * 3
    result = am.maximize(targets, seeds=range(6), steps=5)
    real = torch.rand(200, *SHAPE, generator=torch.Generator().manual_seed(0))
    card = scorecard(result, judge, (real, torch.arange(200) % 4))
    outputs = judge(result.images).detach()[::2]
    assert card["judge_probability"][OWN] == pytest.approx(float(outputs[:, 3].mean()), rel=1e-5)
    assert card["agreement"][OWN] == float((outputs.argmax(1) == 3).float().mean())
    best = (judge(real)[:, 2] - judge(real)[:, 1]).max()
    assert card["beats_real"][OWN] == float((result.scores[-1, 1::2] >= best).float().mean())
    assert card["beats_real"][REAL] == 0
    assert card["reached"][OWN] == float(result.reached[::2].float().mean())
    assert batch_speedup(result) > 0


def test_functions_that_look_alike_are_different_units() -> None:
    am, probes = MAXIMIZERS["codes"](None), [Probe(0), Probe(1)]
    assert repr(probes[0]) == repr(probes[1])
    result = am.maximize(probes, seeds=[0, 0], steps=3)
    real = torch.rand(20, *SHAPE, generator=torch.Generator().manual_seed(0))
    expected = torch.stack([probe(classifier()(real)).max() for probe in probes]).detach()
    torch.testing.assert_close(best_of_real(result, real), expected)
    with pytest.raises(ValueError, match=r"seed 0 is given twice for target Probe\(\)"):
        am.maximize([probes[0], probes[0]], seeds=[0, 0])
    with pytest.raises(ValueError, match="is given twice"):
        am.maximize(3, seeds=[-1, 2**64 - 1])  # which are one number to a random generator


@pytest.mark.parametrize("name", MAXIMIZERS)
def test_a_function_that_mixes_rows_is_refused(name: str) -> None:
    def centred(rows: Tensor) -> Tensor:
        return rows[:, 0] - rows[:, 0].mean()

    with pytest.raises(ValueError, match="the target centred depends for one row of a batch on the others"):
        MAXIMIZERS[name](None).maximize([centred, 3])


OWN_GENERATOR = torch.Generator()
OTHER_NOISE: dict[str, Callable[[], float]] = {
    "numpy": np.random.default_rng(0).random,
    "python": random.random,
    "torch": lambda: float(torch.rand(1, generator=OWN_GENERATOR)),
}


@pytest.mark.parametrize("noise", OTHER_NOISE)
def test_noise_that_cannot_be_held_is_refused(noise: str) -> None:
    draw = OTHER_NOISE[noise]
    network, own = classifier(), generator()
    told = r"differs from pass to pass, by up to .*: look for random numbers that torch\.manual_seed does not decide"
    with pytest.raises(ValueError, match=f"the image that the <lambda> makes {told}"):
        CodeSpaceAM(network, lambda codes: own(codes) * draw(), code_size=CODE)
    with pytest.raises(ValueError, match=f"the output of the <lambda> {told}"):
        PixelAM(lambda images: network(images) * draw(), SHAPE)
    with pytest.raises(ValueError, match=f"the target <lambda> {told}"):
        PixelAM(network, SHAPE).maximize(lambda rows: rows[:, 0] * draw())
