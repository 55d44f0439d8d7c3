"""The three figures on networks whose answer is known, the parts that are read again, and the report."""

import argparse
import itertools
import json
import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.helpers import assert_unchanged, snapshot
from torch import Tensor, nn
from torch.nn import functional as F

from gan import MLPGAN
from plugin.experiments.invariance import (
    LayerInvariance,
    MaximisingSet,
    PictureResponse,
    invariance,
    maximising_sets,
    median_responses,
    response_quartiles,
    spherical_interpolation,
    study,
    study_command,
    sufficiency,
    transform,
    vendi_score,
)
from plugin.experiments.invariance.figures import firing_figure, invariance_figure, maximising_set_figure
from plugin.experiments.invariance.study import StudySubject
from plugin.experiments.sanity import untrained
from plugin.experiments.units import layers_with_units, output_layer, responses_in_the_middle


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def linear_network(*weights: Tensor, shape: tuple[int, int, int] = (1, 4, 4)) -> nn.Sequential:
    """One linear unit per row of weights, on flattened images."""
    layer = nn.Linear(math.prod(shape), len(weights), bias=False)
    layer.weight.data = torch.stack([weight.flatten() for weight in weights])
    return nn.Sequential(nn.Flatten(), layer).eval()


def convolutional_network() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 5, 3),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(5 * 4 * 4, 4),
        ).eval()


@dataclass
class Found:
    images: Tensor
    codes: Tensor


class Prepared:
    """A maximiser that returns images prepared for it, one per target, and records its arguments."""

    def __init__(self, images: Tensor) -> None:
        self.images, self.asked = images, []

    def maximize(self, target: Any, *, seeds: Sequence[int]) -> Found:
        self.asked.append((target, list(seeds)))
        return Found(self.images, self.images.flatten(1))


# Transformations


@pytest.mark.parametrize(("direction", "rows", "columns"), [(0, 0, 3), (1, 3, 0), (2, 0, -3), (3, -3, 0)])
def test_shifts_copy_pixels(direction: int, rows: int, columns: int) -> None:
    images = F.pad(random(2, 3, 6, 5), (3, 4, 4, 3))
    shifted = transform(images, "shift", 3, torch.full((2,), direction))
    torch.testing.assert_close(shifted, images.roll((rows, columns), (2, 3)), atol=1e-5, rtol=0)


def test_a_quarter_turn_and_a_change_of_scale() -> None:
    images = random(1, 2, 7, 7)
    for direction, turns in ((0, -1), (1, 1)):
        turned = transform(images, "rotation", 90, torch.tensor([direction]))
        torch.testing.assert_close(turned, images.rot90(turns, (2, 3)), atol=1e-5, rtol=0)
    larger = transform(images, "scale", 2, torch.tensor([0]))
    torch.testing.assert_close(larger[:, :, 1::2, 1::2], images[:, :, 2:5, 2:5], atol=1e-5, rtol=0)
    smaller = transform(images, "scale", 2, torch.tensor([1]))
    torch.testing.assert_close(smaller[:, :, 2:5, 2:5], images[:, :, 1::2, 1::2], atol=1e-5, rtol=0)


# A


def test_the_mean_of_a_colour_is_invariant_to_shifts() -> None:
    """Its images have black borders, so no colour leaves them: all that fire still do, and no others."""
    images = F.pad(random(40, 3, 5, 5).abs(), (4, 4, 4, 4))
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    (layer,) = invariance(network.eval(), images, [""], amounts={"shift": (1, 2, 4)}, rate=0.1)
    assert layer.channels == [0, 1, 2]
    assert layer.rate == 0.1
    assert layer.local == layer.overall | {"shift": [[1.0] * 3] * 3}
    assert layer.scores("shift") == pytest.approx([10] * 3)
    assert torch.tensor(layer.overall["shift"]).sub(0.1).abs().max() < 1e-12


