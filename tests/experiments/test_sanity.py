"""The randomisation check against maps whose dependence on the weights is known, and ranks against SciPy."""

import warnings

import pytest
import torch
from scipy.stats import spearmanr
from support.helpers import assert_unchanged, snapshot
from torch import Tensor, nn

from plugin.attr import Deconvolution, GuidedBackprop, ModifiedBackprop
from plugin.experiments.sanity import randomisation_check, rank_correlation


class Edges:
    """A map that has nothing to do with the network."""

    def __init__(self, network: nn.Module) -> None: ...

    def attribute(self, inputs: Tensor, *, target: object = None) -> Tensor:
        return inputs.diff(dim=-1, prepend=inputs[..., :1])


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(200, 5)
    ).eval()


def test_rank_correlation_is_spearmans_with_ties() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randint(0, 5, (2, 3, 40), generator=generator).double()
    expected = [spearmanr(one, other).statistic for one, other in zip(first, second, strict=True)]
    torch.testing.assert_close(rank_correlation(first, second), torch.tensor(expected, dtype=torch.float64))
    assert rank_correlation(first, first.zero_()).tolist() == [0, 0, 0]


def test_a_map_that_ignores_the_network_is_found_out(network: nn.Module, images: Tensor) -> None:
    with pytest.warns(UserWarning, match="rank correlation 1.00 .* hardly depends"):
        check = randomisation_check(Edges, network, images, target=1, layers=3)
    assert check.hardly_changes
    assert [step.similarity.magnitude for step in check.steps] == pytest.approx([1, 1, 1])
    assert check.maps.shape == (4, *images.shape)


def test_a_map_that_is_the_weights_changes_wholly() -> None:
    linear, inputs = nn.Linear(2000, 3), torch.ones(2, 2000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check = randomisation_check(lambda net: ModifiedBackprop(net, "gradient"), linear, inputs, target=2)
    assert abs(check.steps[0].similarity.signed) < 0.1
    assert abs(check.steps[0].similarity.magnitude) < 0.1
    assert "depends on these weights" in check.summary


def test_layers_are_randomised_from_the_output_down_and_add_up(network: nn.Module, images: Tensor) -> None:
    """Each step equals a network in which the same layers were replaced by hand; the map of a lower layer is kept."""
    check = randomisation_check(Deconvolution, network, images, target=0, layers=3, seed=4, threshold=2)
    assert [step.layer for step in check.steps] == ["6", "3", "0"]
    named = randomisation_check(Deconvolution, network, images, 0, layers=["6", "3"], seed=4, threshold=2)
    assert torch.equal(named.maps, check.maps[:3])
    other = randomisation_check(Deconvolution, network, images, 0, layers=2, seed=5, threshold=2)
    assert torch.equal(other.maps[0], check.maps[0])
    assert not torch.equal(other.maps[1], check.maps[1])


class WithClassToken(nn.Module):
    """A module with a parameter of its own around its layers, as a vision transformer is."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.ones(1, 4))
        self.attend, self.head = nn.MultiheadAttention(4, 2, batch_first=True), nn.Linear(4, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        tokens = torch.cat([self.token.expand(len(inputs), 1, 4), inputs], 1)
        result: Tensor = self.head(self.attend(tokens, tokens, tokens)[0][:, 0])
        return result


def test_the_last_layer_of_a_transformer_is_not_the_module_around_it() -> None:
    torch.manual_seed(0)
    network, inputs = WithClassToken().eval(), torch.randn(2, 5, 4)
    gradient = lambda net: ModifiedBackprop(net, "gradient")  # noqa: E731
    check = randomisation_check(gradient, network, inputs, target=1, layers=2, threshold=2)
    assert [step.layer for step in check.steps] == ["head", "attend"]


def test_random_weights_keep_mean_and_deviation() -> None:
    linear = nn.Linear(5000, 1)
    with torch.no_grad():
        linear.weight.mul_(3).add_(7)
    check = randomisation_check(lambda net: ModifiedBackprop(net, "gradient"), linear, torch.ones(1, 5000), threshold=2)
    before, after = check.maps
    assert after.mean() == pytest.approx(float(before.mean()), rel=0.01)
    assert after.std() == pytest.approx(float(before.std()), rel=0.05)


def test_the_users_network_stays_as_it_is(network: nn.Module, images: Tensor) -> None:
    before, random_state = snapshot(network), torch.get_rng_state()
    randomisation_check(GuidedBackprop, network, images, target=0, layers=2, threshold=2)
    assert_unchanged(before, network)
    assert torch.equal(random_state, torch.get_rng_state())


@pytest.mark.parametrize(
    ("layers", "message"), [(0, "3 layers with w"), (4, "3 layers"), (["7"], "'7'"), ([], "without a layer")]
)
def test_layers_that_are_not_there(network: nn.Module, images: Tensor, layers: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        randomisation_check(GuidedBackprop, network, images, 0, layers=layers)  # type: ignore[arg-type]
