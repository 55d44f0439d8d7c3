"""Activation maximisation: runs are independent, frozen, reproducible, and leave both networks as they were."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from support.helpers import assert_unchanged, snapshot
from torch import Tensor, nn

from gan import CodeSpaceAM, ImageSpaceAM, PixelAM, load, load_classifier
from gan.__main__ import main
from gan.data import read
from gan.export import Film, grid, save_gif, save_grid
from gan.judging import best_of_real
from gan.maximising import Result
from gan.maximising.batching import in_blocks
from gan.maximising.maximizer import ActivationMaximizer
from gan.maximising.priors import PRIORS, box, gaussian, ppgn, shell
from plugin import models
from plugin.models.data import cifar10, normalise

CLASSES, CODE = 4, 8
# Most tests look at a few steps only, after which no run has reached anything.
pytestmark = pytest.mark.filterwarnings("ignore:.*did not reach stop_at")


class Generator(nn.Module):
    """Codes to images (1, 8, 8); remembers how many codes it was given each time."""

    def __init__(self, code_size: int = CODE) -> None:
        super().__init__()
        self.code_size = code_size
        self.body = nn.Sequential(
            nn.Linear(code_size, 32), nn.BatchNorm1d(32), nn.Tanh(), nn.Linear(32, 64), nn.Sigmoid()
        )
        self.batches: list[int] = []

    def forward(self, codes: Tensor) -> Tensor:
        self.batches.append(len(codes))
        return self.body(codes).view(-1, 1, 8, 8)


def make_classifier() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3),
        nn.ReLU(),
        nn.BatchNorm2d(8),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(),
        nn.Linear(72, CLASSES),  # whose kernels round each row alike, so that blocks are filled
    )


class Scale(nn.Module):
    """Logits times a factor: a classifier that is less sure of the same classes."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, logits: Tensor) -> Tensor:
        return self.factor * logits


@pytest.fixture
def classifier(generator: nn.Module) -> nn.Sequential:
    """Certain of its predictions, and each class is the best of some images."""
    network = make_classifier().eval()
    with torch.no_grad():
        network[-1].weight.mul_(60)
        logits = network(generator(torch.randn(200, CODE, generator=torch.Generator().manual_seed(2))))
        network[-1].bias.sub_(logits.mean(0))
    return network


@pytest.fixture
def generator() -> Generator:
    torch.manual_seed(0)
    network = Generator()
    with torch.no_grad():
        network.body[3].weight.mul_(8)
    return network.eval()


@pytest.fixture
def am(classifier: nn.Module, generator: nn.Module) -> CodeSpaceAM:
    return CodeSpaceAM(classifier, generator)


# --- runs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prior", [*PRIORS, None])
def test_each_run_of_a_batch_is_the_single_run_with_its_seed(
    prior: str | None, classifier: nn.Module, generator: nn.Module
) -> None:
    am = CodeSpaceAM(classifier, generator, prior=prior)
    targets = [run % CLASSES for run in range(16)]
    batch = am.maximize(targets, seeds=range(16), steps=30, stop_at=0.95)
    for run in (0, 5, 15):
        single = am.maximize(targets[run], seeds=[run], steps=30, stop_at=0.95)
        torch.testing.assert_close(single.codes[0], batch.codes[run], atol=1e-4, rtol=0)
        torch.testing.assert_close(single.images[0], batch.images[run], atol=1e-4, rtol=0)
        assert single.steps_taken[0] == batch.steps_taken[run]


def test_numbers_do_not_depend_on_the_number_of_threads() -> None:
    am = CodeSpaceAM(load_classifier("mnist-classifier"), load("dcgan-mnist").generator)
    one = am.maximize([2, 7], seeds=[0, 1], steps=20)
    torch.set_num_threads(2)
    try:
        two = am.maximize([2, 7], seeds=[0, 1], steps=20)
    finally:
        torch.set_num_threads(1)
    torch.testing.assert_close(two.codes, one.codes, atol=1e-4, rtol=0)


def test_a_function_of_batches_is_computed_in_equal_blocks() -> None:
    sizes: list[int] = []

    def outer(rows: Tensor, factors: Tensor) -> list[Tensor | None]:
        sizes.append(len(rows))
        return [rows * factors[:, None], None, factors + 1]

    rows, factors = torch.randn(37, 3, requires_grad=True), torch.randn(37)
    products, nothing, sums = in_blocks(outer, rows, factors)
    assert sizes == [16, 16, 16]
    assert nothing is None
    assert torch.equal(products, rows * factors[:, None])
    assert torch.equal(sums, factors + 1)
    (gradient,) = torch.autograd.grad(products.sum(), rows)
    assert torch.equal(gradient, factors[:, None].expand(37, 3))