def test_a_pixel_is_invariant_to_rotation_about_it_and_to_no_shift() -> None:
    images = torch.zeros(40, 3, 12, 12)
    images[:, :, 6, 6] = random(40, 3).abs()
    network = nn.Conv2d(3, 3, 1, bias=False).eval()
    network.weight.data = torch.eye(3)[:, :, None, None]
    (layer,) = invariance(network, images, amounts={"shift": (1, 3), "rotation": (10, 90), "scale": (2,)}, rate=0.1)
    assert layer.local == {"shift": [[0.0] * 2] * 3, "rotation": [[1.0] * 2] * 3, "scale": [[1.0]] * 3}


def test_rates_are_shares_of_images() -> None:
    """Against a count, image by image, of a unit that sees one pixel: 3 of 30 fire."""
    images = random(30, 1, 8, 8)
    network = nn.Conv2d(1, 1, 1, bias=False).eval()
    nn.init.ones_(network.weight)
    (layer,) = invariance(network, images, amounts={"shift": (1,)}, rate=0.1, seed=3)
    neighbours = torch.stack([images[:, 0, 4, 3], images[:, 0, 3, 4], images[:, 0, 4, 5], images[:, 0, 5, 4]], dim=1)
    firing = images[:, 0, 4, 4].argsort(descending=True)
    low, high = (float(images[firing[place], 0, 4, 4]) for place in (3, 2))
    possible = neighbours > (low + high) / 2
    assert layer.local["shift"][0][0] * 3 == pytest.approx(round(layer.local["shift"][0][0] * 3))
    assert possible[firing[:3]].all(1).sum() / 3 <= layer.local["shift"][0][0] <= possible[firing[:3]].any(1).sum() / 3
    assert possible.all(1).sum() / 30 <= layer.overall["shift"][0][0] <= possible.any(1).sum() / 30


def test_units_without_a_threshold_are_left_out() -> None:
    network = nn.Conv2d(3, 3, 1).eval()
    network.weight.data[1] = 0
    (layer,) = invariance(network, random(20, 3, 8, 8), amounts={"shift": (1,)}, rate=0.1)
    assert layer.channels == [0, 2]
    network.weight.data[:] = 0
    (layer,) = invariance(network, random(20, 3, 8, 8), amounts={"shift": (1,)}, rate=0.1)
    assert layer.channels == []
    assert math.isnan(layer.median_score("shift"))


def test_agreement_is_the_share_of_pairs_of_one_class() -> None:
    """Four fire: of one class, of two twos, of three and one, of four classes: 6, 2, 3 and 0 of 6 pairs."""
    images = torch.zeros(40, 4, 8, 8)
    labels = torch.arange(40) % 4
    firing = {0: [0, 4, 8, 12], 1: [0, 4, 1, 5], 2: [2, 6, 10, 1], 3: [0, 1, 2, 3]}
    for channel, chosen in firing.items():
        images[chosen, channel] = 1 + torch.rand(4, 1, 1, generator=torch.Generator().manual_seed(channel))
    network = nn.Conv2d(4, 4, 1, bias=False).eval()
    network.weight.data = torch.eye(4)[:, :, None, None]
    (layer,) = invariance(network, images, labels=labels, amounts={"shift": (1,)}, rate=0.1)
    assert layer.agreement == pytest.approx([1, 1 / 3, 1 / 2, 0])
    figure = invariance_figure({"trained": [layer]})
    assert [list(trace.y) for trace in figure.data if trace.mode == "lines+markers"][1] == [pytest.approx(5 / 12)]


def test_layers_are_summed_up_by_the_median_and_by_the_top_fifth() -> None:
    local = {"shift": [[share, share / 2] for share in (0.0, 0.4, 0.8, 0.2, 0.1, 0.0, 1.0, 0.3, 0.5, 0.6)]}
    layer = LayerInvariance("a", list(range(10)), 0.01, {"shift": [1.0, 2.0]}, local, local, [])
    assert layer.median_score("shift") == pytest.approx(75 * 0.35)
    assert layer.top_score("shift") == pytest.approx(75 * 0.9)
    assert layer.rate_at("shift") == pytest.approx([0.39, 0.195])


