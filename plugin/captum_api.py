"""All uses of Captum's functions and classes, so that a change of Captum affects one file."""

import operator
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from captum._utils.common import (
    _format_additional_forward_args,
    _format_output,
    _run_forward,
    _select_targets,
    _verify_select_neuron,
)
from captum.attr import GradientAttribution, LayerAttribution, NeuronAttribution
from captum.attr._core.lrp import SUPPORTED_NON_LINEAR_LAYERS
from captum.attr._utils.lrp_rules import (
    Alpha1_Beta0_Rule,
    EpsilonRule,
    GammaRule,
    IdentityRule,
    PropagationRule,
)
from torch import Tensor, device

from .errors import ModelOutputError, NeuronError, OptionTypeError, TargetError
from .inputs import Inputs
from .propagation.tensors import map_tensors

if TYPE_CHECKING:
    _Method = TypeVar("_Method", bound=Callable[..., Any])

    def log_usage(*, part_of_slo: bool = False) -> Callable[[_Method], _Method]:
        """Captum's decorator, which has no types: to a type checker every method would take anything."""
        ...
else:
    from captum.log import log_usage

Target: TypeAlias = int | tuple[int, ...] | Tensor | list[int] | list[tuple[int, ...]] | Callable[[Any], Tensor] | None
Neuron: TypeAlias = int | slice | tuple[int | slice, ...] | Callable[..., Tensor]

__all__ = [
    "SUPPORTED_NON_LINEAR_LAYERS",
    "Alpha1_Beta0_Rule",
    "EpsilonRule",
    "GammaRule",
    "IdentityRule",
    "PropagationRule",
    "GradientAttribution",
    "LayerAttribution",
    "Neuron",
    "NeuronAttribution",
    "Target",
    "additional_arguments",
    "as_given",
    "check_device_ids",
    "log_usage",
    "plain_target",
    "run_forward",
    "select_neuron",
    "select_target",
]


def as_given(inputs: Inputs, results: tuple[Tensor, ...]) -> Inputs:
    """Results in the form of the inputs: tensor in, tensor out; tuple in, tuple out."""
    result: Inputs = _format_output(isinstance(inputs, tuple), results)
    return result


def check_device_ids(device_ids: Any, option: str | None = None) -> None:
    """Refuse an option that was given in the place of Captum's `device_ids`, which is not used.

    Args:
        device_ids: the argument: None, or a sequence of devices.
        option: the keyword of the option that callers may have meant; None if the class has none.

    Raises:
        OptionTypeError: it is neither.
    """
    is_sequence = isinstance(device_ids, Sequence) and not isinstance(device_ids, str)
    if device_ids is not None and not (is_sequence and all(isinstance(one, int | device) for one in device_ids)):
        remedy = f"give {option} by keyword, {option}={device_ids!r}" if option else "leave it out"
        raise OptionTypeError(
            f"device_ids = {device_ids!r}: in Captum's order this place belongs to device_ids, a list of ints: {remedy}"
        )


def additional_arguments(arguments: Any) -> tuple[Any, ...]:
    """Captum's `additional_forward_args`, as a tuple."""
    return _format_additional_forward_args(arguments) or ()


def run_forward(forward: Callable[..., Any], inputs: tuple[Tensor, ...], additional_forward_args: Any) -> Any:
    """The model's output for inputs and additional arguments, which may come from inference mode."""
    usable = map_tensors(lambda tensor: tensor.clone() if tensor.is_inference() else tensor, additional_forward_args)
    return _run_forward(forward, inputs, None, usable)


def select_target(output: Any, target: Target) -> Tensor:
    """The explained values `(N,)`.

    Args:
        output: the model's output: `(N, ...)`; one value per example if `target` is None; anything if it is a
            function.
        target: Captum's grammar: an int, a tuple, a tensor or a list with one entry per example, also of NumPy's
            integers; or a function of the output that returns the values.

    Raises:
        ModelOutputError: the output is no tensor, and the target no function.
        TargetError: there is no such target, or more than one value per example is left.
    """
    if callable(target):
        return _one_each(target(output), f"the function given as target, of the output {_shape(output)}, returns")
    if not isinstance(output, Tensor):
        raise ModelOutputError(
            f"the model returned a {type(output).__name__}: wrap it so that it returns one tensor, or pass as target a "
            "function of its output, such as lambda output: output[0][:, 3]"
        )
    target = plain_target(target)
    _check_target(output, target)
    return _one_each(_select_targets(output, target), f"target {target} of the output {_shape(output)} leaves")


