"""A map is right, or it is refused by a sentence: functions in spellings that hide their mathematics."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.between import (
    INPUTS,
    LRP_METHODS,
    METHODS,
    RELU_METHODS,
    Between,
    Pointwise,
    assert_refused,
    assert_same_function,
    maps,
)
from support.helpers import assert_same_maps, error_between
from support.subclasses import Plain, Unwrapping
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention.flex_attention import flex_attention

from plugin.errors import InputTypeError

# -- functions in other spellings --------------------------------------------------------------------------------------


def rows(v: Tensor) -> Tensor:
    return v.view(-1, 2, 3)


def spread(lengths: Tensor) -> Tensor:
    return lengths[..., None].expand(-1, 2, 3).reshape(-1, 6)


def mask(v: Tensor) -> Tensor:
    return (v > 0).to(v)


BOUNDS = torch.tensor([-0.5, 0.5], dtype=torch.float64)
PIECES = torch.tensor([[0.3, 0.5], [-0.2, 1.5], [0.1, -0.4]], dtype=torch.float64)


def spline(v: Tensor) -> Tensor:
    """A line below -0.5, between, and above 0.5."""
    parts = [offset + slope * v for offset, slope in PIECES]
    return torch.where(v <= BOUNDS[0], parts[0], torch.where(v <= BOUNDS[1], parts[1], parts[2]))


def looked_up(v: Tensor) -> Tensor:
    place = torch.bucketize(v, BOUNDS)
    return PIECES[place, 0] + PIECES[place, 1] * v


def searched(v: Tensor) -> Tensor:
    place = torch.searchsorted(BOUNDS, v.detach().contiguous())
    return PIECES[:, 0].take(place) + PIECES[:, 1][place] * v


def length(v: Tensor) -> Tensor:
    return spread(rows(v).norm(dim=-1))


def unit(v: Tensor) -> Tensor:
    return F.normalize(rows(v), dim=-1).flatten(1)


def gram(v: Tensor) -> Tensor:
    return rows(v) @ rows(v).mT


EYE = torch.eye(2, dtype=torch.float64)
SPELLINGS: list[tuple[str, Pointwise, Pointwise]] = [
    ("diagonal of a Gram matrix", length, lambda v: spread(gram(v).diagonal(dim1=-2, dim2=-1).sqrt())),
    ("einsum ii of one", length, lambda v: spread(torch.einsum("nii->ni", gram(v)).sqrt())),
    ("einsum of one", length, lambda v: spread(torch.einsum("nij,nkj->nik", *[rows(v)] * 2).diagonal(0, 1, 2).sqrt())),
    ("indexed", length, lambda v: spread(gram(v)[:, range(2), range(2)].sqrt())),
    ("every third", length, lambda v: spread(gram(v).flatten(1)[:, ::3].sqrt())),
    ("times the identity", length, lambda v: spread((gram(v) * EYE).sum(-1).sqrt())),
    ("unit vectors", unit, lambda v: (rows(v) / gram(v).diagonal(dim1=-2, dim2=-1).sqrt()[..., None]).flatten(1)),
    ("cdist from 0", torch.abs, lambda v: torch.cdist(v[..., None], v.new_zeros(1, 1))[..., 0]),
    ("pairwise_distance", torch.abs, lambda v: F.pairwise_distance(v[..., None], v.new_zeros(1), eps=0.0)),
    ("norm of one", torch.abs, lambda v: v.reshape(*v.shape, 1).norm(dim=-1)),
    ("dist", torch.abs, lambda v: torch.stack([torch.dist(one, 0 * one.detach()) for one in v.flatten()]).view_as(v)),
    ("cat, amax", F.relu, lambda v: torch.cat([v[None], 0 * v[None]]).amax(0)),
    ("a table of two", F.relu, lambda v: torch.tensor([0.0, 1.0]).to(v)[(v > 0).long()] * v),
    ("bucketize", F.relu, lambda v: torch.bucketize(v, v.new_zeros(1)) * v),
    ("spline by bucketize", spline, looked_up),
    ("spline by searchsorted", spline, searched),
    ("sinc", lambda v: torch.sin(math.pi * v) / (math.pi * v), torch.sinc),
    ("asinh", torch.asinh, torch.arcsinh),
    ("alpha", lambda v: v + 0.25 * torch.tanh(v.flip(1)), lambda v: torch.add(v, torch.tanh(v.flip(1)), alpha=0.25)),
    ("sub, alpha", lambda v: v - 0.25 * torch.tanh(v.flip(1)), lambda v: v.sub(torch.tanh(v.flip(1)), alpha=0.25)),
    ("a moved sigmoid among numbers", lambda v: v.sigmoid() * 2 - 0.5,
     lambda v: torch.cat([part * 2 - 0.5 for part in v.sigmoid().chunk(2, 1)], 1)),
    ("a moved tanh among numbers", lambda v: 0.5 * (1 + torch.tanh(0.5 * v)),
     lambda v: (0.5 * (1 + torch.tanh(0.5 * v).view(-1, 3))).view_as(v)),
    ("a moved ReLU6 among numbers", lambda v: F.relu6(v + 3) / 6, lambda v: (F.relu6(v + 3)[:, None] / 6).squeeze(1)),
    ("complex crelu", lambda v: torch.view_as_real(torch.complex(F.relu(v), F.relu(-v))).sum(-1),
     lambda v: torch.view_as_real(F.relu(v) + 1j * F.relu(-v)).sum(-1)),
]  # fmt: skip


@pytest.mark.parametrize("row", SPELLINGS, ids=[name for name, *_ in SPELLINGS])
def test_spellings_of_one_function_have_one_map(row) -> None:
    _, reference, function = row
    assert_same_function(reference, function)


def test_a_number_may_be_added_to_a_gram_matrix() -> None:
    network = Between(lambda v: spread((gram(v) + 0.1).diagonal(dim1=-2, dim2=-1).sqrt()))
    expected = maps(lambda v: spread((rows(v).square().sum(-1) + 0.1).sqrt()))
    assert_same_maps(RELU_METHODS, network, INPUTS, expected)


def test_a_spline_may_read_a_parameter() -> None:
    class Spline(Between):
        def __init__(self) -> None:
            super().__init__(lambda v: self.table[torch.bucketize(v, BOUNDS), 1] * v)

    class Written(Between):
        def __init__(self) -> None:
            super().__init__(lambda v: torch.where(v <= -0.5, 0.5 * v, torch.where(v <= 0.5, 1.5 * v, -0.4 * v)))

    expected = {name: method(Written(), INPUTS) for name, method in METHODS.items()}
    assert_same_maps(METHODS, Spline(), INPUTS, expected, 1e-6)  # the numbers of the table are those of float32


# -- refusals ----------------------------------------------------------------------------------------------------------

UNLISTED: dict[str, Pointwise] = {
    "_foreach_maximum": lambda v: torch._foreach_maximum([v], 0.0)[0],
    "_foreach_mul": lambda v: torch._foreach_mul([v], [mask(v)])[0],
    "hinge_embedding_loss": lambda v: F.hinge_embedding_loss(-v, -torch.ones_like(v), 0.0, reduction="none"),
    "margin_ranking_loss": lambda v: F.margin_ranking_loss(v, 0 * v, -torch.ones_like(v), reduction="none"),
    "soft_margin_loss": lambda v: F.soft_margin_loss(v, -torch.ones_like(v), reduction="none"),
    "huber_loss": lambda v: F.huber_loss(v, torch.zeros_like(v), reduction="none"),
    "smooth_l1_loss": lambda v: F.smooth_l1_loss(v, torch.zeros_like(v), reduction="none"),
    "renorm": lambda v: torch.renorm(v.reshape(-1, 1), 2, 0, 1.0).view_as(v),
    "polar": lambda v: torch.polar(torch.ones_like(v), v).real,
    "put": lambda v: torch.put(torch.zeros_like(v), v.flatten().argsort()[-9:], v.flatten().sort()[0][-9:]),
}


@pytest.mark.parametrize("name", UNLISTED)
def test_operations_that_are_not_in_the_table_are_refused(name) -> None:
    assert_refused(Between(UNLISTED[name]), rf"Between calls {name}, .*plugin\.operations\.register")
    assert_refused(Between(UNLISTED[name]), rf"{name} in .*no LRP rule", LRP_METHODS)


def test_operations_that_the_output_does_not_depend_on_are_not_refused() -> None:
    class Beside(Between):
        def forward(self, values: Tensor) -> Tensor:
            self.loss = torch.nn.functional.huber_loss(values, torch.zeros_like(values))
            return super().forward(values)

    assert_same_maps(METHODS, Beside(F.relu), INPUTS, maps(F.relu))


def test_operations_that_are_not_pointwise_keep_their_gradient() -> None:
    network = Between(lambda v: torch.linalg.solve(torch.eye(6).to(v) + v.new_ones(6, 6), v.mT).mT)
    leaf = INPUTS.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(network(leaf)[:, 1].sum(), leaf)
    for method in RELU_METHODS.values():
        assert error_between(method(network, INPUTS), gradient) < 1e-9


MASKED: dict[str, Pointwise] = {
    "matmul": lambda v: (torch.diag_embed(mask(v)) @ v[..., None])[..., 0],
    "einsum": lambda v: torch.einsum("nij,nj->ni", torch.diag_embed(mask(v)), v),
    "bmm": lambda v: torch.bmm(torch.diag_embed(mask(v)), v[..., None]).squeeze(-1),
    "mm": lambda v: torch.stack([torch.mm(torch.diag(mask(one)), one[:, None])[:, 0] for one in v]),
    "linear": lambda v: torch.stack([F.linear(one, torch.diag(mask(one))) for one in v]),
    "__matmul__": lambda v: ((torch.eye(6).to(v) * mask(v)[:, None]).__matmul__(v[..., None]))[..., 0],
    "vecdot": lambda v: torch.linalg.vecdot(v[..., None], mask(v)[..., None]),
    "conv1d": lambda v: F.conv1d(v.reshape(1, -1, 1), mask(v).reshape(-1, 1, 1), groups=v.numel()).view_as(v),
    "mul": lambda v: F.one_hot((v > 0).long(), 2)[..., 1] * v,
}


@pytest.mark.parametrize("name", MASKED)
def test_masks_that_come_by_a_matrix_product_are_refused(name) -> None:
    """A ReLU: right under LRP, as the mask is held constant."""
    name, network = {"__matmul__": "matmul"}.get(name, name), Between(MASKED[name])
    torch.testing.assert_close(network(INPUTS), Between(F.relu)(INPUTS))
    assert_refused(network, rf"Between computes an activation with {name}, .* element by element")
    if name != "mul":
        assert_same_maps(LRP_METHODS, network, INPUTS, maps(F.relu))


@pytest.mark.parametrize(
    "function",
    [
        lambda v: PIECES[torch.bucketize(v, BOUNDS)][..., 1] * v,
        lambda v: F.embedding(torch.bucketize(v, BOUNDS), PIECES)[..., 1] * v,
        lambda v: PIECES[torch.bucketize(v, BOUNDS)].unbind(-1)[1] * v,
        lambda v: F.one_hot(torch.bucketize(v, BOUNDS), 3).to(v) @ PIECES[:, 1] * v,
    ],
    ids=["indexing", "embedding", "unbind", "one_hot"],
)
def test_entries_of_larger_tables_are_refused(function) -> None:
    assert_refused(Between(function), r"with mul, .* a table of one dimension", METHODS)


@pytest.mark.parametrize("like", [F.relu, lambda v: v > 0, lambda v: (v > 0).long()], ids=["values", "mask", "places"])
def test_a_constant_may_take_the_form_of_a_signal(like) -> None:
    scale = torch.tensor([0.5, -2.0, 1.0, 3.0, -1.0, 0.1], dtype=torch.float64)
    network = Between(lambda v: v + scale.expand_as(like(v)) * F.relu(v))
    assert_same_maps(METHODS, network, INPUTS, maps(lambda v: v + scale * F.relu(v)))


def test_masks_from_other_tensors_select() -> None:
    """Neighbours in a graph, and examples whose sum is positive."""
    network = Between(lambda v: (gram(v).flatten(1) > 0.1).to(v)[:, :1] * ((v @ v.mT > 0.1).to(v) @ v))
    leaf = INPUTS.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(network(leaf)[:, 1].sum(), leaf)
    for method in RELU_METHODS.values():
        assert error_between(method(network, INPUTS), gradient) < 1e-9


CHOSEN: dict[str, Pointwise] = {
    "softmax": lambda v: torch.stack([v, 0 * v]).softmax(0)[0],
    "logcumsumexp": lambda v: torch.logcumsumexp(torch.stack([0 * v, v]), 0)[1],
    "gather": lambda v: (both := torch.stack([0 * v, v])).gather(0, both.argmax(0, keepdim=True))[0],
    "__getitem__": lambda v: torch.stack([0 * v, v])[(v > 0).long(), torch.arange(4)[:, None], torch.arange(6)],
}


@pytest.mark.parametrize("name", CHOSEN)
def test_choices_between_functions_of_one_tensor_are_refused(name) -> None:
    assert_refused(Between(CHOSEN[name]), rf"computes an activation with {name}, which chooses")


def test_functions_of_one_tensor_may_pass_a_softmax_side_by_side() -> None:
    network = Between(lambda v: torch.stack([v, 2 * v]).softmax(-1).sum(0))
    leaf = INPUTS.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(network(leaf)[:, 1].sum(), leaf)
    assert error_between(RELU_METHODS["guided"](network, INPUTS), gradient) < 1e-9


def test_functions_of_complex_numbers_are_refused() -> None:
    assert_refused(Between(lambda v: torch.exp(1j * v).real), "exp of complex numbers, .* real and imaginary parts")


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_nested_tensors_inside_a_model_are_refused() -> None:
    def padded(v: Tensor) -> Tensor:
        return torch.nested.to_padded_tensor(F.relu(torch.nested.as_nested_tensor(list(v))), 0.0)

    assert_refused(Between(padded), "nested tensor: pad")
    assert_refused(Between(padded), "nested_to_padded_tensor in .* no LRP rule", LRP_METHODS)


def test_flex_attention_is_refused() -> None:
    def attend(v: Tensor) -> Tensor:
        heads = v.view(1, 2, 4, 3)
        return flex_attention(heads, heads, heads).reshape(4, 6)

    assert_refused(Between(attend), "flex_attention, which PyTorch compiles", METHODS)


# -- subclasses of tensors ---------------------------------------------------------------------------------------------


class Positive(Tensor):
    """Linear layers use its positive part."""

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args = tuple(value.as_subclass(Tensor) if isinstance(value, cls) else value for value in args)
        if function is F.linear:
            args = (args[0], F.relu(args[1]), *args[2:])
        return function(*args, **(kwargs or {}))


class Mute(Tensor):
    """Implements nothing."""

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return NotImplemented


@pytest.mark.parametrize("kind", [Plain, Unwrapping])
def test_signals_may_be_of_a_subclass(kind) -> None:
    assert_same_maps(METHODS, Between(lambda v: F.relu(v.as_subclass(kind))), INPUTS, maps(F.relu))


@pytest.mark.parametrize("kind", [Plain, Unwrapping])
@pytest.mark.parametrize(
    "function",
    [
        lambda v, kind: (typed := v.as_subclass(kind)) * (typed > 0),
        lambda v, kind: v.as_subclass(kind) * (v > 0),
        lambda v, kind: v * (v.as_subclass(kind) > 0),
        lambda v, kind: (rows := v.view(4, 6)).as_subclass(kind) * (rows > 0),
        lambda v, kind: v.clone().as_subclass(kind).relu_(),
        lambda v, kind: F.relu(v.clone().as_subclass(kind), inplace=True),
        lambda v, kind: torch.cat([part.as_subclass(kind) for part in v.chunk(2, 1)], 1).clamp(min=0),
    ],
    ids=["product", "signal", "mask", "view", "relu_", "inplace", "cat"],
)
def test_activations_by_hand_may_be_of_a_subclass(function, kind) -> None:
    """A tensor that was given another type is the tensor that it was."""
    assert_same_maps(METHODS, Between(lambda v: function(v, kind)), INPUTS, maps(F.relu))


@pytest.mark.parametrize("kind", [Plain, Unwrapping, Positive])
def test_weights_may_be_of_a_subclass(kind) -> None:
    """The computation of its override counts, not that of its numbers alone."""
    network, expected = Between(F.relu), Between(F.relu)
    weight = network.last.weight.detach()
    del network.last._parameters["weight"]
    network.last.weight = weight.as_subclass(kind)
    expected.last.weight.data.copy_(weight.clamp(min=0) if kind is Positive else weight)
    assert_same_maps(METHODS, network, INPUTS, {name: method(expected, INPUTS) for name, method in METHODS.items()})


def test_a_subclass_that_implements_nothing_is_refused() -> None:
    assert_refused(Between(lambda v: F.relu(v.as_subclass(Mute))), "relu, which Mute does not implement", METHODS)


def test_a_slope_that_is_computed_is_refused_with_the_remedy() -> None:
    assert_refused(Between(lambda v: F.prelu(v, v.sigmoid().mean(0))), r"prelu.*slope \* F\.relu\(-x\)", METHODS)


FORMS: dict[str, tuple[Callable[[], Tensor], str]] = {
    "sparse": (lambda: INPUTS.to_sparse(), "layout torch.sparse_coo.*to_dense"),
    "nested": (lambda: torch.nested.nested_tensor(list(INPUTS)), "nested tensor.*padded"),
    "quantised": (lambda: torch.quantize_per_tensor(INPUTS.float(), 0.1, 0, torch.qint8), "quantised.*dequantize"),
    "masked": (lambda: torch.masked.masked_tensor(INPUTS, INPUTS > 0), "MaskedTensor.*plain torch.Tensor"),
    "of eight bits": (lambda: INPUTS.to(torch.float8_e4m3fn), "float8.*torch.float32"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", FORMS)
def test_inputs_of_other_forms_are_refused_with_what_to_pass(form) -> None:
    make, says = FORMS[form]
    for method in METHODS.values():
        with pytest.raises(InputTypeError, match=rf"input 0 is .*{says}"):
            method(Between(F.relu), make())