def test_invariance_depends_on_the_seed_alone_and_leaves_the_network() -> None:
    network, images = convolutional_network(), random(40, 3, 12, 12)
    before = snapshot(network)
    first, again, other = (
        invariance(network, images, rate=0.1, batch_size=size, seed=seed) for size, seed in ((40, 0), (7, 0), (40, 1))
    )
    assert_unchanged(before, network)
    assert [layer.layer for layer in first] == ["0", "3", "6"]
    assert first == again
    assert first != other
    assert [LayerInvariance(**layer) for layer in json.loads(json.dumps([asdict(layer) for layer in first]))] == first


def test_what_cannot_be_measured_is_refused() -> None:
    network, images = convolutional_network(), random(40, 3, 12, 12)
    with pytest.raises(ValueError, match="at least 1 / rate"):
        invariance(network, images)
    with pytest.raises(ValueError, match="unknown transformation 'shear'"):
        invariance(network, images, amounts={"shear": (1,)}, rate=0.1)
    with pytest.raises(ValueError, match="no layer 'conv9'"):
        invariance(network, images, ["conv9"], rate=0.1)
    with pytest.raises(ValueError, match="as many as runs"):
        maximising_sets(network, images[:3], lambda codes: codes, lambda layer: Prepared(images))
    for measure in (invariance, sufficiency):
        with pytest.raises(ValueError, match="call eval"):
            measure(network.train(), images)


# B


def test_a_linear_unit_needs_no_more_than_its_weights() -> None:
    """By Cauchy and Schwarz: the response to w, scaled to |x|, over w x is 1 / cos(w, x); to p, cos(w, p) of that."""
    weights, images = random(3, 1, 4, 4), random(20, 1, 4, 4, seed=1)
    pictures = random(3, 1, 4, 4, seed=2)
    maker = Prepared(pictures)
    found = sufficiency(linear_network(*weights), images, maximizers={"prepared": lambda layer: maker}, seed=5)
    assert [unit.unit for unit in found] == [[0], [1], [2]]
    assert maker.asked == [([0, 1, 2], [5, 6, 7])]
    for unit, weight, picture in zip(found, weights, pictures, strict=True):
        responses = images.flatten(1) @ weight.flatten()
        cosine, other = (
            float(F.cosine_similarity(weight.flatten(), image.flatten(), dim=0))
            for image in (images[responses.argmax()], picture)
        )
        assert unit.best == pytest.approx(float(responses.max()))
        exact = dict.fromkeys(("no image", "guided", "gradient"), 1 / cosine) | {"prepared": other / cosine}
        assert unit.responses == pytest.approx(exact, rel=1e-4)


def test_one_picture_cannot_show_a_unit_that_likes_two_opposite_ones() -> None:
    """|w x| = relu(w x) + relu(-w x): the deconvnet adds w and -w, while guided backprop draws the one of its image."""
    weight, images = random(1, 4, 4), random(20, 1, 4, 4, seed=1)
    network = linear_network(weight, -weight)
    network.extend([nn.ReLU(), nn.Linear(2, 1, bias=False)]).eval()
    nn.init.ones_(network[-1].weight)
    (unit,) = sufficiency(network, images, ["3"])
    best = images[(images.flatten(1) @ weight.flatten()).abs().argmax()]
    cosine = float(F.cosine_similarity(weight.flatten(), best.flatten(), dim=0))
    assert unit.responses["no image"] == pytest.approx(0, abs=1e-6)
    assert unit.responses["guided"] == pytest.approx(1 / abs(cosine), rel=1e-4)


