"""All that is used of Captum beside its public base classes, so that a change of Captum is felt in one place."""

from collections.abc import Callable
from typing import Any, TypeAlias

from captum._utils.common import (
    _format_additional_forward_args,
    _format_output,
    _format_tensor_into_tuples,
    _run_forward,
    _select_targets,
    _verify_select_neuron,
)
from captum.attr import GradientAttribution, LayerAttribution, NeuronAttribution
from captum.log import log_usage
from torch import Tensor

from ..propagation.tensors import map_tensors

Target: TypeAlias = int | tuple[int, ...] | Tensor | list[int] | list[tuple[int, ...]] | None
Neuron: TypeAlias = int | tuple[int | slice, ...] | Callable[..., Tensor]
Inputs: TypeAlias = Tensor | tuple[Tensor, ...]

__all__ = [
    "GradientAttribution",
    "Inputs",
    "LayerAttribution",
    "Neuron",
    "NeuronAttribution",
    "Target",
    "additional_arguments",
    "as_given",
    "as_tuple",
    "log_usage",
    "run_forward",
    "select_neuron",
    "select_target",
]


def as_tuple(inputs: Inputs) -> tuple[Tensor, ...]:
    """A tensor or a tuple of tensors, as a tuple."""
    return _format_tensor_into_tuples(inputs)


def as_given(inputs: Inputs, results: tuple[Tensor, ...]) -> Inputs:
    """Results in the form the inputs came in: tensor in, tensor out; tuple in, tuple out."""
    return _format_output(isinstance(inputs, tuple), results)


def additional_arguments(arguments: Any) -> tuple[Any, ...]:
    """Captum's `additional_forward_args`, as a tuple."""
    return _format_additional_forward_args(arguments) or ()


def run_forward(forward: Callable[..., Any], inputs: tuple[Tensor, ...], additional_forward_args: Any) -> Any:
    """The model's output for inputs and additional arguments, which may come from inference mode."""
    usable = map_tensors(lambda tensor: tensor.clone() if tensor.is_inference() else tensor, additional_forward_args)
    return _run_forward(forward, inputs, None, usable)


def select_target(output: Tensor, target: Target | Callable[[Tensor], Tensor]) -> Tensor:
    """The values `(N,)` that are explained.

    Args:
        output: what the model returned, `(N, ...)`; one value per example if `target` is None.
        target: Captum's grammar: an int, a tuple, a tensor or a list with one entry per example; or a function of the
            output that returns the values.

    Raises:
        AssertionError: there is no such target, or more than one value per example is left.
    """
    if not isinstance(output, Tensor):
        raise AssertionError(f"the model returned a {type(output).__name__}: wrap it so that it returns one tensor")
    if target is None:
        selected = output.reshape(1) if output.ndim == 0 else output
    elif callable(target):
        selected = target(output)
    else:
        _check_target(output, target)
        selected = _select_targets(output, target)
    assert selected.numel() == selected.shape[0], (
        f"{selected.numel() // max(1, selected.shape[0])} values per example are left of the output "
        f"{tuple(output.shape)} by target {target}: name one with target="
    )
    return selected.reshape(-1)


def _check_target(output: Tensor, target: Any) -> None:
    """An index that does not exist must not reach the device, where it may end the process."""
    if isinstance(target, Tensor):
        target = target.tolist()
    one_each = isinstance(target, list)
    for entry in target if one_each else [target]:
        index = entry if isinstance(entry, tuple) else (entry,)
        assert len(index) < output.ndim, f"target {entry} has more indices than the output {tuple(output.shape)}"
        for position, size in zip(index, output.shape[1:], strict=False):
            if isinstance(position, int):
                lowest = 0 if one_each and not isinstance(entry, tuple) else -size  # Captum gathers lists of ints
                assert lowest <= position < size, (
                    f"target {entry} is out of range for the output {tuple(output.shape)}: "
                    f"it must be between {lowest} and {size - 1}"
                )


def select_neuron(value: Tensor | tuple[Tensor, ...], selector: Neuron, layer: str) -> Tensor:
    """The neuron's values `(N,)` in what a layer returned or received.

    Args:
        value: tensor `(N, ...)` or a tuple of them.
        selector: index without the batch dimension, a tuple that may hold slices (summed over), or a function.
        layer: the layer's name, for the error.

    Raises:
        AssertionError: the layer has no such neuron.
    """
    tensors = value if isinstance(value, tuple) else (value,)
    try:
        selected = _verify_select_neuron(tensors, selector)
    except (IndexError, AssertionError) as error:
        shapes = " and ".join(str(tuple(tensor.shape[1:])) for tensor in tensors)
        raise AssertionError(
            f"layer {layer} has no neuron {selector}: its shape per example is {shapes} ({error})"
        ) from error
    if not isinstance(selected, Tensor) or selected.ndim == 0 or selected.numel() != selected.shape[0]:
        shape = tuple(selected.shape) if isinstance(selected, Tensor) else type(selected).__name__
        raise AssertionError(f"neuron {selector} of layer {layer} selects {shape}, not one value per example")
    return selected.reshape(-1)