def test_a_block_that_is_not_filled_has_the_rows_that_are_there() -> None:
    sizes: list[int] = []

    def noted(rows: Tensor) -> list[Tensor | None]:
        sizes.append(len(rows))
        return [2 * rows]

    for count in (1, 37):
        rows = torch.randn(count, 3)
        assert torch.equal(in_blocks(noted, rows, filled=False)[0], 2 * rows)
    assert sizes == [1, 16, 16, 5]


Makers = dict[str, tuple[Callable[..., ActivationMaximizer], int]]
# Maximisers, and how many images a single run of theirs is computed as where it must not depend on other runs.
SINGLE: Makers = {
    "codes": (lambda network, generator, exact: CodeSpaceAM(network, generator, candidates=1, exact=exact), 16),
    "pixels": (lambda network, generator, exact: PixelAM(network, (1, 8, 8), exact=exact), 16),
    "fourier": (lambda network, generator, exact: ImageSpaceAM(network, (1, 8, 8), exact=exact), 1),
}


@pytest.mark.parametrize("name", SINGLE)
def test_a_single_run_is_computed_once_where_exactness_is_not_asked_for(
    name: str, classifier: nn.Module, generator: nn.Module
) -> None:
    counted: list[int] = []

    def counting(images: Tensor) -> Tensor:
        counted.append(len(images))
        logits: Tensor = classifier(images)
        return logits

    made, times = SINGLE[name]
    exact, free = (made(counting, generator, exact) for exact in (True, False))
    counted.clear()
    wanted = exact.maximize(1, runs=1, steps=3, least_steps=3).images
    as_many = sum(counted)
    counted.clear()
    torch.testing.assert_close(free.maximize(1, runs=1, steps=3, least_steps=3).images, wanted, atol=1e-4, rtol=0)
    assert as_many == times * sum(counted)


def test_colour_images_of_32_pixels_are_computed_one_by_one_on_a_processor() -> None:
    """Blocks of them save nothing, and a single run would pay for them."""
    am = PixelAM(lambda images: images.flatten(1)[:, :4] - 0.5, (3, 32, 32))
    assert am.rows == 1
    batch = am.maximize([0, 1, 2], seeds=range(3), steps=5)
    assert torch.equal(am.maximize([1], seeds=[1], steps=5).images[0], batch.images[1])


def test_a_seed_and_a_number_of_runs_stand_for_consecutive_seeds(am: CodeSpaceAM) -> None:
    first, second = am.maximize(1, runs=3, seed=7, steps=4), am.maximize([1, 1, 1], seeds=[7, 8, 9], steps=4)
    assert first.seeds == second.seeds == [7, 8, 9]
    assert torch.equal(first.codes, second.codes)
    assert len(am.maximize(1, steps=2)) == 16
    assert len(am.maximize([0, 1, 2], steps=2)) == 3


def test_the_global_random_state_plays_no_part(am: CodeSpaceAM) -> None:
    torch.manual_seed(5)
    expected, state = am.maximize(2, runs=2, steps=3).codes, torch.get_rng_state()
    torch.manual_seed(6)
    assert torch.equal(am.maximize(2, runs=2, steps=3).codes, expected)
    torch.manual_seed(5)
    am.maximize(2, runs=2, steps=3)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_result_agrees_with_itself(am: CodeSpaceAM, classifier: nn.Module, generator: nn.Module) -> None:
    targets = [0, 1, 2, 3]
    result = am.maximize(targets, seeds=range(4), steps=40, stop_at=0.9)
    assert result.images.shape == (4, 1, 8, 8)
    assert result.codes.shape == (4, CODE)
    assert result.scores.shape == (40, 4)
    logits = classifier(generator(result.codes))
    torch.testing.assert_close(result.images, generator(result.codes))
    torch.testing.assert_close(result.scores[-1], logits.diagonal())
    assert result.probabilities is not None
    torch.testing.assert_close(result.probabilities, logits.softmax(1).diagonal())
    assert torch.equal(result.reached, result.probabilities >= 0.9)
    assert (result.scores[-1] > result.scores[0]).any()