def test_pictures_of_a_maximiser_become_inputs() -> None:
    """Scaling comes last: as inputs, and on the pixels that the unit sees."""
    network, images = nn.Conv2d(1, 2, 3, padding=1, bias=False).eval(), random(20, 1, 8, 8)
    pictures = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    maker = Prepared(pictures)
    found = sufficiency(network, images, None, 2, {"prepared": lambda layer: maker}, lambda picture: 2 * picture - 1)
    assert maker.asked[0][0] == [(0, 4, 4), (1, 4, 4)]
    for unit, picture, weight in zip(found, 2 * pictures - 1, network.weight.detach(), strict=True):
        patches = images[:, :, 3:6, 3:6].flatten(1)
        responses, patch = patches @ weight.flatten(), picture[:, 3:6, 3:6].flatten()
        scale = patches[responses.argmax()].norm() / patch.norm()
        exact = float(weight.flatten() @ patch * scale / responses.max())
        assert unit.responses["prepared"] == pytest.approx(exact, rel=1e-4)


def test_quartiles_are_by_layer_and_method() -> None:
    responses = [PictureResponse("x", [index], 1.0, {"a": value}) for index, value in enumerate((4.0, 0.0, 1.0, 3.0))]
    assert response_quartiles(responses) == {"x": {"a": (0.75, 2.0, 3.25)}}


def test_medians_are_by_layer_and_method() -> None:
    responses = [
        PictureResponse(layer, [index], 1.0, {"a": value, "b": -value})
        for index, (layer, value) in enumerate((("x", 1.0), ("x", 5.0), ("x", 2.0), ("y", 7.0)))
    ]
    assert median_responses(responses) == {"x": {"a": 2.0, "b": -2.0}, "y": {"a": 7.0, "b": -7.0}}


# C


@pytest.mark.parametrize("clusters", [1, 2, 5])
def test_the_vendi_score_counts_orthogonal_clusters(clusters: int) -> None:
    directions = torch.linalg.qr(random(7, 7)).Q[:clusters]
    members = directions.repeat(3, 1) * torch.rand(3 * clusters, 1, generator=torch.Generator().manual_seed(0))
    assert vendi_score(members) == pytest.approx(clusters, rel=1e-5)


def test_the_spherical_interpolation_turns_evenly() -> None:
    first, second = (
        torch.tensor([[2.0, 0, 0], [1, 0, 0], [1, 1, 0]]),
        torch.tensor([[0, 2.0, 0], [3, 0, 0], [-1, -1, 0]]),
    )
    paths = spherical_interpolation(first, second, 5)
    angles = torch.linspace(0, math.pi / 2, 5)
    torch.testing.assert_close(paths[0], 2 * torch.stack([angles.cos(), angles.sin(), 0 * angles], dim=1))
    torch.testing.assert_close(paths[1, :, 0], torch.linspace(1, 3, 5))  # parallel: straight
    assert paths.isfinite().all()  # opposite
    torch.testing.assert_close(paths[:, 0], first)
    torch.testing.assert_close(paths[:, -1], second)


def test_codes_of_another_device_are_interpolated_there() -> None:
    first, second = torch.ones(2, 3, 4, device="meta")
    assert spherical_interpolation(first, second, 5).device == first.device


def sets_of(network: nn.Module, codes: Tensor, **options: Any) -> MaximisingSet:
    """The set that a maximiser with these solutions gives, in the codes of the identity."""
    images = torch.cat([random(20, 1, 4, 4, seed=1), -random(20, 1, 4, 4, seed=1)])  # of mean zero
    pictures = codes.view(-1, 1, 4, 4)
    (found,) = maximising_sets(
        network,
        images,
        lambda code: code.view(-1, 1, 4, 4),
        lambda _: Prepared(pictures),
        runs=len(codes),
        enough=0,
        **options,
    )
    return found


