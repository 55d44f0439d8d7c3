"""The plain gradient needs no rule: nothing is refused, and a ReLU has the gradient 0 at 0 in every spelling."""

import pytest
import torch
from support.between import INPUTS, Between, Pointwise
from support.helpers import error_between
from torch import Tensor, nn
from torch.nn import functional as F

from plugin.attr import ModifiedBackprop, NeuronModifiedBackprop
from plugin.errors import UnseenOperationError


class Cube(torch.autograd.Function):
    """Has a backward pass of its own."""

    @staticmethod
    def forward(ctx, value):
        ctx.save_for_backward(value)
        return value**3

    @staticmethod
    def backward(ctx, signal):
        return signal * 3 * ctx.saved_tensors[0] ** 2


@torch.jit.script
def scripted(v: Tensor) -> Tensor:
    return torch.relu(v)


def padded(v: Tensor) -> Tensor:
    return torch.nested.to_padded_tensor(F.relu(torch.nested.as_nested_tensor(list(v))), 0.0)


FUNCTIONS: dict[str, Pointwise] = {
    "not in the table": lambda v: F.huber_loss(v, torch.zeros_like(v), reduction="none"),
    "a private operation": lambda v: torch._foreach_mul([v], [v.sigmoid()])[0],
    "a choice": lambda v: torch.stack([v, 0 * v]).softmax(0)[0],
    "a sort": lambda v: F.pad(v[..., None], (0, 1)).sort(-1)[0][..., 1],
    "a chosen place": lambda v: (both := torch.stack([0 * v, v])).gather(0, both.argmax(0, keepdim=True))[0],
    "a matrix of a mask": lambda v: (torch.diag_embed((v > 0).to(v)) @ v[..., None])[..., 0],
    "entries of a table": lambda v: F.one_hot((v > 0).long(), 2)[..., 1] * v,
    "complex numbers": lambda v: torch.exp(1j * v).real,
    "nested tensors": padded,
    "vmap": torch.vmap(F.relu),
    "a scripted function": scripted,
    "a function with a gradient of its own": Cube.apply,
    "a maximum along a dimension": lambda v: torch.stack([v, 0 * v]).amax(0),
}


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("name", FUNCTIONS)
def test_nothing_is_refused(name) -> None:
    network = Between(FUNCTIONS[name])
    leaf = INPUTS.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(network(leaf)[:, 1].sum(), leaf)
    assert error_between(ModifiedBackprop(network, "gradient").attribute(INPUTS, 1), gradient) < 1e-9
    neuron = NeuronModifiedBackprop(network, "last", "gradient").attribute(INPUTS, 1)
    assert error_between(neuron, gradient) < 1e-9


@pytest.mark.parametrize("rule", ["guided", "deconvnet", "linear adjoint", "gradient without switches"])
def test_other_rules_refuse_what_they_do_not_see(rule) -> None:
    with pytest.raises(UnseenOperationError, match="huber_loss"):
        ModifiedBackprop(Between(FUNCTIONS["not in the table"]), rule).attribute(INPUTS, 1)


@pytest.mark.parametrize("function", [lambda v: v.clamp(min=0), lambda v: torch.maximum(v, torch.zeros(()).to(v))])
def test_a_relu_by_hand_has_the_gradient_of_a_relu_at_0(function) -> None:
    class Zero(nn.Module):
        def forward(self, values: Tensor) -> Tensor:
            result: Tensor = function(values * 0).sum(1, keepdim=True)
            return result

    assert not ModifiedBackprop(Zero(), "gradient").attribute(INPUTS, 0).any()
