"""Measures against closed forms, and the scorecard against them on networks whose answers are known."""

import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from gan import CodeSpaceAM, PixelAM
from gan.__main__ import main
from gan.data import ImageSet
from gan.judging import batch_speedup, best_of_random, best_of_real, scorecard
from gan.judging.measures import coverage, diversity, nearest, neighbour_distances, precision
from gan.judging.scorecards import BEST, MEASURES, OWN, PIXEL, REAL
from plugin.statistics import vendi_score

pytestmark = pytest.mark.filterwarnings("ignore:.*did not reach stop_at")


# --- measures ---------------------------------------------------------------------------------------------------------


def test_distances_on_a_line() -> None:
    real = torch.tensor([[0.0], [1.0], [3.0], [7.0]])
    assert neighbour_distances(real, 1).tolist() == [1, 1, 2, 4]
    assert neighbour_distances(real, 2).tolist() == [3, 2, 3, 6]
    distances, which = nearest(torch.tensor([[0.4], [6.0]]), real)
    torch.testing.assert_close(distances, torch.tensor([0.4, 1.0]))
    assert which.tolist() == [0, 3]
    assert diversity(real) == pytest.approx((1 + 3 + 7 + 2 + 6 + 4) / 6)
    assert math.isnan(diversity(real[:1]))
    with pytest.raises(ValueError, match="4 rows have no 4-th nearest other"):
        neighbour_distances(real, 4)


def test_precision_and_coverage_count_neighbourhoods() -> None:
    real = torch.tensor([[0.0], [1.0], [3.0], [7.0]])  # the nearest other is at 1, 1, 2, 4
    made = torch.tensor([[-1.5], [2.5], [11.5], [10.0]])
    assert precision(made, real, k=1) == 0.5  # 2.5 near 3; 10 near 7
    assert coverage(made, real, k=1) == 0.5
    assert precision(real, real, k=1) == coverage(real, real, k=1) == 1


def test_the_vendi_score_counts_what_differs() -> None:
    assert vendi_score(torch.eye(5)) == pytest.approx(5)
    assert vendi_score(torch.ones(5, 3)) == pytest.approx(1)
    assert vendi_score(torch.eye(4).repeat(3, 1)) == pytest.approx(4)
    cosine = 0.6  # two rows: eigenvalues (1 + c) / 2 and (1 - c) / 2
    shares = [(1 + cosine) / 2, (1 - cosine) / 2]
    expected = math.exp(-sum(share * math.log(share) for share in shares))
    assert vendi_score(torch.tensor([[1.0, 0.0], [0.6, 0.8]])) == pytest.approx(expected)


# --- scorecard --------------------------------------------------------------------------------------------------------


class Stripes(nn.Module):
    """Codes (a, b, ...) to images (1, 4, 4): the upper half has brightness sigmoid(a), the lower sigmoid(b)."""

    code_size = 3

    def forward(self, codes: Tensor) -> Tensor:
        halves = torch.sigmoid(2 * codes[:, :2])
        return halves.repeat_interleave(2, 1).view(-1, 1, 4, 1).expand(-1, 1, 4, 4)


def brighter_half(scale: float) -> nn.Sequential:
    """Class 0: the upper half is brighter; class 1: the lower."""
    linear = nn.Linear(16, 2)
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[1.0] * 8 + [-1.0] * 8, [-1.0] * 8 + [1.0] * 8]) * scale)
        linear.bias.zero_()
    return nn.Sequential(nn.Flatten(), linear).eval()


@pytest.fixture
def real() -> tuple[Tensor, Tensor]:
    images = Stripes()(torch.randn(200, 3, generator=torch.Generator().manual_seed(3)))
    return images, (images[:, 0, 0, 0] < images[:, 0, 3, 0]).long()


def test_a_scorecard_holds_the_measures_by_their_definitions(real: tuple[Tensor, Tensor]) -> None:
    am = CodeSpaceAM(brighter_half(1.0), Stripes(), candidates=4)
    result = am.maximize([0] * 5 + [1] * 5, seeds=[*range(5), *range(5)], steps=30)
    judge = brighter_half(0.2)
    card = scorecard(result, judge, real, generator_scores={"fid_ratio": 4.5}, speed=True)

    assert card.methods == (OWN, BEST, PIXEL, REAL)
    assert [row.measure for row in card] == [measure for measure in MEASURES if measure != "beats_real"]
    chances = judge(result.images).softmax(1).detach()
    classes = torch.tensor([0] * 5 + [1] * 5)
    assert card["agreement"][OWN] == float((chances.argmax(1) == classes).float().mean())
    assert card["judge_probability"][OWN] == pytest.approx(float(chances[torch.arange(10), classes].mean()))
    assert card["reached"][OWN] == float(result.reached.float().mean())
    assert card["score"][OWN] == pytest.approx(float(result.scores[-1].mean()))
    assert card["gain"][OWN] == pytest.approx(card["score"][OWN] / card["score"][BEST])
    assert card["fid_ratio"] == {OWN: 4.5}
    assert card["speedup"][OWN] > 0
    assert card["agreement"][REAL] == 1
    assert card["diversity"][REAL] == pytest.approx(1, abs=0.5)

    expected = []  # the features of this judge are the pixels, as its last layer is its first
    for label in (0, 1):
        others = real[0][real[1] == label][5:].flatten(1)
        images = result.images[classes == label].flatten(1)
        expected.append(float(torch.cdist(images, others).amin(1).mean() / neighbour_distances(others).mean()))
    assert card["distance"][OWN] == pytest.approx(sum(expected) / 2, rel=1e-5)