def test_runs_are_frozen_where_they_reach_stop_at_and_leave_the_batch(
    classifier: nn.Module, generator: Generator
) -> None:
    am = CodeSpaceAM(classifier, generator, candidates=1)
    generator.batches.clear()
    result = am.maximize(0, runs=40, steps=60, stop_at=0.8, least_steps=1)
    assert len(set(result.steps_taken.tolist())) > 2
    # Blocks of 16: three for the starting codes, and as many as are needed for the runs that are still active.
    active = [int((result.steps_taken >= step).sum()) for step in range(1, int(result.steps_taken.max()) + 1)]
    assert active[-1] <= 16 < active[0]
    assert generator.batches == [16] * (3 + sum(math.ceil(runs / 16) for runs in active))
    for run, taken in enumerate(result.steps_taken.tolist()):
        assert (result.scores[taken - 1 :, run] == result.scores[taken - 1, run]).all()
        if result.reached[run] and taken > 1:
            assert result.scores[taken - 2, run] != result.scores[taken - 1, run]
    early = am.maximize(0, runs=40, steps=60, stop_at=0.8, least_steps=9)
    assert early.steps_taken.min() == 9
    late = result.steps_taken >= 9
    assert torch.equal(early.steps_taken[late], result.steps_taken[late])


@pytest.mark.parametrize("factor", [1.0, 0.05])
def test_a_run_for_a_class_starts_from_the_first_code_that_is_clearly_of_it(
    classifier: nn.Module, generator: nn.Module, factor: float
) -> None:
    """Clear is a lead of 7, or the lead of the clearest quarter of 64 random images where the classifier gives less."""
    scaled = nn.Sequential(*classifier, Scale(factor)).eval()
    am = CodeSpaceAM(scaled, generator, prior=None)
    result = am.maximize([0, 1, 2, 3] * 4, seeds=range(16), steps=1, stop_at=1.0)
    found, sample = 0, torch.randn(64, CODE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        first, second = scaled(generator(sample)).topk(2, dim=1).values.T
    clear = min(7.0, float((first - second).quantile(0.75)))
    assert clear < 7 or factor == 1
    for code, label, seed, tried in zip(result.codes, result.targets, result.seeds, result.tried.tolist(), strict=True):
        random = torch.Generator().manual_seed(seed)
        codes, leads, drawn = torch.empty(0, CODE), torch.empty(0), 0
        while len(codes) < tried:
            drawn = 1 + len(codes) // 8
            codes = torch.cat([codes, torch.randn(min(drawn, 256 - len(codes)), CODE, generator=random)])
        logits = scaled(generator(codes))
        leads = logits[:, label] - logits.scatter(1, torch.full((tried, 1), label), -math.inf).amax(1)
        torch.testing.assert_close(code, codes[leads.argmax()])
        assert (leads[:-drawn] < clear).all()
        assert tried == 256 or leads.max() >= clear - 1e-4
        found += int(leads.max() >= clear)
    assert found > 4


def test_a_run_for_another_unit_starts_from_the_best_candidate(classifier: nn.Sequential, generator: nn.Module) -> None:
    am = CodeSpaceAM(classifier, generator, "0", prior=None, candidates=20)
    result = am.maximize((2, 3, 3), seeds=[4], steps=1)
    codes = torch.randn(20, CODE, generator=torch.Generator().manual_seed(4))
    values = classifier[0](generator(codes))[:, 2, 3, 3]
    torch.testing.assert_close(result.codes[0], codes[values.argmax()])
    assert result.tried.tolist() == [20]


def test_iterate_gives_the_trajectory_of_maximize(am: CodeSpaceAM) -> None:
    seen: list[Result] = []
    result = am.maximize(3, runs=3, steps=25, stop_at=0.9, callback=seen.append)
    frames = list(am.iterate(3, runs=3, steps=25, stop_at=0.9))
    assert len(frames) == len(seen) == int(result.steps_taken.max())
    for frame, called in zip(frames, seen, strict=True):
        assert torch.equal(frame.codes, called.codes)
        assert torch.equal(frame.scores, called.scores)
    assert torch.equal(frames[-1].codes, result.codes)
    assert torch.equal(frames[-1].scores, result.scores)
    assert [frame.step for frame in frames] == list(range(1, len(frames) + 1))
    assert frames[1].scores.shape == (2, 3)


def test_a_callback_ends_the_runs(am: CodeSpaceAM) -> None:
    result = am.maximize(3, runs=3, steps=25, stop_at=1.0, callback=lambda frame: frame.step == 4)
    assert result.step == 4
    assert result.scores.shape == (4, 3)


def test_repulsion_spreads_the_runs(am: CodeSpaceAM, classifier: nn.Sequential) -> None:
    init = torch.randn(5, CODE, generator=torch.Generator().manual_seed(0))
    near, far = (am.maximize(1, init=init, steps=20, least_steps=20, repulsion=weight) for weight in (0.0, 1000.0))
    directions = [nn.functional.normalize(classifier[:5](result.images).detach(), dim=1) for result in (near, far)]
    cosines = [float((rows @ rows.T).sum() - 5) / 20 for rows in directions]
    assert 1 - cosines[1] > 1.2 * (1 - cosines[0])


def test_runs_for_different_targets_do_not_repel_each_other(am: CodeSpaceAM) -> None:
    """A run that is the only one for its target is the run without repulsion; those for one target see no other."""
    init = torch.randn(4, CODE, generator=torch.Generator().manual_seed(0))
    options: dict[str, Any] = {"steps": 12, "least_steps": 12}
    apart = am.maximize([0, 1, 2, 3], init=init, repulsion=1000.0, **options)
    assert torch.equal(apart.codes, am.maximize([0, 1, 2, 3], init=init, **options).codes)

    mixed = am.maximize([0, 1, 0, 2], init=init, repulsion=1000.0, **options)
    siblings = am.maximize([0, 0], init=init[[0, 2]], repulsion=1000.0, **options)
    torch.testing.assert_close(mixed.codes[[0, 2]], siblings.codes, atol=1e-4, rtol=0)
    assert not torch.allclose(siblings.codes, am.maximize([0, 0], init=init[[0, 2]], **options).codes)
    assert torch.equal(mixed.codes[1], apart.codes[1])


def test_what_cannot_be_reached_is_said_and_kept(am: CodeSpaceAM) -> None:
    unsure = CodeSpaceAM(nn.Sequential(am.classifier, Scale(0.1)), am.generator)
    with pytest.warns(UserWarning, match=r"runs did not reach stop_at=1 in 6 steps, the best of them reached 0\.\d+"):
        result = unsure.maximize([0, 1], seeds=[0, 1], steps=6, stop_at=1.0)
    assert not result.reached.any()
    assert result.steps_taken.tolist() == [6, 6]


def test_inversion_finds_the_image_again(am: CodeSpaceAM, generator: Generator) -> None:
    wanted = generator(torch.randn(3, CODE, generator=torch.Generator().manual_seed(9))).detach()
    codes = am.invert(wanted)
    assert codes.shape == (3, CODE)
    error = (generator(codes) - wanted).square().mean()
    assert error < 0.02 * wanted.var(0).mean()
    torch.testing.assert_close(am.invert(wanted[1], seed=1), codes[1:2], atol=1e-4, rtol=0)
    start = next(am.iterate(2, init=codes))
    torch.testing.assert_close(start.codes, codes)


# --- priors -----------------------------------------------------------------------------------------------------------


def test_priors_move_codes_as_their_equations_say() -> None:
    codes, noise = torch.randn(3, 8), torch.randn(3, 8)
    moved = shell().move(codes, 1.0, None)
    torch.testing.assert_close(moved.norm(dim=1), torch.full((3,), math.sqrt(8)))
    torch.testing.assert_close(nn.functional.cosine_similarity(moved, codes), torch.ones(3))
    share = torch.tensor([[1.0], [0.5], [2.0]])
    torch.testing.assert_close(gaussian(0.2).move(codes, share, None), torch.tensor([[0.8], [0.9], [0.6]]) * codes)
    torch.testing.assert_close(box(0.5).move(codes, 1.0, None), codes.clamp(-0.5, 0.5))
    torch.testing.assert_close(ppgn(0.4).move(codes, 1.0, noise), 0.6 * codes + 0.8 * noise)


@pytest.mark.filterwarnings("ignore:the Unflatten's images lie")
def test_on_a_linear_network_the_code_points_along_the_weights() -> None:
    weights = nn.Sequential(nn.Flatten(), nn.Linear(9, 2, bias=False))
    generator = nn.Unflatten(1, (1, 3, 3))
    result = CodeSpaceAM(weights, generator, code_size=9).maximize(lambda logits: logits[:, 1], runs=3, steps=300)
    expected = 3 * nn.functional.normalize(weights[1].weight[1], dim=0).detach()
    torch.testing.assert_close(result.codes, expected.expand(3, 9), atol=0.02, rtol=0)


# --- targets ----------------------------------------------------------------------------------------------------------


UNITS: list[tuple[Any, Callable[[Tensor], Tensor]]] = [
    (2, lambda maps: maps[:, 2].mean((1, 2))),
    (-1, lambda maps: maps[:, 7].mean((1, 2))),
    ((1, 3, 4), lambda maps: maps[:, 1, 3, 4]),
    ((1, slice(0, 2)), lambda maps: maps[:, 1, :2].mean((1, 2))),
    ([0, (1, 2, 3)], lambda maps: torch.stack([maps[0, 0].mean(), maps[1, 1, 2, 3]])),
    (torch.tensor([3, 1]), lambda maps: torch.stack([maps[0, 3].mean(), maps[1, 1].mean()])),
    (lambda maps: maps.amax((1, 2, 3)), lambda maps: maps.amax((1, 2, 3))),
    ([lambda maps: maps[:, 0].amax((1, 2)), 2], lambda maps: torch.stack([maps[0, 0].amax(), maps[1, 2].mean()])),
]


@pytest.mark.parametrize(("target", "value"), UNITS)
def test_units_of_a_layer(
    target: Any, value: Callable[[Tensor], Tensor], classifier: nn.Sequential, generator: nn.Module
) -> None:
    for layer in ("0", classifier[0]):
        am = CodeSpaceAM(classifier, generator, layer, prior=None, candidates=1)
        result = am.maximize(target, seeds=[3, 5], steps=15)
        torch.testing.assert_close(result.scores[-1], value(classifier[0](result.images)))
        assert result.probabilities is None
        assert result.scores.shape == (15, 2)
        assert (result.scores[-1] > result.scores[0]).all()
        assert result.steps_taken.tolist() == [15, 15]


def test_a_unit_stops_where_its_value_is_reached(classifier: nn.Module, generator: nn.Module) -> None:
    am = CodeSpaceAM(classifier, generator, "0", candidates=1)
    free = am.maximize(1, seeds=[0], steps=30)
    wanted = float(free.scores[:, 0].quantile(0.5))
    result = am.maximize(1, seeds=[0], steps=30, stop_at=wanted, least_steps=1)
    assert result.steps_taken[0] == 1 + int((free.scores[:, 0] >= wanted).nonzero()[0])


def test_of_a_layer_that_is_used_twice_the_last_use_counts(generator: nn.Module) -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.calls = nn.Conv2d(1, 1, 3, padding=1), 0

        def forward(self, images: Tensor) -> Tensor:
            return self.layer(self.layer(images).relu()).flatten(1)

    network = Twice()
    result = CodeSpaceAM(network, generator, "layer").maximize((0, 2, 2), runs=2, steps=5)
    twice = network.layer(network.layer(result.images).relu())
    torch.testing.assert_close(result.scores[-1], twice[:, 0, 2, 2])


def test_a_classifier_that_returns_probabilities(classifier: nn.Module, generator: nn.Module) -> None:
    certain = CodeSpaceAM(nn.Sequential(classifier, nn.Softmax(1)), generator).maximize(
        1, runs=2, steps=20, stop_at=0.6
    )
    assert certain.probabilities is not None
    torch.testing.assert_close(certain.probabilities, certain.scores[-1])


def test_a_transform_lets_other_sizes_and_channels_in(generator: nn.Module) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 3)).double().eval()

    def resize(images: Tensor) -> Tensor:
        return images[:, :, :, :].expand(-1, 3, -1, -1).double()

    result = CodeSpaceAM(network, generator, transform=resize).maximize(2, runs=2, steps=5, stop_at=1.0)
    torch.testing.assert_close(result.scores[-1], network(resize(result.images))[:, 2])


