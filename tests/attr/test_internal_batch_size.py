"""`internal_batch_size`: fewer examples at a time, the same result."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.helpers import with_module
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from plugin.attr import (
    Deconvolution,
    GuidedBackprop,
    GuidedGradCam,
    LayerLRPTranspose,
    LRPTranspose,
    NeuronDeconvolution,
    NeuronGuidedBackprop,
    NeuronLRPTranspose,
)

COUNT = 7
IMAGES = torch.randn(COUNT, 3, 9, 9, generator=torch.Generator().manual_seed(1))


class Recorder(nn.Module):
    """Two inputs and an argument per example; remembers how many examples it was given at a time."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.network, self.counts = with_module(nn.ReLU()), list[int]()

    def forward(
        self, first: Tensor, second: Tensor | None = None, scale: Tensor | float = 1.0, shift: Any = 0
    ) -> Tensor:
        self.counts.append(len(first))
        return self.network(first if second is None else first + 2 * second) * scale + shift


METHODS: dict[str, Callable[[nn.Module], Any]] = {
    "guided": GuidedBackprop,
    "deconvnet": Deconvolution,
    "guided grad-cam": lambda model: GuidedGradCam(model, model.network.conv2),
    "lrp": LRPTranspose,
    "layer lrp": lambda model: LayerLRPTranspose(model, "network.conv2"),
    "several layers": lambda model: LayerLRPTranspose(model, ["network.conv1", "network.conv2"]),
}
NEURON_METHODS: dict[str, Callable[[nn.Module], Any]] = {
    "guided": lambda model: NeuronGuidedBackprop(model, "network.conv2"),
    "deconvnet": lambda model: NeuronDeconvolution(model, "network.conv2"),
    "lrp": lambda model: NeuronLRPTranspose(model, "network.conv2"),
}
TARGETS = {
    "int": 3,
    "tuple": (3,),
    "list": [0, 1, 2, 3, 4, 0, 1],
    "tuples": [(0,), (1,), (2,), (3,), (4,), (0,), (1,)],
    "tensor": torch.arange(COUNT) % 5,
    "one-element tensor": torch.tensor([2]),
}


def assert_same(one: Any, other: Any) -> None:
    """Equal structure and values, but for the rounding of other sums in a convolution."""
    tree_map(lambda a, b: torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6), one, other)


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_same_result_a_few_at_a_time(method, target):
    model = Recorder()
    attribution = method(model)
    expected = attribution.attribute(IMAGES, target=target)
    model.counts.clear()
    assert_same(attribution.attribute(IMAGES, target=target, internal_batch_size=3), expected)
    assert set(model.counts) == {3, 1}


@pytest.mark.parametrize("selector", [(2, 1, 1), (slice(0, 3), 1, 2), lambda output: output.sum((1, 2, 3))])
@pytest.mark.parametrize("method", NEURON_METHODS.values(), ids=NEURON_METHODS)
def test_same_neuron_a_few_at_a_time(method, selector):
    model = Recorder()
    attribution = method(model)
    expected = attribution.attribute(IMAGES, selector)
    model.counts.clear()
    assert_same(attribution.attribute(IMAGES, selector, internal_batch_size=2), expected)
    assert model.counts == [2, 2, 2, 1]


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_arguments_with_a_row_per_example_are_split(method):
    attribution, scale = method(Recorder()), torch.linspace(1, 2, COUNT).view(COUNT, 1)
    arguments = (IMAGES.flip(0), scale, torch.tensor(0.5))
    expected = attribution.attribute(IMAGES, 3, arguments)
    assert_same(attribution.attribute(IMAGES, 3, arguments, internal_batch_size=4), expected)


OF_ALL: dict[str, Any] = {
    "one per class": torch.linspace(-1, 1, 5),
    "as a row": torch.linspace(-1, 1, 5).view(1, 5),
    "a number in a tensor": torch.tensor(0.5),
    "one number": torch.tensor([0.5]),
    "a number": 0.5,
}


@pytest.mark.parametrize("shift", OF_ALL.values(), ids=OF_ALL)
@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_arguments_that_belong_to_all_examples_are_not_split(method, shift):
    """Here a sum with the scores, of which there are fewer than examples; and a factor, of which LRP takes note."""
    attribution = method(Recorder())
    for arguments in ((None, 1.0, shift), (None, shift)):
        expected = attribution.attribute(IMAGES, 3, arguments)
        for size in (2, 3):
            assert_same(attribution.attribute(IMAGES, 3, arguments, internal_batch_size=size), expected)


def test_arguments_with_more_rows_than_examples_are_not_split():
    """A table that the model picks rows from."""
    model = Recorder()

    class Picking(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = model

        def forward(self, images: Tensor, table: Tensor) -> Tensor:
            return self.network(images, None, table[-5:])

    attribution, table = GuidedBackprop(Picking()), torch.linspace(1, 2, COUNT + 4)
    expected = attribution.attribute(IMAGES, 3, table)
    assert_same(attribution.attribute(IMAGES, 3, table, internal_batch_size=3), expected)


@pytest.mark.parametrize("size", [1, 3, 7, 100])
def test_several_inputs_stay_a_tuple(size):
    attribution, inputs = GuidedBackprop(Recorder()), (IMAGES, IMAGES.flip(0))
    result = attribution.attribute(inputs, 1, internal_batch_size=size)
    assert isinstance(result, tuple)
    assert_same(result, attribution.attribute(inputs, 1))


@pytest.mark.parametrize("method", ["lrp", "layer lrp", "several layers"])
def test_convergence_delta_of_every_example(method):
    attribution = METHODS[method](Recorder())
    expected = attribution.attribute(IMAGES, 3, return_convergence_delta=True)
    result = attribution.attribute(IMAGES, 3, return_convergence_delta=True, internal_batch_size=3)
    assert_same(result, expected)


def test_fewer_activations_are_held():
    held: list[int] = []

    class Ruler(torch.autograd.graph.saved_tensors_hooks):
        def __init__(self) -> None:
            super().__init__(self.pack, lambda tensor: tensor)

        def pack(self, tensor: Tensor) -> Tensor:
            held.append(len(tensor) if tensor.ndim == 4 and tensor.shape[1:] == (6, 9, 9) else 0)
            return tensor

    with Ruler():
        GuidedBackprop(Recorder()).attribute(IMAGES, 3, internal_batch_size=2)
    assert max(held) == 2


@pytest.mark.parametrize(
    ("inputs", "arguments", "error", "message"),
    [
        (IMAGES, {"internal_batch_size": 0}, ValueError, "internal_batch_size = 0"),
        (IMAGES, {"target": [1, 2]}, AssertionError, "there are 2 targets for 7 examples"),
        (IMAGES, {"target": 9}, AssertionError, "target 9 is out of range"),
        (IMAGES, {"target": [-1] * 7}, AssertionError, "target -1 is out of range"),  # a list is gathered, not indexed
        ((IMAGES, IMAGES[:3]), {}, ValueError, r"\[7, 3\] examples"),
        (IMAGES[:0], {}, ValueError, "input 0 is empty"),
        ("images", {}, (AssertionError, TypeError), "str"),
    ],
)
def test_mistakes(inputs, arguments, error, message):
    model = Recorder()
    with pytest.raises(error, match=message):
        GuidedBackprop(model).attribute(inputs, **{"target": 1, "internal_batch_size": 2} | arguments)


def test_values_that_are_not_finite_are_found_before_anything_is_computed():
    model, images = Recorder(), IMAGES.clone()
    images[-1, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="NaN"):
        GuidedBackprop(model).attribute(images, 1, internal_batch_size=2)
    assert model.counts == []