def test_a_scorecard_shows_itself(real: tuple[Tensor, Tensor]) -> None:
    result = CodeSpaceAM(brighter_half(1.0), Stripes()).maximize(1, runs=4, steps=5)
    card = scorecard(result, brighter_half(0.2), real, baselines=["best_of_n"])
    lines = str(card).splitlines()
    assert lines[0].split() == [OWN, BEST, REAL]
    assert len({len(line) for line in lines}) == 1
    assert json.loads(json.dumps(card.to_dict()))["agreement"][REAL] == 1
    table = card.to_pandas()
    assert table.loc["score", OWN] == pytest.approx(card["score"][OWN])
    figure = card.figure()
    assert len(figure.data) == sum(len(row.values) > 1 for row in card)
    assert {name: len(images) for name, images in card.images.items()} == {OWN: 4, BEST: 4, REAL: 4}


def test_the_best_of_random_codes_costs_what_the_ascent_did() -> None:
    am = CodeSpaceAM(brighter_half(1.0), Stripes(), candidates=6)
    result = am.maximize(0, runs=3, steps=7, least_steps=7)
    images, scores, count = best_of_random(result)
    assert count == round(float(result.tried.float().mean())) + 7 + 2 * 6  # forward passes, and gradients at twice one
    codes = torch.randn(count, 3, generator=torch.Generator().manual_seed(10**6 + 1))
    values = am.classifier(Stripes()(codes))[:, 0]
    assert scores[1] == values.max()
    torch.testing.assert_close(images[1], Stripes()(codes[values.argmax()][None])[0])


def test_units_of_layers_are_judged_without_classes(real: tuple[Tensor, Tensor]) -> None:
    classifier = nn.Sequential(nn.Conv2d(1, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(27, 2)).eval()
    result = CodeSpaceAM(classifier, Stripes(), "0").maximize((1, 0, 0), runs=4, steps=5)
    card = scorecard(result, brighter_half(0.2), real[0])
    measures = {row.measure for row in card}
    assert measures.isdisjoint({"agreement", "judge_probability", "reached"})
    assert {"diversity", "distance", "precision", "gain"} <= measures
    best = classifier[0](real[0])[:, 1, 0, 0].max()
    torch.testing.assert_close(best_of_real(result, real[0]), best.expand(4))
    assert card["beats_real"][OWN] == float((result.scores[-1] >= best).float().mean())
    assert card["beats_real"][REAL] == 0.0  # the best real image is not among those held out


def test_the_pixel_baseline_reads_the_outputs_as_the_runs_do(real: tuple[Tensor, Tensor]) -> None:
    network = brighter_half(1.0)

    def by_hand(images: Tensor) -> Tensor:
        """Sigmoids, which nothing tells from logits."""
        return 1 / (1 + (-1 - network(images)).exp())

    result = CodeSpaceAM(by_hand, Stripes(), head="sigmoid").maximize(1, runs=4, steps=20)
    card = scorecard(result, brighter_half(0.2), real, baselines=[PIXEL])
    assert card["reached"] == {OWN: 1.0, PIXEL: 1.0}


def test_real_images_come_in_several_forms(real: tuple[Tensor, Tensor]) -> None:
    result = CodeSpaceAM(brighter_half(1.0), Stripes()).maximize(1, runs=4, steps=5)
    rounded = (real[0] * 255).round() / 255
    stored = ImageSet("stripes", (real[0] * 255).round().byte(), real[1])
    pairs = list(zip(rounded, real[1].tolist(), strict=True))
    cards = [scorecard(result, brighter_half(0.2), form, baselines=[]) for form in ((rounded, real[1]), stored, pairs)]
    assert cards[0].to_dict() == cards[1].to_dict() == cards[2].to_dict()


def test_what_cannot_be_judged_is_refused(real: tuple[Tensor, Tensor]) -> None:
    classifier, judge = brighter_half(1.0), brighter_half(0.2)
    result = CodeSpaceAM(classifier, Stripes()).maximize(1, runs=4, steps=5)
    with pytest.raises(ValueError, match="unknown baseline 'worst': choose among best_of_n and pixel"):
        scorecard(result, judge, real, baselines=["worst"])
    with pytest.raises(ValueError, match="0 real images for target 1 are too few: 9 are needed"):
        scorecard(result, judge, (real[0], torch.zeros(200)), baselines=[])
    with pytest.raises(ValueError, match="best_of_n needs a generator"):
        scorecard(PixelAM(classifier, (1, 4, 4)).maximize(1, runs=4, steps=5), judge, real)


def test_a_batch_is_timed_against_single_runs() -> None:
    result = CodeSpaceAM(brighter_half(1.0), Stripes()).maximize(1, runs=6, steps=5)
    assert 0 < batch_speedup(result) < math.inf


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command_prints_and_writes_the_scores(
    tmp_path: Path, real_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--target", "3", "--runs", "3", "--steps", "6", "--data-folder", str(real_data), "--out", str(tmp_path)]
    assert main(["score", "--gan", "gan-mnist", *options]) == 0
    assert "judge's first choice is the target" in capsys.readouterr().out
    assert json.loads((tmp_path / "scores.json").read_text())["mnist-judge"]["agreement"][REAL] == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "best_of_n.png",
        "maximised.png",
        "pixel.png",
        "real.png",
        "scores.html",
        "scores.json",
    ]