# --- nothing is touched -----------------------------------------------------------------------------------------------


def fail_later() -> Callable[[Tensor], Tensor]:
    calls = 0

    def target(logits: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        if calls > 3:
            raise ArithmeticError("this target fails")
        return logits[:, 0]

    return target


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("layer", [None, "2"])
def test_both_networks_are_left_as_they_were(training: bool, layer: str | None) -> None:
    torch.manual_seed(0)
    networks = [make_classifier().train(training), Generator().train(training)]
    networks[0][0].weight.requires_grad_(False)
    networks[0][5].train(not training)
    before = [snapshot(network) for network in networks]
    am = CodeSpaceAM(networks[0], networks[1], layer)
    unit: Any = 1 if layer is None else (1, 2, 2)
    am.maximize(unit, runs=3, steps=4, repulsion=1.0)
    am.invert(torch.rand(1, 1, 8, 8), steps=2)
    frames = am.iterate(unit, runs=3, steps=9)
    next(frames), next(frames)
    for network, state in zip(networks, before, strict=True):
        assert_unchanged(state, network)
    frames.close()  # type: ignore[attr-defined]
    if layer is None:
        with pytest.raises(ArithmeticError):
            am.maximize(fail_later(), runs=2, steps=9)
    for network, state in zip(networks, before, strict=True):
        assert_unchanged(state, network)


def test_the_callers_grad_mode_does_not_matter(am: CodeSpaceAM) -> None:
    expected = am.maximize(1, runs=2, steps=4).codes
    with torch.no_grad():
        assert torch.equal(am.maximize(1, runs=2, steps=4).codes, expected)
    with torch.inference_mode():
        assert torch.equal(am.maximize(1, runs=2, steps=4).codes, expected)


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"target": 4}, r"has no unit 4: its shape per image is \(4,\), so the first index is 0 to 3"),
        ({"target": (0, 1)}, r"has no unit \(0, 1\)"),
        ({"target": [0, 9], "seeds": [0, 1]}, "has no unit 9"),
        ({"target": 0, "runs": 0}, "runs=0: at least one"),
        ({"target": 0, "runs": -3}, "runs=-3: at least one"),
        ({"target": [], "runs": None}, "0 targets were given"),
        ({"target": [0, 1], "runs": 3}, "3 runs, 2 targets were given"),
        ({"target": 0, "seeds": [1, 2, 1]}, "seed 1 is given twice for target 0"),
        ({"target": 0, "steps": 0}, "steps=0"),
        ({"target": 0, "least_steps": 0}, "least_steps=0"),
        ({"target": 0, "stop_at": 1.5}, "stop_at=1.5"),
        ({"target": 0, "stop_at": 0.0}, "stop_at=0.0"),
        ({"target": 0, "repulsion": -1.0}, "repulsion=-1.0"),
        ({"target": 0, "repulsion": math.nan}, "repulsion=nan"),
        ({"target": 0, "init": torch.zeros(2, 5)}, r"init has shape \(2, 5\): codes are \(runs, 8\)"),
        ({"target": 0, "runs": 2, "stop_at": [None, 0.5]}, r"stop_at=\[None, 0.5\]: of a class it is a probability"),
        ({"target": 0, "init": 3.0}, r"init has shape \(\): codes are \(runs, 8\)"),
        ({"target": 0, "init": torch.full((2, CODE), math.nan)}, "init holds NaN"),
        ({"target": lambda logits: logits}, r"returned \(\d+, 4\) for \d+ images"),
    ],
)
def test_bad_arguments_are_refused_before_the_first_step(
    arguments: dict[str, Any], message: str, am: CodeSpaceAM
) -> None:
    for method in (am.maximize, am.iterate):
        with pytest.raises(ValueError, match=message) as caught:
            method(**arguments)
        assert "\n" not in str(caught.value)