def test_no_valley_parts_the_solutions_of_a_unit_with_one_hill() -> None:
    """On the arc between two codes as far from w as each other, w x is nowhere smaller than at its ends."""
    axes = torch.linalg.qr(random(16, 16)).Q
    codes = torch.stack([axes[0] + side for side in (axes[1], -axes[1], axes[2], -axes[2])])
    found = sets_of(linear_network(axes[0]), codes)
    assert found.barriers == pytest.approx([0] * 6, abs=1e-6)
    assert found.barrier == pytest.approx(0, abs=1e-6)
    assert found.islands() == 1
    assert found.profile[0] == pytest.approx(1)
    assert found.profile[5] == pytest.approx(1 / math.cos(math.pi / 6), rel=1e-5)  # most pairs are 60 degrees apart
    assert found.responses == pytest.approx([1] * 4, rel=1e-5)


VALLEY = 1 - 2 * (math.sqrt(0.5) - 0.6) / 0.4  # the barrier between two hills


def two_hills(first: Tensor, second: Tensor) -> nn.Module:
    """relu(u x - .6) + relu(v x - .6), u and v orthogonal: .4 on the hills, 2 (cos 45 - .6) midway between them."""
    network = linear_network(first, second)
    network.extend([nn.ReLU(), nn.Linear(2, 1, bias=False)]).eval()
    network[1].bias = nn.Parameter(torch.full((2,), -0.6))
    nn.init.ones_(network[-1].weight)
    return network


def test_a_valley_parts_the_solutions_of_a_unit_with_two_hills() -> None:
    axes = torch.linalg.qr(random(16, 16)).Q
    found = sets_of(two_hills(axes[0], axes[1]), axes[[0, 1, 0, 1]], layers=["3"], points=3)
    exact = [0 if (one - other) % 2 == 0 else VALLEY for one, other in itertools.combinations(range(4), 2)]
    assert found.barriers == pytest.approx(exact, abs=1e-5)
    assert found.islands() == 2
    assert found.islands(tolerance=0.5) == 1
    assert found.modes == pytest.approx(2, rel=1e-5)
    assert found.path_over_the_highest_barrier(3)[1] == pytest.approx(((axes[0] + axes[1]) / math.sqrt(2)).tolist())
    assert MaximisingSet(**json.loads(json.dumps(asdict(found)))) == found


def test_barriers_within_a_branch_are_apart_from_those_between_two() -> None:
    """The generator adds an offset that the larger of two entries chooses; the unit sees a hill at each offset."""
    axes = torch.linalg.qr(random(16, 16)).Q
    network = two_hills(axes[0], axes[1])
    codes = axes[[0, 1, 0, 1]] @ axes.T  # in the axes, so that the first two entries tell the hill
    images = torch.cat([random(20, 1, 4, 4, seed=1), -random(20, 1, 4, 4, seed=1)])
    generate = lambda code: (code @ axes).view(-1, 1, 4, 4)  # noqa: E731
    options: dict[str, Any] = {"runs": 4, "enough": 0, "points": 3}
    maker = lambda _: Prepared(codes.view(-1, 1, 4, 4))  # noqa: E731
    choose = lambda code: code[:, :2].argmax(1)  # noqa: E731
    (found,) = maximising_sets(network, images, generate, maker, ["3"], **options, branch_of=choose)
    assert found.branches == [0, 1, 0, 1]
    assert found.barrier_within == pytest.approx(0, abs=1e-5)
    assert found.barrier_between == pytest.approx(VALLEY, abs=1e-5)
    assert found.relative_modes == found.modes / found.modes_of_best
    (plain,) = maximising_sets(network, images, generate, maker, ["3"], **options)
    assert plain.branches == []
    assert plain.barrier_within == plain.barrier
    assert math.isnan(plain.barrier_between)


