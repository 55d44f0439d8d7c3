"""Linear layers in unusual spellings get the rule, and the map, of their usual ones."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.graphs import FORMS, PRODUCTS, GraphConvolution
from support.helpers import error_between
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import deform_conv2d

from plugin.attr import LRPTranspose
from plugin.errors import NoRuleError
from plugin.rules import AlphaBeta, Composite, Epsilon, Flat, Gamma, WSquare, ZBox, ZPlus

TARGET = 1
FIRST = {"flat": Flat(), "w-square": WSquare(), "box": ZBox(-4, 4)}
INNER = {"epsilon": Epsilon(), "z-plus": ZPlus(), "gamma": Gamma(0.3), "alpha-beta": AlphaBeta(2, 1)}
COMPOSITES = {name: Composite(default=rule) for name, rule in INNER.items()} | {
    name: Composite(default=ZPlus(), first=rule) for name, rule in FIRST.items()
}


def assert_same_relevance(model: nn.Module, reference: nn.Module, inputs: Tensor, composite: Any) -> None:
    torch.testing.assert_close(model(inputs), reference(inputs))
    found, expected = (LRPTranspose(one, composite).attribute(inputs, TARGET) for one in (model, reference))
    assert error_between(found, expected) < 1e-9


# -- deformable convolutions -------------------------------------------------------------------------------------------

Convolve = Callable[[Tensor, nn.Conv2d], Tensor]
IMAGES = torch.randn(2, 4, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def deformed(x: Tensor, conv: nn.Conv2d, shift: float = 0.0, mask: float | None = None) -> Tensor:
    places = torch.arange(2 * 18 * 25, dtype=x.dtype).view(2, 18, 5, 5).sin() * shift
    weights = None if mask is None else torch.full((2, 9, 5, 5), mask, dtype=x.dtype)
    return deform_conv2d(x, places, conv.weight, conv.bias, padding=1, mask=weights)


class Convolving(nn.Module):
    """A convolution in some spelling, with padding, as the first layer."""

    def __init__(self, convolve: Convolve, groups: int = 1) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.conv, self.last = nn.Conv2d(4, 6, 3, padding=1, groups=groups, bias=False), nn.Linear(150, 3, bias=False)
        self.convolve = convolve
        self.double().eval()

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.last(F.relu(self.convolve(images, self.conv)).flatten(1))
        return logits


@pytest.mark.parametrize("name", COMPOSITES)
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("mask", [None, 1.0])
def test_a_deformable_convolution_without_offsets_is_a_convolution(mask, groups, name) -> None:
    model = Convolving(lambda x, conv: deformed(x, conv, mask=mask), groups)
    assert_same_relevance(model, Convolving(lambda x, conv: conv(x), groups), IMAGES, COMPOSITES[name])


@pytest.mark.parametrize("mask", [None, 0.5])
@pytest.mark.parametrize("name", FIRST)
def test_places_outside_the_image_take_no_relevance(name, mask) -> None:
    model = Convolving(lambda x, conv: deformed(x, conv, 0.8, mask))
    relevance = LRPTranspose(model, Composite(default=Epsilon(), first=FIRST[name])).attribute(IMAGES, TARGET)
    torch.testing.assert_close(relevance.flatten(1).sum(1), model(IMAGES)[:, TARGET], rtol=1e-4, atol=1e-5)


# -- sparse matrices ---------------------------------------------------------------------------------------------------

GRAPH = torch.Generator().manual_seed(1)
NODES = torch.randn(7, 5, dtype=torch.float64, generator=GRAPH)
EDGES = torch.randn(7, 7, dtype=torch.float64, generator=GRAPH) * (torch.rand(7, 7, generator=GRAPH) < 0.5)


@pytest.mark.filterwarnings("ignore:Sparse CSR:UserWarning")
@pytest.mark.parametrize("name", [name for name in COMPOSITES if name != "flat"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("product", PRODUCTS)
def test_a_sparse_matrix_has_the_rule_of_a_dense_one(product, form, name) -> None:
    sparse = GraphConvolution(PRODUCTS[product], FORMS[form](EDGES))
    assert_same_relevance(sparse, GraphConvolution(torch.matmul, EDGES), NODES, COMPOSITES[name])


def test_the_flat_rule_spreads_over_the_entries_that_a_sparse_matrix_stores() -> None:
    layer = GraphConvolution(torch.sparse.mm, EDGES.to_sparse_coo())
    layer.forward = lambda nodes: layer.product(layer.adjacency, nodes)  # type: ignore[method-assign]
    relevance = LRPTranspose(layer, Composite(default=Flat(0.0))).attribute(NODES, TARGET)
    stored = layer.adjacency.to_dense().ne(0).double()
    share = layer(NODES)[:, TARGET] / stored.sum(1)
    torch.testing.assert_close(relevance[:, TARGET], stored.t() @ share)


def test_a_sparse_signal_meets_the_rule() -> None:
    class Sparse(nn.Linear):
        def forward(self, nodes: Tensor) -> Tensor:
            return torch.sparse.mm(nodes.relu().to_sparse(), self.weight.t())

    class Dense(nn.Linear):
        def forward(self, nodes: Tensor) -> Tensor:
            return nodes.relu() @ self.weight.t()

    def network(kind: type[nn.Linear]) -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(5, 6), kind(6, 3)).double().eval()

    assert_same_relevance(network(Sparse), network(Dense), NODES, COMPOSITES["z-plus"])


@pytest.mark.parametrize("name", ["smm", "hspmm"])
def test_other_products_with_sparse_matrices_are_refused_by_name(name) -> None:
    model = GraphConvolution(lambda a, x: getattr(torch, name)(a, x).to_dense(), EDGES.to_sparse_coo())
    with pytest.raises(NoRuleError, match=f"{name} in the GraphConvolution has no LRP rule"):
        LRPTranspose(model).attribute(NODES, TARGET)


# -- experts -----------------------------------------------------------------------------------------------------------

Mixing = Callable[[Tensor, Tensor, Tensor], Tensor]
MIXTURES: dict[str, Mixing] = {
    "a loop": lambda x, p, w: sum((p[:, i : i + 1] * (x @ w[i].T) for i in range(3)), torch.zeros(())),
    "einsum": lambda x, p, w: torch.einsum("ne,eoi,ni->no", p, w, x),
    "kernels by einsum": lambda x, p, w: torch.einsum("noi,ni->no", torch.einsum("ne,eoi->noi", p, w), x),
    "kernels by matmul": lambda x, p, w: torch.bmm((p @ w.flatten(1)).view(-1, 5, 6), x[..., None])[..., 0],
    "kernels by tensordot": lambda x, p, w: (torch.tensordot(p, w, 1) @ x[..., None])[..., 0],
    "kernels by a sum": lambda x, p, w: ((p[:, :, None, None] * w).sum(1) @ x[..., None])[..., 0],
    "inputs by an outer product": lambda x, p, w: torch.einsum("nei,eoi->no", torch.einsum("ne,ni->nei", p, x), w),
    "by a product and a sum": lambda x, p, w: (torch.tensordot(p, w, 1) * x[:, None]).sum(-1),
    "kernels of a convolution": lambda x, p, w: F.conv1d(
        x.reshape(1, -1, 1), (p @ w.flatten(1)).view(-1, 6, 1), groups=len(x)
    ).view(len(x), -1),
    "a matrix for each": lambda x, p, w: torch.stack(
        [k @ one for one, k in zip(x, (p @ w.flatten(1)).view(-1, 5, 6), strict=True)]
    ),
    "by linear, with a bias": lambda x, p, w: torch.baddbmm(
        x.new_zeros(4, 5, 1), F.linear(p, w.flatten(1).T, x.new_zeros(30)).view(-1, 5, 6), x[..., None]
    )[..., 0],
    "a stack of results": lambda x, p, w: (p[..., None] * torch.stack([x @ one.T for one in w], 1)).sum(1),
}


GATES: dict[str, Callable[[Tensor], Tensor]] = {
    "softmax": lambda v: v.softmax(-1),
    "sigmoid": torch.sigmoid,
    "hardsigmoid": F.hardsigmoid,
    "twice a sigmoid": lambda v: 2 * v.sigmoid(),
    "normalised sigmoids": lambda v: v.sigmoid() / v.sigmoid().sum(-1, keepdim=True),
}
INPUTS = torch.randn(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


class Experts(nn.Module):
    """Linear experts mixed by gates, without biases."""

    def __init__(self, mix: Mixing, gate: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.gate, self.last = nn.Linear(6, 3, bias=False), nn.Linear(5, 4, bias=False)
        self.experts, self.mix, self.weigh = nn.Parameter(torch.randn(3, 5, 6)), mix, gate
        self.double().eval()

    def forward(self, values: Tensor) -> Tensor:
        result: Tensor = self.last(F.relu(self.mix(values, self.weigh(self.gate(values)), self.experts)))
        return result


@pytest.mark.parametrize("gate", GATES)
@pytest.mark.parametrize("name", MIXTURES)
def test_gates_that_mix_experts_take_no_relevance(name, gate) -> None:
    network = Experts(MIXTURES[name], GATES[gate])
    for preset in ("lrp_0", "attn_lrp", "cp_lrp"):
        relevance = LRPTranspose(network, preset).attribute(INPUTS, TARGET)
        torch.testing.assert_close(relevance.sum(1), network(INPUTS)[:, TARGET])
        expected = LRPTranspose(Experts(MIXTURES["a loop"], GATES[gate]), preset).attribute(INPUTS, TARGET)
        assert error_between(relevance, expected) < 1e-9


def test_keys_computed_from_sigmoid_units_are_signals() -> None:
    """Two layers of a network with sigmoid units: each factor of the scores takes half."""

    class Scores(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(3)
            self.query, self.hidden, self.key = nn.Linear(6, 4), nn.Linear(6, 5), nn.Linear(5, 4)
            self.double().eval()

        def forward(self, tokens: Tensor) -> Tensor:
            scores: Tensor = self.query(tokens) @ self.key(torch.sigmoid(self.hidden(tokens))).mT
            return scores.sum((1, 2))[:, None]

    tokens = INPUTS.view(2, 2, 6)
    model = Scores()
    query, key = model.query, model.key(torch.sigmoid(model.hidden(tokens))).detach()

    class Half(nn.Module):
        def forward(self, tokens: Tensor) -> Tensor:
            return (query(tokens) @ key.mT).sum((1, 2))[:, None]

    of_key = LRPTranspose(model, "lrp_0").attribute(tokens, 0) - LRPTranspose(Half(), "lrp_0").attribute(tokens, 0) / 2
    assert float(of_key.abs().max()) > 1e-2