def test_a_target_that_is_no_unit(am: CodeSpaceAM) -> None:
    with pytest.raises(TypeError, match="'seven' names no unit"):
        am.maximize("seven")  # type: ignore[arg-type]


def test_networks_that_do_not_fit_are_refused(classifier: nn.Sequential, generator: Generator) -> None:
    with pytest.raises(
        ValueError, match=r"images of shape \(1, 8, 8\) do not fit the Sequential .*transform="
    ) as caught:
        CodeSpaceAM(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.LazyLinear(2)), generator)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="has no layer 'conv9'"):
        CodeSpaceAM(classifier, generator, "conv9")
    with pytest.raises(ValueError, match="unknown prior 'ball': choose one of shell"):
        CodeSpaceAM(classifier, generator, prior="ball")
    with pytest.raises(ValueError, match="pass code_size="):
        CodeSpaceAM(classifier, nn.Unflatten(1, (1, 8, 8)))
    with pytest.raises(ValueError, match=r"does not take codes \(2, 3\)"):
        CodeSpaceAM(classifier, generator, code_size=3)
    with pytest.raises(ValueError, match=r"makes \(2, 64\) of two codes"):
        CodeSpaceAM(classifier, nn.Linear(6, 64), code_size=6)
    with pytest.raises(ValueError, match=r"the generator's are \(1, 8, 8\)"):
        CodeSpaceAM(classifier, generator).invert(torch.zeros(2, 1, 9, 9))