def test_units_of_a_layer_are_maximised_together_and_described_apart() -> None:
    weights, images = random(2, 1, 4, 4), random(20, 1, 4, 4, seed=1)
    codes = random(6, 16, seed=2)
    maker = Prepared(codes.view(6, 1, 4, 4))
    network, generate = linear_network(*weights), lambda code: code.view(-1, 1, 4, 4)
    found = maximising_sets(network, images, generate, lambda _: maker, [""], None, runs=3, enough=0, seed=7)
    assert maker.asked == [([0, 0, 0, 1, 1, 1], [7, 8, 9, 7, 8, 9])]
    for unit, weight, own in zip(found, weights, codes.split(3), strict=True):
        exact = own @ weight.flatten()
        assert unit.responses == pytest.approx(exact[exact > 0].tolist(), rel=1e-5)


def test_runs_that_do_not_reach_half_of_the_best_response_are_no_solutions() -> None:
    network = nn.Conv2d(1, 1, 1, bias=False).eval()
    nn.init.ones_(network.weight)
    images = random(20, 1, 4, 4)
    shares = torch.tensor([0.45, 0.55, 2.0, -3.0])
    codes = images[:4].flatten(1).index_fill(1, torch.tensor([10]), 0) + F.one_hot(torch.tensor(10), 16) * (
        shares * images[:, 0, 2, 2].max()
    ).view(-1, 1)
    maker = Prepared(codes.view(4, 1, 4, 4))
    (found,) = maximising_sets(network, images, lambda code: code.view(-1, 1, 4, 4), lambda _: maker, runs=4)
    assert found.codes == codes[1:3].tolist()
    assert [response / found.best_responses[0] for response in found.responses] == pytest.approx([0.55, 2])
    with pytest.raises(ValueError, match="enough=-1"):
        maximising_sets(network, images, lambda code: code, lambda _: maker, enough=-1)


def test_one_solution_has_no_paths() -> None:
    axes = torch.linalg.qr(random(16, 16)).Q
    found = sets_of(linear_network(axes[0]), torch.stack([axes[0], -axes[0]]))
    assert (found.runs, len(found.codes)) == (2, 1)
    assert found.barriers == found.profile == []
    assert math.isnan(found.barrier)
    assert (found.islands(), found.path_over_the_highest_barrier(5)) == (1, [])


def test_only_pixels_that_the_unit_sees_make_modes() -> None:
    """Solutions that agree where the unit looks are one, whatever lies around it."""
    network = nn.Conv2d(1, 1, 1, bias=False).eval()
    nn.init.ones_(network.weight)
    codes = random(4, 16).abs()
    found = sets_of(network, codes)
    assert found.unit == [0, 2, 2]
    assert found.modes == pytest.approx(1)
    assert vendi_score(codes) > 1.1


# Untrained networks, and which layers have units


def test_an_untrained_network_is_fresh_and_the_trained_one_untouched() -> None:
    network = convolutional_network()
    before = snapshot(network)
    fresh, again, other = untrained(network), untrained(network), untrained(network, seed=1)
    assert_unchanged(before, network)
    assert not any(module.training for module in fresh.modules())
    for layer in (0, 3, 6):
        assert torch.equal(fresh[layer].weight, again[layer].weight)
        assert not torch.equal(fresh[layer].weight, other[layer].weight)
        assert not fresh[layer].bias.any()
        inputs = fresh[layer].weight[0].numel()
        assert float(fresh[layer].weight.detach().std()) == pytest.approx(math.sqrt(2 / inputs), rel=0.2)


