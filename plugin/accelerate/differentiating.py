"""Attributions that autograd can differentiate, for losses on relevance.

While an attribution runs, its rules hold gates, statistics and denominators constant. The backward pass depends on
this, but its derivative would then be that of another function. A recording has forward and backward pass as plain
operations on inputs and weights, in which nothing is held constant; its derivative is the derivative of the map.
"""

import threading
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, fx, nn
from torch._decomp import get_decompositions
from torch.utils._pytree import tree_leaves

from ..captum_api import PropagationRule, Target, additional_arguments
from ..errors import ModelChangedError, NotSupportedError
from ..inputs import Inputs, as_tuple, check_finite
from ..kernels.tracing import building_graph
from .graphs import Table, aten
from .recording import check_attribution, record
from .target_positions import index_tensor

_KEPT = 16  # recordings for each attribution: for other shapes, and for train and eval mode
_PLAIN = (bool, int, float, str, torch.dtype, PropagationRule)


def differentiable(
    attribution: Any,
    inputs: Inputs,
    target: Target = None,
    additional_forward_args: Any = None,
    allow_integers: bool = False,
    **options: Any,
) -> tuple[Any, Tensor]:
    """The attribution's maps as a function of inputs and parameters that autograd differentiates.

    It is recorded at the first call for inputs of one shape, and again when anything but the weights of the model was
    changed; the recordings are kept as long as the attribution is.

    Args:
        attribution: one of `plugin.attr`.
        inputs: tensor `(N, ...)` or a tuple of them.
        target: None, an int, a tuple of ints, a tensor, or a list with one entry per example.
        additional_forward_args: not supported; must be empty.
        allow_integers: inputs may be integers, such as token ids.
        options: further arguments of the attribution's `attribute`.

    Returns:
        The result of `attribute`, and the explained values `(N,)`, both with their graph.

    Raises:
        NotSupportedError: the model cannot be recorded, or an operation of it has no derivative; or there are
            additional arguments.
        TargetError: there is no such target.
        OptionTypeError: the target is a function or a slice.
        Everything that `attribution.attribute` raises.

    >>> import torch
    >>> from torch import nn
    >>> from plugin.attr import LRPTranspose
    >>> from plugin import accelerate
    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10)).eval()
    >>> images = torch.randn(2, 3, 8, 8)
    >>> relevance, logits = accelerate.differentiable(LRPTranspose(model), images, target=3)
    >>> relevance.square().sum().backward()
    >>> model[0].weight.grad.shape
    torch.Size([4, 3, 3, 3])
    """
    check_attribution(attribution)
    if additional_arguments(additional_forward_args):
        raise NotSupportedError(
            "create_graph takes no additional_forward_args, which a recording would hold constant: pass a module that "
            "calls the model with them, and make it and its attribution anew when they change"
        )
    values = as_tuple(inputs)
    check_finite(values, allow_integers)
    device = values[0].device
    with building_graph():
        values = tuple((value.clone() if value.is_inference() else value).contiguous() for value in values)
        given = values if isinstance(inputs, tuple) else values[0]
        function = _function(attribution, given, options)
        index = index_tensor(target, len(values[0]), function.recording.sizes, device)
        with torch.autocast(device.type, enabled=False):  # the casts of autocast are recorded
            *maps, selected = function(*values, index)
    return function.recording.nested(maps), selected