# --- pixels -----------------------------------------------------------------------------------------------------------


def test_pixels_have_the_same_interface(classifier: nn.Module) -> None:
    pixel = PixelAM(classifier, (1, 8, 8))
    batch = pixel.maximize([0, 1, 2], seeds=[3, 4, 5], steps=40, least_steps=40)
    single = pixel.maximize(1, seeds=[4], steps=40, least_steps=40)
    torch.testing.assert_close(single.images[0], batch.images[1], atol=1e-4, rtol=0)
    assert torch.equal(batch.codes, batch.images)
    assert 0 <= batch.images.min() <= batch.images.max() <= 1
    torch.testing.assert_close(batch.scores[-1], classifier(batch.images).diagonal())
    assert (batch.scores[-1] > batch.scores[0] + 1).all()
    assert len(list(pixel.iterate(2, runs=2, steps=3, least_steps=3))) == 3


def test_total_variation_and_decay_smooth(classifier: nn.Module) -> None:
    pixel = PixelAM(classifier, (1, 8, 8), decay=0.1, variation=0.01)
    images = torch.rand(2, 1, 8, 8)
    expected = images.clone()
    expected.requires_grad_()
    (expected.diff(dim=2).abs().sum() + expected.diff(dim=3).abs().sum()).backward()
    assert expected.grad is not None
    moved = (0.95 * images - 0.005 * expected.grad).clamp(0, 1)
    torch.testing.assert_close(pixel.move(images, 0.5, []), moved)