def test_the_output_is_a_layer_unless_another_returns_it() -> None:
    network, images = convolutional_network(), random(2, 3, 12, 12)
    assert layers_with_units(network, images) == ["0", "3", "6"]
    assert output_layer(network, images) == "6"
    ending = nn.Sequential(*network, nn.Softmax(1))
    assert layers_with_units(ending, images) == ["0", "3", "6", ""]
    assert output_layer(ending, images) == ""
    responses = responses_in_the_middle(ending, images, ["6", ""], batch_size=1)
    with torch.no_grad():
        torch.testing.assert_close(responses[""][0], ending(images))
        torch.testing.assert_close(responses["6"][0], network(images))
    assert [responses[name][1] for name in ("0", "3", "6")] == [(6, 6), (2, 2), ()]
    with pytest.raises(ValueError, match=r"layer '0' returns no \(N, channels"):
        responses_in_the_middle(nn.Sequential(nn.Flatten(2)), images, ["0"])
    network.forward = lambda inputs: network[0](inputs)
    with pytest.raises(ValueError, match="does not run its layer '3'"):
        responses_in_the_middle(network, images, ["3"])


# The command line


def options_of(**changed: Any) -> argparse.Namespace:
    chosen = {"figures": ["A", "B"], "maximize": [], "layers": None, "units": 2, "runs": 4, "steps": 5, "seed": 0}
    return argparse.Namespace(**(chosen | changed))


def test_finished_parts_are_read_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    subject = StudySubject("net", convolutional_network(), random(100, 3, 12, 12))
    (first,) = study_command.run([subject], tmp_path / "new", options_of(figures=["A"]), {})
    assert "net-trained A" in capsys.readouterr().err
    part = tmp_path / "new" / "net-trained-A.json"
    content = json.loads(part.read_text())
    content["results"][0]["channels"] = [77]
    part.write_text(json.dumps(content))
    (second,) = study_command.run([subject], tmp_path / "new", options_of(figures=["A"]), {})
    assert second.invariance["trained"][0].channels == [77]
    assert second.invariance["untrained"] == first.invariance["untrained"]
    (third,) = study_command.run([subject], tmp_path / "new", options_of(figures=["A"], seed=1), {})
    assert third.invariance["trained"][0].channels == first.invariance["trained"][0].channels
    with torch.no_grad():
        subject.network[0].weight.mul_(2)
    part.write_text(json.dumps(content))
    (fourth,) = study_command.run([subject], tmp_path / "new", options_of(figures=["A"]), {})
    assert fourth.invariance["trained"][0].channels != [77]


def test_an_interrupted_run_leaves_what_it_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    subject = StudySubject("net", convolutional_network(), random(100, 3, 12, 12))
    measure = study.sufficiency

    def interrupted(network: nn.Module, images: Tensor, layers: Sequence[str], *more: Any) -> list[PictureResponse]:
        if layers == ["3"]:
            raise KeyboardInterrupt
        return measure(network, images, layers, *more)

    monkeypatch.setattr(study_command, "read_subject", lambda *_: subject)
    monkeypatch.setattr(study, "sufficiency", interrupted)
    arguments = ["net", "--data", str(tmp_path), "--out", str(tmp_path / "out"), "--figures", "A", "B"]
    assert study_command.main(arguments) == 130
    assert "goes on from the parts" in capsys.readouterr().err
    assert {path.stem for path in (tmp_path / "out").iterdir()} == {"net-trained-A", "net-trained-B-0"}


