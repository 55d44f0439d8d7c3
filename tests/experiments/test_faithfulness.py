"""Deletion and insertion against a literal computation, and on maps whose worth is known."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from plugin import models
from plugin.attr import LRPTranspose
from plugin.experiments.faithfulness import removal_curves


def literal(network: nn.Module, picture: Tensor, relevance: Tensor, side: int, steps: int) -> tuple[list[float], ...]:
    """Deletion and insertion of one picture (C, H, W), region by region and pixel by pixel."""
    channels, height, width = picture.shape
    corners = [(row, column) for row in range(0, height, side) for column in range(0, width, side)]

    def pixels(corner: tuple[int, int]) -> list[tuple[int, int]]:
        rows, columns = (
            range(start, min(start + side, end)) for start, end in zip(corner, (height, width), strict=True)
        )
        return [(row, column) for row in rows for column in columns]

    def mean(corner: tuple[int, int]) -> float:
        values = [sum(float(relevance[c, row, column]) for c in range(channels)) for row, column in pixels(corner)]
        return sum(values) / len(values)

    order = sorted(corners, key=mean, reverse=True)
    colour = [float(picture[channel].mean()) for channel in range(channels)]
    curves: tuple[list[float], list[float]] = ([], [])
    for step in range(steps + 1):
        last = round(len(order) * step / steps)
        for curve, gone in zip(curves, (order[:last], order[last:]), strict=True):
            changed = picture.clone()
            for corner in gone:
                for row, column in pixels(corner):
                    for channel in range(channels):
                        changed[channel, row, column] = colour[channel]
            curve.append(float(network(changed[None])[0, 1]))
    return curves


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return layers.double().requires_grad_(False)


@pytest.mark.parametrize(("side", "steps"), [(1, 5), (2, 4), (4, 3), (9, 1)])
def test_curves_and_areas_are_those_of_the_definition(
    network: nn.Module, images: Tensor, side: int, steps: int
) -> None:
    pictures = images.double()
    relevance = torch.randn(pictures.shape, generator=torch.Generator().manual_seed(5)).double()
    found = removal_curves(lambda seen: network(seen)[:, 1], pictures, relevance, steps, region=side)
    for index in range(len(pictures)):
        deletion, insertion = literal(network, pictures[index], relevance[index], side, steps)
        assert found.deletion[index].tolist() == pytest.approx(deletion, abs=1e-12)
        assert found.insertion[index].tolist() == pytest.approx(insertion, abs=1e-12)
        shares = found.shares.tolist()
        area = sum(
            (right - left) * (deletion[place] + deletion[place + 1]) / 2
            for place, (left, right) in enumerate(pairwise(shares))
        )
        assert float(found.deletion_area[index]) == pytest.approx(area, abs=1e-7)
    assert found.shares[0] == 0
    assert found.shares[-1] == 1


def linear(weights: Tensor) -> nn.Module:
    """A score that is the sum of weight times pixel: the share of each pixel is known."""
    module = nn.Sequential(nn.Flatten(), nn.Linear(weights.numel(), 1, bias=False)).requires_grad_(False)
    module[1].weight.copy_(weights.flatten()[None])
    return module


def test_true_map_wins_its_negative_loses_and_random_ones_are_in_between() -> None:
    generator = torch.Generator().manual_seed(0)
    weights = torch.rand(1, 1, 16, 16, generator=generator)
    picture = torch.rand(1, 1, 16, 16, generator=generator)
    network, empty = linear(weights), torch.zeros(1, 1, 1, 1)
    shares = weights * picture  # of the score, exactly

    def ratio(relevance: Tensor) -> float:
        return float(removal_curves(lambda seen: network(seen)[:, 0], picture, relevance, empty=empty).ratio)

    best, worst = ratio(shares), ratio(-shares)
    assert best > 1.4
    assert best + worst == pytest.approx(2, abs=1e-4)  # the negative deletes in the order in which the map inserts
    random = [ratio(torch.randn(picture.shape, generator=generator)) for _ in range(30)]
    assert sum(random) / len(random) == pytest.approx(1, abs=0.05)
    assert max(random) < best
    assert ratio(3 * shares + 7) == pytest.approx(best)  # only the order counts


def test_random_orders_have_the_mean_of_a_straight_line_for_a_linear_score() -> None:
    picture = torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    network = linear(torch.ones(picture.shape))
    found = removal_curves(lambda seen: network(seen)[:, 0], picture, picture, orders=64, empty=torch.zeros(1, 1, 1, 1))
    straight = found.deletion[:, :1] * (1 - found.shares)
    torch.testing.assert_close(found.random.mean(0), straight, rtol=0, atol=0.02 * float(found.fall))
    assert 0 < float(found.spread) < 0.05


def test_a_trained_network_is_predicted_by_its_relevance_and_not_by_the_negative() -> None:
    model = models.load("all-cnn-c")
    inputs = model.preprocess(models.sample_images()["coffee"])
    target = int(model.network(inputs).argmax())
    relevance = LRPTranspose(model.network, "epsilon_plus_flat").attribute(inputs, target=target)
    ratios = [
        float(removal_curves(lambda seen: model.network(seen)[:, target], inputs, sign * relevance).ratio)
        for sign in (1, -1)
    ]
    assert ratios[0] > 1.3
    assert ratios[1] < 0.7


@pytest.mark.parametrize("batch", [1, 6, 1000])
def test_batch_changes_nothing(network: nn.Module, images: Tensor, batch: int) -> None:
    def curves(batch: int) -> Tensor:
        found = removal_curves(lambda seen: network(seen)[:, 0], images.double(), images, batch=batch)
        return torch.cat([found.deletion, found.insertion, *found.random])

    torch.testing.assert_close(curves(batch), curves(8))


def test_result_depends_on_the_seed_of_the_random_orders_alone(network: nn.Module, images: Tensor) -> None:
    pictures, state = images.double(), torch.get_rng_state()

    def curves(seed: int, which: slice = slice(None)) -> Tensor:
        return removal_curves(lambda seen: network(seen)[:, 0], pictures[which], pictures[which], seed=seed).random

    assert torch.equal(curves(1), curves(1))
    assert not torch.equal(curves(1), curves(5))
    torch.testing.assert_close(curves(1, slice(1, 2)), curves(1)[:, 1:])
    assert torch.equal(state, torch.get_rng_state())


def test_passes_are_counted_and_can_be_ended(network: nn.Module, images: Tensor) -> None:
    passes: list[int] = []

    def before_pass() -> None:
        passes.append(1)
        if len(passes) == 12:
            raise KeyboardInterrupt

    def measure() -> None:
        removal_curves(lambda seen: network(seen)[:, 0], images.double(), images, before_pass=before_pass)

    measure()
    assert len(passes) == 10  # of 2 + 7 * 5 versions of two pictures, eight pictures at a time
    with pytest.raises(KeyboardInterrupt):
        measure()
    assert len(passes) == 12


@pytest.mark.parametrize(
    ("change", "message"),
    [({"attribution": torch.zeros(2, 3, 9, 8)}, "does not fit"), ({"attribution": torch.full((2, 3, 9, 9), torch.nan)},
     "not finite"), ({"steps": 0}, "steps=0"), ({"orders": 1}, "orders=1"), ({"region": 0}, "region=0")],
)  # fmt: skip
def test_what_has_no_curve_is_refused(
    network: nn.Module, images: Tensor, change: dict[str, object], message: str
) -> None:
    arguments = {"attribution": images, **change}
    with pytest.raises(ValueError, match=message):
        removal_curves(lambda seen: network(seen)[:, 0], images.double(), **arguments)  # type: ignore[arg-type]