def test_jitter_rolls_each_image_by_up_to_its_pixels(classifier: nn.Module) -> None:
    pixel = PixelAM(classifier, (1, 8, 8), jitter=2)
    images = torch.rand(60, 1, 8, 8, generator=torch.Generator().manual_seed(0), requires_grad=True)
    weights = torch.arange(64.0).view(1, 8, 8)
    seen: list[Tensor] = []

    def score(shifted: Tensor) -> Tensor:
        seen.append(shifted.detach())
        return (shifted * weights).sum((1, 2, 3))

    randoms = [torch.Generator().manual_seed(seed) for seed in range(60)]
    objective = pixel.objective(torch.zeros(60), images, randoms, score)
    (gradient,) = torch.autograd.grad(objective.sum(), images)
    met = set()
    for image, shifted, slope in zip(images.detach(), seen[0], gradient, strict=True):
        rolls = [(down, right) for down in range(-7, 8) for right in range(-7, 8)]
        shift = next(roll for roll in sorted(rolls, key=lambda roll: roll[0] ** 2 + roll[1] ** 2)
                     if torch.equal(image.roll(roll, (1, 2)), shifted))  # fmt: skip
        met.add(shift)
        assert torch.equal(slope, weights.roll((-shift[0], -shift[1]), (1, 2))), "the signal is shifted back"
    numbers = {-2, -1, 0, 1, 2}
    assert {down for down, _ in met} == {right for _, right in met} == numbers
    assert len(met) > 15, "both shifts are drawn"

    value = torch.rand(60)
    assert PixelAM(classifier, (1, 8, 8)).objective(value, images, randoms, score) is value


@pytest.mark.parametrize("name", ["decay", "variation", "jitter", "contrast"])
def test_negative_settings_of_pixels_are_refused(name: str, classifier: nn.Module) -> None:
    with pytest.raises(ValueError, match=f"{name}=-1"):
        PixelAM(classifier, (1, 8, 8), **{name: -1})  # type: ignore[arg-type]