def test_solutions_in_code_space_and_pixels(tmp_path: Path) -> None:
    """B and C with the maximisers of `gan`: they reach a layer by its name, on inputs that are normalised."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        generator = MLPGAN((3, 12, 12), code_size=8).generator.eval().requires_grad_(False)
    faint = 0.01 * random(100, 3, 12, 12)  # so that every run finds more
    subject = StudySubject("net", convolutional_network(), faint, as_inputs=lambda image: 2 * image - 1)
    options = options_of(figures=["B", "C"], maximize=["pixel", "tiny"], units=1, runs=3, layers=2)
    (found,) = study_command.run([subject], tmp_path, options, {"tiny": generator})
    assert {response.layer for response in found.sufficiency["trained"]} == {"0", ""}  # "6" returns the output
    methods = {"no image", "guided", "gradient", "maximised, pixel", "maximised, tiny"}
    assert all(response.responses.keys() == methods for response in found.sufficiency["trained"])
    for state in ("trained", "untrained"):
        assert [(solved.layer, solved.runs) for solved in found.sets["tiny"][state]] == [("0", 3), ("", 3)]
    assert {path.stem for path in tmp_path.glob("*.png")} == {
        f"net-{state}-tiny-{layer}" for state in ("trained", "untrained") for layer in ("0", "output")
    }
    (solved,) = (solved for solved in found.sets["tiny"]["trained"] if solved.layer == "")
    with torch.no_grad():
        responses = subject.network(2 * generator(torch.tensor(solved.codes)) - 1)[:, solved.unit[0]]
    assert solved.responses == pytest.approx(responses.tolist(), rel=1e-4)
    assert len(solved.responses) > 0
    assert "C. Maximising sets in the codes of tiny" in (tmp_path / "report.html").read_text()


def test_the_report_is_one_file_that_needs_nothing_else(tmp_path: Path) -> None:
    network, images = convolutional_network(), random(100, 3, 12, 12)
    study_command.run([StudySubject("net", network, images)], tmp_path, options_of(), {})
    report = (tmp_path / "report.html").read_text()
    body = report[report.rindex("</script><h2>") :]
    assert body.count("plotly-graph-div") == 3
    assert body.count("<table>") == 4
    assert not re.search(r"(src|href)=\"(?!data:)", body)


def test_figures_draw_each_state_and_layer() -> None:
    network, images = convolutional_network(), random(100, 3, 12, 12)
    layers = invariance(network, images, amounts={"shift": (1, 2), "scale": (1.5,)})
    figure = invariance_figure({"trained": layers, "untrained": layers[:2]})
    drawn = [trace for trace in figure.data if trace.mode == "lines+markers"]
    assert [(trace.name, len(trace.x)) for trace in drawn] == [("trained", 3)] * 2 + [("untrained", 2)] * 2
    assert list(drawn[1].y) == [layer.median_score("scale") for layer in layers]
    figure = firing_figure(layers)
    assert [list(trace.y) for trace in figure.data[:3]] == [layer.rate_at("shift") for layer in layers]


def test_solutions_are_drawn_with_the_path_between_them() -> None:
    from plugin.experiments.invariance.figures import draw_solutions

    axes = torch.linalg.qr(random(16, 16)).Q
    found = sets_of(linear_network(axes[0]), axes[0] + 0.1 * axes[:3])
    sheet = draw_solutions([found], lambda codes: torch.tensor(codes).view(-1, 1, 4, 4), count=3)
    assert isinstance(sheet, Image.Image)
    tiles = [sheet.crop((78 + 59 * index, 20, 134 + 59 * index, 76)).convert("L") for index in range(3)]
    for tile, code in zip(tiles, found.codes, strict=True):
        shown = torch.from_numpy(np.array(tile.resize((4, 4), Image.Resampling.NEAREST))).flatten() / 255
        torch.testing.assert_close(shown, torch.tensor(code).clamp(0, 1), atol=1 / 255, rtol=0)
    drawn = maximising_set_figure({"trained": [found]}).data
    assert any(trace.name == "solutions, trained" and list(trace.y) == [found.modes] for trace in drawn)


def test_errors_end_the_command_with_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert study_command.main(["all-cnn-c", "--data", str(tmp_path)]) == 2
    assert "error: no CIFAR-10 in" in capsys.readouterr().err


def test_on_a_shipped_network(real_data: Path, tmp_path: Path) -> None:
    """Two layers of the max-pooling twin by the command line."""
    arguments = ["model-c", "--data", str(real_data / "cifar10"), "--out", str(tmp_path), "--figures", "B"]
    assert study_command.main([*arguments, "--images", "20", "--layers", "2", "--units", "1"]) == 0
    assert len(list(tmp_path.glob("model-c-*.json"))) == 4
