"""Values that stand beside numbers or other functions, by padding or `cat`, and operations on them."""

import pytest
import torch
from support.between import INPUTS, RELU_METHODS, Between, Pointwise, assert_refused, assert_same_function, maps
from support.helpers import assert_same_maps, error_between
from torch import Tensor, nn
from torch.nn import functional as F


def crelu(v: Tensor) -> Tensor:
    return F.relu(v) + 0.5 * F.relu(-v)


def both(v: Tensor) -> Tensor:
    return torch.cat([v, -v], 1)


def merged(parts: Tensor) -> Tensor:
    return parts[:, :6] + 0.5 * parts[:, 6:]


def ceiling(v: Tensor) -> Tensor:
    return v.clamp(max=0.6)


def leaky(v: Tensor) -> Tensor:
    return torch.maximum(v, -0.2 * v).clamp(min=0.1)


SPELLINGS: list[tuple[str, Pointwise, Pointwise]] = [
    ("a zero behind, amax", F.relu, lambda v: F.pad(v[..., None], (0, 1)).amax(-1)),
    ("zeros on both sides, max", F.relu, lambda v: F.pad(v[..., None], (1, 1)).max(-1)[0]),
    ("a zero in a new batch", F.relu, lambda v: F.pad(v[None], (0, 0, 0, 0, 1, 0)).amax(0)),
    ("a zero in a view", F.relu, lambda v: F.pad(v.view(-1, 1), (0, 1)).amax(-1).view_as(v)),
    ("as many zeros", F.relu, lambda v: F.pad(v, (0, 6)).unflatten(1, (2, 6)).amax(1)),
    ("by keywords", F.relu, lambda v: F.pad(input=v[..., None], pad=(0, 1)).amax(-1)),
    ("a module", F.relu, lambda v: nn.ConstantPad1d((0, 1), 0.0)(v[..., None]).amax(-1)),
    ("constant_pad_nd", F.relu, lambda v: torch.constant_pad_nd(v[..., None], (0, 1)).amax(-1)),
    ("a number, amin", ceiling, lambda v: F.pad(v[..., None], (0, 1), value=0.6).amin(-1)),
    ("logsumexp", F.softplus, lambda v: F.pad(v[..., None], (0, 1)).logsumexp(-1)),
    ("norm", torch.abs, lambda v: F.pad(v[..., None], (0, 1)).norm(dim=-1)),
    ("beside two functions", leaky, lambda v: F.pad(torch.stack([v, -0.2 * v], -1), (0, 1), value=0.1).amax(-1)),
    ("cat of more zeros", F.relu, lambda v: torch.cat([v[..., None], v.new_zeros(4, 6, 2)], -1).amax(-1)),
    ("stack by keywords", F.relu, lambda v: torch.stack(tensors=[v, torch.zeros_like(v)], dim=-1).amax(-1)),
    ("a clamp of cat", crelu, lambda v: merged(both(v).clamp(min=0))),
    ("where of cat", crelu, lambda v: merged(torch.where((c := both(v)) > 0, c, 0.0))),
    ("a mask of cat", crelu, lambda v: merged((c := both(v)) * (c > 0))),
    ("a clamp of stack", crelu, lambda v: (c := torch.stack([v, -v]).clamp(min=0))[0] + 0.5 * c[1]),
    ("a clamp of padding", F.relu, lambda v: F.pad(v[..., None], (0, 1)).clamp(min=0)[..., 0]),
    ("factors, padded alike", F.silu, lambda v: (F.pad(v, (0, 2)) * F.pad(v.sigmoid(), (0, 2)))[:, :6]),
    ("factors among many zeros", F.silu, lambda v: (F.pad(v, (0, 6)) * F.pad(v.sigmoid(), (0, 6)))[:, :6]),
    ("a mask, padded", F.relu, lambda v: (F.pad(v, (0, 2)) * F.pad((v > 0).to(v), (0, 2)))[:, :6]),
    ("a mask, rolled", F.relu, lambda v: (v.roll(1, 1) * (v > 0).type_as(v).roll(1, 1)).roll(-1, 1)),
    ("padded and cut", F.silu, lambda v: v * F.pad(v.sigmoid(), (0, 2))[:, :6]),
    ("lp_pool1d of one", torch.abs, lambda v: F.lp_pool1d(v[:, None], 2, 1)[:, 0]),
    ("lp_pool2d of one", torch.abs, lambda v: F.lp_pool2d(v[..., None, None], 2, (1, 1))[..., 0, 0]),
    ("lp_pool3d of one", torch.abs, lambda v: F.lp_pool3d(v[None, None, None], 2, 1)[0, 0, 0]),
    ("average of one", torch.abs, lambda v: F.avg_pool1d(v[:, None].square(), 1)[:, 0].sqrt()),
    ("adaptive average of one", torch.abs, lambda v: F.adaptive_avg_pool1d(v[:, None].square(), 6)[:, 0].sqrt()),
]