@pytest.mark.parametrize(("layer", "channels", "side"), [("body.conv1", 16, 28), ("body.conv3", 64, 7)])
def test_pixels_reach_the_best_response_to_real_digits(layer: str, channels: int, side: int, real_data: Path) -> None:
    """Pre-activations of the shipped classifier, of whole channels and of the position in the middle."""
    digits = read("mnist", train=False, folder=real_data).values()[:1000]
    some = range(0, channels, channels // 8)
    units: list[Any] = [*some, *((channel, side // 2, side // 2) for channel in some)]
    result = PixelAM(load_classifier("mnist-classifier"), (1, 28, 28), layer).maximize(units, seeds=range(16), steps=60)
    reached = result.scores[-1] >= best_of_real(result, digits)
    assert reached.float().mean() >= 0.9


@pytest.mark.slow
def test_pixels_reach_the_best_response_to_real_photographs(real_data: Path) -> None:
    """All-CNN-C, normalised CIFAR-10."""
    network = models.load("all-cnn-c").network
    photographs = cifar10(real_data / "cifar10", train=False)[0][:150].float() / 255
    units: list[Any] = [*range(0, 96, 24), *((channel, 8, 8) for channel in range(12, 96, 24))]
    pixel = PixelAM(network, (3, 32, 32), "features.conv3", transform=normalise)
    result = pixel.maximize(units, seeds=range(8), steps=25)
    reached = result.scores[-1] >= best_of_real(result, photographs)
    assert reached.float().mean() >= 0.9


# --- files ------------------------------------------------------------------------------------------------------------


def test_a_grid_shows_every_image_once(tmp_path: Path) -> None:
    images = torch.linspace(0, 1, 5).view(5, 1, 1, 1).expand(5, 1, 4, 4)
    picture = grid(images, columns=3, side=8, gap=1)
    assert picture.size == (1 + 3 * 9, 1 + 2 * 9)
    assert [picture.getpixel((1 + 9 * (i % 3), 1 + 9 * (i // 3)))[0] for i in range(5)] == [0, 64, 128, 191, 255]
    save_grid(images, tmp_path / "deep" / "grid.png")
    with Image.open(tmp_path / "deep" / "grid.png") as picture:
        assert picture.mode == "RGB"
    with pytest.raises(ValueError, match=r"not \(5, 4, 4\)"):
        grid(images[:, 0])


def test_a_gif_plays_the_frames(am: CodeSpaceAM, tmp_path: Path) -> None:
    path = save_gif(am.iterate(1, runs=4, steps=6, least_steps=6), tmp_path / "run.gif")
    with Image.open(path) as film:
        assert film.n_frames == 6  # type: ignore[attr-defined]
    colour = [torch.rand(2, 3, 4, 4) for _ in range(3)]
    with Image.open(save_gif(colour, tmp_path / "colour.gif")) as film:
        assert film.n_frames == 3  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="at least one frame"):
        save_gif([], tmp_path / "none.gif")


@pytest.mark.parametrize("channels", [1, 3])
def test_a_long_film_is_thinned_and_takes_as_long(channels: int, tmp_path: Path) -> None:
    frames = [torch.full((2, channels, 4, 4), step / 255) for step in range(23)]
    film = Film(most_bytes=5 * frames[0].numel())
    for frame in frames:
        film.add(frame)
        assert len(film.frames) <= 6
    assert [int(frame[0, 0, 0, 0]) for frame in film.frames] == [0, 8, 16, 22]
    assert all(frame.dtype == torch.uint8 for frame in film.frames)
    with Image.open(film.save(tmp_path / "film.gif", side=4, milliseconds=20)) as shown:
        assert shown.n_frames == 4  # type: ignore[attr-defined]
        assert shown.info["duration"] == 20 * 8
        shown.seek(3)
        assert shown.convert("RGB").getpixel((2, 2)) == (22, 22, 22)
        assert shown.info["duration"] == 2000


def test_the_command_writes_grid_and_film(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = ["--out", str(tmp_path / "a.png"), "--gif", str(tmp_path / "a.gif")]
    assert main(["maximize", "--gan", "gan-mnist", "--target", "0", "7", "--runs", "2", "--steps", "8", *files]) == 0
    printed = capsys.readouterr().out
    assert "0: 2 of 2 runs reached 0.99" in printed
    assert "7: 2 of 2 runs reached 0.99" in printed
    assert (tmp_path / "a.gif").exists()
    unit = ["--layer", "body.conv2", "--target", "3,5,5", "--runs", "1", "--steps", "3", "--out", files[1]]
    assert main(["maximize", "--gan", "gan-mnist", *unit]) == 0
    assert "(3, 5, 5): value" in capsys.readouterr().out
    assert main(["maximize", "--gan", "gan-mnist", "--target", "10", "--out", files[1]]) == 2
    assert "has no unit 10" in capsys.readouterr().err