def _one_each(selected: Any, what: str) -> Tensor:
    """The selected values, if there is one per example; `what` describes the selection, for the error."""
    if isinstance(selected, Tensor) and 0 < selected.numel() == (len(selected) if selected.ndim else 1):
        return selected.reshape(-1)
    raise TargetError(f"{what} {_shape(selected)}, which is not one value per example: name one with target=")


def _shape(value: Any) -> str:
    return str(tuple(value.shape)) if isinstance(value, Tensor) else f"a {type(value).__name__}"


def plain_target(target: Any) -> Any:
    """A target as None, ints, tuples of ints and slices, and lists of either; converts any container of integers.

    Raises:
        TargetError: it holds something else.
    """
    if target is None or callable(target):
        return target
    if isinstance(target, list):
        return [_plain_index(entry) for entry in target]
    if not hasattr(target, "tolist"):
        return _plain_index(target)
    shape = tuple(getattr(target, "shape", ()))
    sizes = [size for size in shape if size != 1]
    if len(sizes) > 1 or len(shape) > 2 or (sizes and shape[0] != sizes[0]):
        raise TargetError(
            f"the target has shape {shape}: pass one integer per example, (N,), as target.squeeze() may be, or a list "
            "of tuples, one per example"
        )
    entries = target.reshape(-1).tolist()
    return _plain_index(entries[0]) if not sizes else [_plain_index(entry) for entry in entries]


def _plain_index(entry: Any) -> Any:
    """One target as an int, or a tuple of ints and slices."""
    parts = entry if isinstance(entry, tuple) else (entry,)
    try:
        index = tuple(part if isinstance(part, slice) else operator.index(part) for part in parts)
    except TypeError:
        raise TargetError(
            f"target {entry!r} is no index: pass an int, a tuple of ints, a list with one of these per example, or a "
            "function of the output"
        ) from None
    return index if isinstance(entry, tuple) else index[0]


def _check_target(output: Tensor, target: Any) -> None:
    """Check an index before it reaches the device, where one out of range may end the process."""
    if target is None:
        return
    shape, one_each = _shape(output), isinstance(target, list)
    if one_each and len(target) != len(output):
        raise TargetError(f"there are {len(target)} targets for {len(output)} examples: give one, or one for each")
    tuples = [isinstance(entry, tuple) for entry in target] if one_each else []
    if len(set(tuples)) > 1:
        raise TargetError(f"the targets {target} are partly ints and partly tuples: give one or the other")
    if one_each and not any(tuples) and output.ndim != 2:
        raise TargetError(f"a list of ints names columns, and the output is {shape}: pass a list of tuples")
    for entry in target if one_each else [target]:
        index = entry if isinstance(entry, tuple) else (entry,)
        if len(index) >= output.ndim:
            raise TargetError(f"target {entry} has more indices than the output {shape} has dimensions for one example")
        for position, size in zip(index, output.shape[1:], strict=False):
            lowest = 0 if one_each and not isinstance(entry, tuple) else -size  # Captum gathers lists of ints
            if isinstance(position, int) and not lowest <= position < size:
                raise TargetError(
                    f"target {entry} is out of range for the output {shape}: it must be between {lowest} and {size - 1}"
                )


def select_neuron(value: Tensor | tuple[Tensor, ...], selector: Neuron, layer: str) -> Tensor:
    """The neuron's values `(N,)` in a layer's output or input.

    Args:
        value: tensor `(N, ...)` or a tuple of them.
        selector: index without the batch dimension, a tuple that may hold slices (summed over), or a function.
        layer: the layer's name, for the error.

    Raises:
        NeuronError: the layer has no such neuron, or several tensors and the selector is no function.
    """
    tensors = value if isinstance(value, tuple) else (value,)
    selector = (selector,) if isinstance(selector, slice) else selector
    shapes = " and ".join(str(tuple(tensor.shape[1:])) for tensor in tensors)
    if not callable(selector) and len(tensors) > 1:
        raise NeuronError(
            f"layer {layer} has {len(tensors)} tensors, and neuron {selector} may be in any: its shapes per example "
            f"are {shapes}; pass a function of them, such as lambda tensors: tensors[0][:, 3]"
        )
    try:
        selected = _verify_select_neuron(tensors, selector if callable(selector) else _plain_index(selector))
    except (IndexError, AssertionError) as error:
        raise NeuronError(
            f"layer {layer} has no neuron {selector}: its shape per example is {shapes} ({error})"
        ) from error
    if not isinstance(selected, Tensor) or selected.ndim == 0 or selected.numel() != selected.shape[0]:
        shape = tuple(selected.shape) if isinstance(selected, Tensor) else type(selected).__name__
        raise NeuronError(f"neuron {selector} of layer {layer} selects {shape}, not one value per example")
    return selected.reshape(-1)
