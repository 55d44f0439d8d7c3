"""Units whose ReLU is silent are maximised all the same, or a sentence says why they are not."""

import time
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gan import CodeSpaceAM, ImageSpaceAM, PixelAM, load, load_classifier
from gan.data import read
from gan.maximising.opening import OpenRelus
from gan.maximising.views import LUCID


def thresholds(*offsets: float) -> nn.Sequential:
    """Units that answer where the image's mean exceeds an offset."""
    linear = nn.Linear(16, len(offsets))
    with torch.no_grad():
        linear.weight.fill_(1 / 16)
        linear.bias.copy_(-torch.tensor(offsets))
    return nn.Sequential(nn.Flatten(), linear, nn.ReLU()).eval()


class Grey(nn.Module):
    """Codes to images of one brightness."""

    code_size = 4

    def forward(self, codes: Tensor) -> Tensor:
        return torch.sigmoid(codes[:, :1]).view(-1, 1, 1, 1).expand(-1, 1, 4, 4)


def test_open_relus_compute_what_relus_do_and_let_a_tenth_through() -> None:
    values = torch.tensor([-2.0, 3.0])
    for relu in (F.relu, torch.relu, Tensor.relu, nn.ReLU(), nn.ReLU(inplace=True), torch.relu_, nn.ReLU6()):
        inputs = values.clone().requires_grad_()
        with OpenRelus():
            outputs = relu(inputs * 1)
        assert outputs.tolist() == [0, 3]
        outputs.sum().backward()
        torch.testing.assert_close(inputs.grad, torch.tensor([0.1, 1.0]))
    inputs = values.clone().requires_grad_()
    with OpenRelus():
        hidden = inputs * 1
        F.relu(hidden, inplace=True)  # its return value is not used
    assert hidden.tolist() == [0, 3]


@pytest.mark.filterwarnings("error")
def test_a_silent_unit_is_found_behind_its_relu() -> None:
    """At the start the mean is near 0.5, where a unit that begins at 0.7 gives 0 and has no slope."""
    am = PixelAM(thresholds(0.7, 0.1), (1, 4, 4), "2", contrast=0.01)
    result = am.maximize([0, 1], seeds=[0, 1], steps=60)
    assert result.scores[0, 0] == 0
    assert (result.scores[-1] > torch.tensor([0.2, 0.8])).all()
    assert not result.silent.any()
    assert result.opened[0] > 0
    assert result.opened[1] == 0
    alone = am.maximize(0, seeds=[0], steps=60)
    assert torch.equal(alone.images[0], result.images[0])


@pytest.mark.filterwarnings("error")
def test_a_silent_unit_is_found_from_the_grey_start_of_fourier_space() -> None:
    am = ImageSpaceAM(thresholds(0.7, 0.1), (1, 4, 4), "2", views=LUCID)  # darker views may silence the second unit
    result = am.maximize([0, 1], seeds=[0, 1], steps=200)
    assert result.scores[0, 0] == 0
    assert (result.scores[-1] > torch.tensor([0.1, 0.6])).all()
    assert result.opened[0] > 0
    assert result.opened[1] == 0


@pytest.mark.filterwarnings("error")
def test_nothing_is_reached_by_a_unit_that_is_silent_as_it_is_on_data() -> None:
    real = torch.rand(20, 1, 4, 4) / 2
    for am in (PixelAM(thresholds(0.7), (1, 4, 4), "2", contrast=0.01), ImageSpaceAM(thresholds(0.6), (1, 4, 4), "2")):
        result = am.maximize((0,), runs=4, steps=200, stop_at="data", real=real)
        assert isinstance(result.stop_at, Tensor)
        assert (result.stop_at == 0).all()
        assert result.reached.all()
        assert (result.scores[-1] > 0).all(), "runs end where it fires"
        assert (result.steps_taken < 200).all()


@pytest.mark.filterwarnings("error")
def test_a_unit_that_is_at_its_top_has_reached_it() -> None:
    """It has no slope either, and is not silent."""
    network = nn.Sequential(thresholds(0.1), nn.Hardtanh(0, 0.2)).eval()
    result = PixelAM(network, (1, 4, 4), "1").maximize((0,), runs=2, steps=60, stop_at=0.2)
    assert result.reached.all()
    assert not result.silent.any()


@pytest.mark.filterwarnings("error")
def test_a_silent_unit_behind_silent_units() -> None:
    network = nn.Sequential(*thresholds(0.7), nn.Linear(1, 1, bias=False), nn.ReLU())
    nn.init.constant_(network[3].weight, 2.0)
    result = PixelAM(network, (1, 4, 4), "4", contrast=0.01).maximize((0,), runs=2, steps=60)
    assert (result.scores[0] == 0).all()
    assert (result.scores[-1] > 0.4).all()


@pytest.mark.filterwarnings("error")
def test_more_codes_are_looked_at_until_the_unit_fires() -> None:
    """One code in 50 makes it fire: eight would not do."""
    am = CodeSpaceAM(thresholds(0.88), Grey(), "2", prior=None)
    result = am.maximize((0,), runs=6, steps=1)
    assert (result.scores[0] > 0).sum() >= 5
    assert result.tried.max() > 8


def test_a_dead_unit_is_given_up_within_seconds_and_said() -> None:
    began = time.monotonic()
    am = PixelAM(thresholds(5.0, 0.1), (1, 4, 4), "2")
    with pytest.warns(UserWarning, match="2 of 3 runs could not start: the value of their unit does not change"):
        result = am.maximize([0, 0, 1], seeds=[0, 1, 2], steps=20_000, stop_at=0.85)
    assert result.silent.tolist() == [True, True, False]
    assert result.reached.tolist() == [False, False, True]
    assert time.monotonic() - began < 10


def test_a_unit_that_does_not_see_the_image_is_refused_at_once() -> None:
    class Detached(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.linear = nn.Linear(16, 3)

        def forward(self, images: Tensor) -> Tensor:
            return self.linear(images.flatten(1)).detach()

    with pytest.raises(ValueError, match=r"output of the Detached do not depend on the image: look for torch\.no_grad"):
        PixelAM(Detached(), (1, 4, 4)).maximize(1, runs=2)


def test_a_value_that_is_not_finite_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="is NaN or infinite at its first image"):
        PixelAM(thresholds(float("nan"), 0.1), (1, 4, 4), "2").maximize([0, 1], runs=2)


@pytest.mark.slow
def test_every_unit_that_answers_digits_starts(real_data: Path) -> None:
    """After the ReLU: most units are silent on most digits, and some on all 10,000."""
    classifier = load_classifier("mnist-classifier")
    digits = read("mnist", train=False, folder=real_data).values()[:3000]
    with torch.no_grad():
        best = classifier.body(digits).amax(0)
    units = [0, 8, 16, 56, 72, 80]  # two of them answer no digit at all
    am = CodeSpaceAM(classifier, load("dcgan-mnist").generator, "body.relu4")
    with pytest.warns(UserWarning, match="runs could not start"):
        result = am.maximize([(unit,) for unit in units], seeds=range(6), steps=40)
    assert (result.scores[-1] > 0)[best[units] > 0].all()
    assert torch.equal(result.silent, result.scores[-1] == 0)