class _Function:
    """A recording, applied to the model's own tensors."""

    def __init__(self, attribution: Any, inputs: Inputs, options: dict[str, Any]) -> None:
        values = as_tuple(inputs)
        index = torch.zeros(len(values[0]), dtype=torch.int64, device=values[0].device)
        self.recording = record(attribution, inputs, index, [_derivable()], options)
        self._checked: set[tuple[bool, ...]] = set()

    def __call__(self, *arguments: Tensor) -> Sequence[Tensor]:
        weights = self.recording.weights.live()
        wanted = tuple(tensor.requires_grad for tensor in (*weights, *arguments))
        if wanted not in self._checked:
            self._check(weights, arguments)
            self._checked.add(wanted)
        result: Sequence[Tensor] = self.recording.run(*self.recording.derive(*weights), *arguments)
        return result

    def _check(self, weights: Sequence[Tensor], arguments: Sequence[Tensor]) -> None:
        """Differentiate once, to refuse an operation without a derivative here and not in the loss's backward pass.

        Raises:
            NotSupportedError: an operation has none.
        """
        # Copies, so that hooks on the model's own tensors do not run.
        copies = [
            [tensor.detach().requires_grad_(tensor.requires_grad) for tensor in part] for part in (weights, arguments)
        ]
        constants = _Checking(self.recording.derive).run(*copies[0])
        results = [
            result for result in _Checking(self.recording.run).run(*constants, *copies[1]) if result.requires_grad
        ]
        sources = [tensor for part in copies for tensor in part if tensor.requires_grad]
        if not results:
            return
        try:
            torch.autograd.grad([result.sum() for result in results], sources, allow_unused=True)
        except RuntimeError as error:
            if "derivative" in str(error) or "differentiable" in str(error):
                raise NotSupportedError(_no_derivative(str(error))) from error
            raise


class _Checking(fx.Interpreter):
    """Runs a graph, and stops at the first operation on the way that has no derivative."""

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        result = super().call_function(target, args, kwargs)
        for value in tree_leaves(result):
            if isinstance(value, Tensor) and value.grad_fn is not None and "NotImplemented" in value.grad_fn.name():
                raise NotSupportedError(_no_derivative(f"{target} has no derivative"))
        return result


def _no_derivative(what: str) -> str:
    remedy = "leave create_graph out, or have the model compute it in operations that have one"
    if "scaled_dot_product" in what:
        remedy = "attribute under torch.nn.attention.sdpa_kernel(SDPBackend.MATH)"
    return f"the map cannot be differentiated ({what}): {remedy}"


# Since PyTorch 2.9.
_FUSED_RMS_NORM = [aten._fused_rms_norm_backward] if hasattr(aten, "_fused_rms_norm_backward") else []


def _derivable() -> Table:
    """Decompositions of operations that PyTorch cannot differentiate, or differentiates differently."""
    table: Table = get_decompositions(
        [
            aten.hardsigmoid_backward,
            aten.mish_backward,
            aten.native_group_norm_backward,
            aten.silu_backward,
            *_FUSED_RMS_NORM,
        ]
    )
    return table | {aten.clamp.default: _clamp}


def _clamp(value: Tensor, low: Any = None, high: Any = None) -> Any:
    """The clamp with a fixed derivative: at x = 0, a black pixel or a new bias, x+ has slope 1 and x- slope 0.

    Autograd has the slope 0 for both; in PyTorch 2.9 and before, 1 for both.
    """
    if low is None:
        return torch.where(value >= high, high, value)
    return torch.where(value >= low, value, low) if high is None else NotImplemented


_functions: WeakKeyDictionary[Any, OrderedDict[Hashable, _Function]] = WeakKeyDictionary()
_lock = threading.Lock()


def _function(attribution: Any, inputs: Inputs, options: dict[str, Any]) -> _Function:
    """The recording for inputs like these, made if there is none or if the model has changed since."""
    values = as_tuple(inputs)
    device = values[0].device.type
    key = (
        isinstance(inputs, tuple),
        tuple((value.shape, value.dtype, value.device) for value in values),
        torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device),
        tuple(options.items()),
        _settings(attribution.model),
    )
    with _lock:
        functions = _functions.setdefault(attribution, OrderedDict())
        function = functions.get(key)
        if function is None or not _is_current(function):
            function = functions[key] = _Function(attribution, inputs, options)
            if len(functions) > _KEPT:
                functions.popitem(last=False)
        functions.move_to_end(key)
        return function


def _is_current(function: _Function) -> bool:
    try:
        function.recording.weights.live()
    except ModelChangedError:
        return False
    return True


def _settings(model: nn.Module) -> Hashable:
    """The settings besides weights that decide the modules' results: numbers, flags, names, and Captum's rules."""
    return tuple(
        (name, value)
        for module in model.modules()
        for name, value in vars(module).items()
        if _is_setting(value) or (isinstance(value, tuple) and all(map(_is_setting, value)))
    )


def _is_setting(value: Any) -> bool:
    return isinstance(value, _PLAIN)
