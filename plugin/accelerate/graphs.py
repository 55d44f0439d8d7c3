"""Graphs of ATen operations: replacements of operations, and the part that can be computed before the inputs come."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils._pytree import tree_map

from ..kernels.linear import along_channels

aten = torch.ops.aten
Table = dict[Any, Callable[..., Any]]

PRECISIONS = ("float32", "tf32", "bfloat16")

# Matrix products and convolutions: they take most of the time, and hardware has faster number formats for them.
_PRODUCTS = (
    aten.convolution.default,
    aten.convolution_backward.default,
    aten.mm.default,
    aten.addmm.default,
    aten.bmm.default,
    aten.baddbmm.default,
)
_CONVOLUTIONS = {aten.convolution.default: 1, aten.convolution_backward.default: 2}  # position of the weight
_LAYOUTS = {4: torch.channels_last, 5: torch.channels_last_3d}

# Cheaper to compute again than to keep: they make a constant, or another view of the same memory.
_CREATIONS = {aten.full.default, aten.arange.default, aten.scalar_tensor.default}
_VIEWS = {
    aten.t.default,
    aten.transpose.int,
    aten.permute.default,
    aten.view.default,
    aten.expand.default,
    aten.unsqueeze.default,
}


def constants() -> Table:
    """Tensors that take only their size from another, made without it: they do not depend on the inputs."""
    table: Table = {getattr(aten, f"{name}s_like").default: _like(fill) for name, fill in _FILLS.items()}
    table |= {getattr(aten, f"new_{name}s").default: _new(fill) for name, fill in _FILLS.items()}
    return table | {aten.full_like.default: _full_like, aten.new_full.default: _new_full}


def in_bfloat16() -> Table:
    """Matrix products and convolutions of float32 in bfloat16, each result rounded; all other operations unchanged."""
    return {product: _in_bfloat16(product) for product in _PRODUCTS}


def in_channels_last() -> Table:
    """Convolutions whose weights are stored channels last."""
    return {convolution: _in_channels_last(convolution, at) for convolution, at in _CONVOLUTIONS.items()}


def as_on_a_cpu() -> Table:
    """Batch norm as ATen computes it on a CPU, in operations that generated code can fuse: the same to the last bit.

    A unit that rounds to another side of zero is on in one map and off in the other, so the forward pass must be equal,
    not only close. Generated code calls the library's own convolutions and products, and ReLU and pooling do not round.
    """
    return {aten.native_batch_norm.default: _batch_norm}


def combined(tables: Sequence[Table]) -> Table:
    """Several tables as one; an entry returns NotImplemented where it does not apply."""
    result: Table = {}
    for operation in {key for table in tables for key in table}:
        entries = [table[operation] for table in tables if operation in table]
        result[operation] = entries[0] if len(entries) == 1 else _first_of(entries)
    return result


_FILLS = {"zero": 0, "one": 1}


def _like(fill: int) -> Callable[..., Tensor]:
    return lambda like, **options: _full_like(like, fill, **options)


def _new(fill: int) -> Callable[..., Tensor]:
    return lambda like, size, **options: _new_full(like, size, fill, **options)


def _full_like(like: Tensor, fill: float, **options: Any) -> Tensor:
    return _new_full(like, like.shape, fill, **options)


def _new_full(like: Tensor, size: Sequence[int], fill: float, **options: Any) -> Tensor:
    return torch.full(size, fill, dtype=options.get("dtype") or like.dtype, device=options.get("device") or like.device)


def _first_of(entries: Sequence[Callable[..., Any]]) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        results = (entry(*args, **kwargs) for entry in entries)
        return next((result for result in results if result is not NotImplemented), NotImplemented)

    return run


def _in_bfloat16(product: Any) -> Callable[..., Any]:
    def lower(value: Any) -> Any:
        return value.bfloat16() if isinstance(value, Tensor) and value.dtype == torch.float32 else value

    def run(*args: Any, **kwargs: Any) -> Any:
        if not any(isinstance(value, Tensor) and value.dtype == torch.float32 for value in args):
            return NotImplemented
        result = product(*map(lower, args), **kwargs)
        return tree_map(lambda value: value.float() if isinstance(value, Tensor) else value, result)

    return run


def _batch_norm(
    value: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor | None,
    variance: Tensor | None,
    training: bool,
    momentum: float,
    epsilon: float,
) -> Any:
    """x * scale + shift, rounded once like fused multiply-adds: products of two float32 are exact in float64."""
    if training or mean is None or variance is None or value.dtype != torch.float32:
        return NotImplemented
    scale = (variance + epsilon).rsqrt()
    scale = (scale if weight is None else scale * weight).double()
    shift = -mean.double() * scale if bias is None else bias.double() - mean.double() * scale
    scale, shift = (along_channels(part, value.ndim) for part in (scale, shift.float().double()))
    nothing = value.new_empty(0)
    return (value.double() * scale + shift).float(), nothing, nothing


def _in_channels_last(convolution: Any, at: int) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        weight = args[at]
        layout = _LAYOUTS.get(weight.ndim)
        if layout is None or weight.is_contiguous(memory_format=layout):
            return NotImplemented
        return convolution(*args[:at], weight.clone(memory_format=layout), *args[at + 1 :], **kwargs)

    return run


def drop_aliases(graph_module: fx.GraphModule) -> None:
    """Leave out the operations of a functional graph that return their argument."""
    for node in graph_module.graph.nodes:
        if node.target in (aten.alias.default, aten.detach.default):
            node.replace_all_uses_with(node.args[0])
            graph_module.graph.erase_node(node)


def split(graph_module: fx.GraphModule, fixed_inputs: int) -> tuple[fx.GraphModule, fx.GraphModule]:
    """Split off the part that depends on the weights alone, to be computed once.

    Args:
        graph_module: a functional graph; the first `fixed_inputs` of its inputs are weights.
        fixed_inputs: the number of weights.

    Returns:
        A graph from the weights to a tuple of tensors, and one from these tensors and the other inputs to the result.
    """
    graph = graph_module.graph
    placeholders = [node for node in graph.nodes if node.op == "placeholder"]
    varying = set(placeholders[fixed_inputs:])
    for node in graph.nodes:
        if node.op == "output" or any(source in varying for source in node.all_input_nodes):
            varying.add(node)
    again = {node for node in graph.nodes if node not in varying and node.target in _CREATIONS | _VIEWS}
    needed = _read_by(varying, again)
    kept = [node for node in graph.nodes if node not in varying and node not in again and node in needed]

    before, copies = fx.Graph(), dict[fx.Node, fx.Node]()
    for node in graph.nodes:
        if node in placeholders[:fixed_inputs] or node not in varying:
            copies[node] = before.node_copy(node, copies.__getitem__)
    before.output(tuple(copies[node] for node in kept))

    after, copies = fx.Graph(), {}
    for node in kept:
        copies[node] = after.placeholder(node.name)
        copies[node].meta = dict(node.meta)
    for node in placeholders[fixed_inputs:]:
        copies[node] = after.node_copy(node, copies.__getitem__)
    for node in graph.nodes:
        if node not in copies and (node in varying or (node in again and node in needed)):
            copies[node] = after.node_copy(node, copies.__getitem__)
    return _module(graph_module, before), _module(graph_module, after)


def _read_by(varying: Iterable[fx.Node], again: set[fx.Node]) -> set[fx.Node]:
    """The nodes that the varying nodes read, directly or through nodes that are computed again."""
    found: set[fx.Node] = set()
    pending = [source for node in varying for source in node.all_input_nodes]
    while pending:
        node = pending.pop()
        if node not in found:
            found.add(node)
            pending.extend(node.all_input_nodes if node in again else ())
    return found


def _module(owner: fx.GraphModule, graph: fx.Graph) -> fx.GraphModule:
    graph.eliminate_dead_code()
    return fx.GraphModule(owner, graph)


def values_decide(graph_module: fx.GraphModule) -> str | None:
    """The first operation whose result has a size that depends on values, or None if there is none."""
    for node in graph_module.graph.nodes:
        tags = getattr(node.target, "tags", ())
        if torch.Tag.dynamic_output_shape not in tags:
            continue
        if node.target is aten.index.Tensor and not any(_is_mask(index) for index in node.args[1]):
            continue
        return str(node.target)
    return None


def _is_mask(index: Any) -> bool:
    value = index.meta.get("val") if isinstance(index, fx.Node) else None
    return isinstance(value, Tensor) and value.dtype in (torch.bool, torch.uint8)
