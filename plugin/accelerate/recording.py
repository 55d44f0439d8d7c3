"""An attribution, backward pass included, as one flat graph of ATen operations."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from ..captum_api import NeuronAttribution
from ..errors import NotSupportedError, OptionTypeError
from ..inputs import Inputs, as_tuple
from ..kernels.tracing import tracing
from .graphs import Table, combined, constants, drop_aliases, split, values_decide
from .target_positions import Pick
from .weights import LiveWeights

_READS_VALUE = "out of a tracing tensor"  # part of PyTorch's message when a value is read


@dataclass(frozen=True)
class Recording:
    """The graph of an attribution for inputs of one shape, in two parts.

    Attributes:
        weights: the model's tensors that the graph reads.
        derive: computes from them the tensors that do not depend on the inputs, such as folded and clamped weights.
        run: computes the maps and the explained values `(N,)` from these, the inputs and the targets' positions.
        sizes: the sizes of the output (or layer) that targets index, without the batch dimension.
        spec: the nesting of the maps.
    """

    weights: LiveWeights
    derive: fx.GraphModule
    run: fx.GraphModule
    sizes: tuple[int, ...]
    spec: TreeSpec

    def nested(self, maps: Sequence[Tensor]) -> Any:
        """The maps as the attribution returns them."""
        return tree_unflatten(list(maps), self.spec)


def check_attribution(attribution: Any) -> None:
    """Refuse objects that cannot be recorded.

    Raises:
        OptionTypeError: it is none of this package's attributions.
    """
    if not hasattr(attribution, "recordable"):
        raise OptionTypeError(
            f"{type(attribution).__name__} cannot be recorded: pass an attribution of plugin.attr, such as "
            "GuidedBackprop(model)"
        )


def record(
    attribution: Any,
    inputs: Inputs,
    index: Tensor,
    tables: Sequence[Table] = (),
    options: Mapping[str, Any] = MappingProxyType({}),
) -> Recording:
    """Run the attribution once and record every operation.

    Args:
        attribution: one of `plugin.attr`.
        inputs: example tensor, or a tuple of them; the graph is for their shapes and types.
        index: example positions of the targets `(N,)`, int64.
        tables: replacements of operations.
        options: further arguments of `attribution.attribute`.

    Raises:
        NotSupportedError: values decide which operations the model computes, or it computes outside PyTorch.
        Everything that `attribution.attribute` raises.
    """
    values = tuple(value.detach().clone() for value in as_tuple(inputs))
    weights = LiveWeights(attribution.model)
    tensors = weights.tensors()
    # Tensors stored by earlier calls would be constants of the graph.
    fresh = attribution.recordable()
    picks: list[Pick] = []
    specs: list[TreeSpec] = []

    def maps(_: Sequence[Tensor], values: tuple[Tensor, ...], index: Tensor) -> list[Tensor]:
        picks.append(Pick(index))
        result = _attribute(fresh, values if isinstance(inputs, tuple) else values[0], picks[-1], options)
        found, spec = tree_flatten(result)
        specs.append(spec)
        assert picks[-1].selected is not None
        return [*found, picks[-1].selected.detach()]

    graph = _traced(maps, tensors, values, index)
    operation = values_decide(graph)
    if operation is not None:
        raise NotSupportedError(_decides(f"{operation} has a result whose size depends on values"))
    other = tuple(value.flip(-1) for value in values), (index + 1) % math.prod(picks[0].sizes)
    with torch.no_grad(), tracing():  # computed as in the recording: without the shortcuts, which round otherwise
        _check_same(graph(tensors, *other), maps(tensors, *other))
    graph = _functional(graph, tensors, values, index, tables)
    used = [bool(node.users) for node in list(graph.graph.nodes)[: len(tensors)]]
    _drop_unused(graph, used)
    weights.keep(used)
    derive, run = split(graph, sum(used))
    return Recording(weights, derive, run, picks[0].sizes, specs[0])


def _attribute(attribution: Any, inputs: Inputs, pick: Pick, options: Mapping[str, Any]) -> Any:
    keyword = "neuron_selector" if isinstance(attribution, NeuronAttribution) else "target"
    return attribution.attribute(inputs, **{keyword: pick}, **options)


def _traced(function: Any, tensors: Sequence[Tensor], values: tuple[Tensor, ...], index: Tensor) -> fx.GraphModule:
    """Trace a function; `tensors` are the model's own objects, so operations that read them read the graph's inputs."""
    try:
        with tracing():
            return make_fx(function)(tensors, values, index)
    except RuntimeError as error:
        if _READS_VALUE in str(error):
            raise NotSupportedError(
                _decides("the model reads a value, as `if x.sum() > 0` or `x.item()` do")
            ) from error
        raise


def _check_same(recorded: Sequence[Tensor], computed: Sequence[Tensor]) -> None:
    """Check a recording on another input; if it differs, something bypassed the record: NumPy, a random number."""
    for one, other in zip(recorded, computed, strict=True):
        if not torch.allclose(one, other, rtol=0, atol=1e-3 * float(other.abs().max()), equal_nan=True):
            raise NotSupportedError(
                "the recording gives another map than the attribution for another input: the model is random (call "
                "model.eval()), or computes something outside PyTorch, as NumPy and .tolist() do (use PyTorch for it)"
            )


def _decides(what: str) -> str:
    return (
        f"{what}, so its operations are not the same for every input and cannot be recorded: call the attribution "
        "itself, without create_graph, or write the choice with torch.where"
    )


def _functional(
    graph: fx.GraphModule, tensors: Sequence[Tensor], values: tuple[Tensor, ...], index: Tensor, tables: Sequence[Table]
) -> fx.GraphModule:
    """The graph with flat inputs, without in-place operations, and with the operations of the tables replaced."""
    count = len(tensors)

    def flat(*arguments: Tensor) -> Any:
        return graph(list(arguments[:count]), tuple(arguments[count:-1]), arguments[-1])

    with torch.no_grad():
        trace = make_fx(torch.func.functionalize(flat), decomposition_table=combined([constants(), *tables]))
        result = trace(*tensors, *values, index)
    drop_aliases(result)
    result.graph.eliminate_dead_code()
    return result


def _drop_unused(graph: fx.GraphModule, used: Sequence[bool]) -> None:
    for node, use in zip(list(graph.graph.nodes), used, strict=False):
        if not use:
            graph.graph.erase_node(node)
    graph.recompile()