@pytest.mark.parametrize("row", SPELLINGS, ids=[name for name, *_ in SPELLINGS])
def test_spellings_of_one_function_have_one_map(row) -> None:
    assert_same_function(row[1], row[2])


CHOSEN: dict[str, Pointwise] = {
    "topk": lambda v: F.pad(v[..., None], (0, 1)).topk(1, -1)[0][..., 0],
    "sort": lambda v: F.pad(v[..., None], (0, 1)).sort(-1)[0][..., 1],
    "softmax": lambda v: F.pad(v[..., None], (0, 1)).softmax(-1)[..., 0],
    "max_pool1d": lambda v: F.max_pool1d(F.pad(v[..., None], (0, 1)), 2)[..., 0],
}


@pytest.mark.parametrize("name", CHOSEN)
def test_other_choices_between_a_value_and_a_number_are_refused(name) -> None:
    assert_refused(Between(CHOSEN[name]), rf"computes an activation with {name}, which chooses")


POOLED: dict[str, Pointwise] = {
    "maxima with zeros at the edges": lambda v: F.max_pool1d(F.pad(v[:, None], (3, 4)), 3, 2)[:, 0],
    "of a small map": lambda v: F.max_pool2d(F.pad(v.view(4, 2, 1, 3), (1, 2, 1, 1)), 2).flatten(1)[:, :6],
    "sorted": lambda v: F.pad(v, (3, 3)).sort(1)[0][:, 3:9],
    "softmax of several": lambda v: F.pad(v, (0, 6)).softmax(1)[:, :6],
    "low numbers beside two functions": lambda v: F.pad(both(v), (2, 2), value=-1e30).unfold(1, 2, 2).amax(-1)[:, 1:7],
    "a number that could be a place": lambda v: F.pad(both(v), (2, 2), value=7.0).unfold(1, 2, 2).amin(-1)[:, 1:7],
}


@pytest.mark.parametrize("name", POOLED)
def test_numbers_may_stand_beside_several_values(name) -> None:
    network = Between(POOLED[name])
    leaf = INPUTS.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(network(leaf)[:, 1].sum(), leaf)
    for method in RELU_METHODS.values():
        assert error_between(method(network, INPUTS), gradient) < 1e-9


def test_a_rectified_map_may_be_padded_and_pooled() -> None:
    """Each window holds one value and zeros, which change no value that is not negative."""
    network = Between(lambda v: F.max_pool2d(F.pad(F.relu(v)[..., None, None], (1, 1, 1, 1)), 3).flatten(1))
    guided = {"guided": RELU_METHODS["guided"]}
    assert_same_maps(guided, network, INPUTS, maps(F.relu))
    RELU_METHODS["deconvnet"](network, INPUTS)  # is not refused; of equal values, the first is the maximum


def test_there_may_be_no_values() -> None:
    """Such as the boxes of an image in which nothing was found."""

    def beside(v: Tensor) -> Tensor:
        nothing = v[:0]
        padded, joined = F.pad(nothing[..., None], (0, 1)), torch.stack([nothing, nothing.new_zeros(0, 6)])
        return v.relu() + padded.amax(-1).sum(0) + F.max_pool1d(padded, 2)[..., 0].sum(0) + joined.amax(0).sum(0)

    assert_same_function(F.relu, beside)
