"""Linear layers under LRP: the composite's rule.

A linear layer is any product of a signal with a constant matrix or kernel. Convolutions and `F.linear` are here; other
products are in `contractions`, and operations that are folded into a layer in `folding`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from ...kernels.linear import Contraction, Convolution, LinearMap, MatrixProduct
from ...kernels.pointwise import waits_for_launches
from ..calls import Call
from ..convolution import Size, convolution_of, per_dimension
from ..moving import reached as values_in
from .inheritance import inherit
from .layers import LayerRecord, LinearLayer

if TYPE_CHECKING:
    from .mode import RelevancePropagation


@dataclass
class Produced:
    """The origin of a tensor, for operations that may be folded into its layer.

    Attributes:
        record: the layer.
        value: the layer's input.
        carrier, covered: see `Note`.
    """

    record: LayerRecord
    value: Tensor
    carrier: Tensor | None
    covered: Tensor | None


def linear_layer(
    mode: RelevancePropagation,
    call: Call,
    value: Tensor,
    linear: LinearMap,
    weight: Tensor,
    bias: Tensor | None,
    compute: Callable[[], Tensor] | None = None,
    begins: bool = True,
    mixes: bool = True,
    reached: Callable[[], Tensor] | None = None,
) -> Tensor:
    """Run a linear layer.

    Args:
        mode: the propagation.
        call: the call that computes it.
        value: x.
        linear, weight, bias: the map, W and b.
        compute: computes y; the call itself if there is none.
        begins: it may be the first layer, if only affine steps stand before it.
        mixes: it sums over the last dimension of x: a softmax mixes constants.
        reached: see `LayerRecord`; by default, padding before the movements of x is not reached.
    """
    mode.pointwise.forget()
    owner = mode.parameters.get(id(weight))
    # Complex numbers have no signs, of which the rules speak; a mask computed from a signal is no weight: LRP-0.
    if value.is_complex() or (owner is None and mode.pointwise.varies(weight)):
        return cast(Tensor, mode.by_autograd(call, (compute or call.run)()))
    owner = owner or mode.owner(call)
    weight, note = mode.cache.constant(weight), mode.note(value)
    record = LayerRecord(
        name=mode.names.get(owner, ""),
        module=owner,
        linear=linear,
        weight=weight,
        bias=None if bias is None else mode.cache.constant(bias),
        reads_input=begins and note.carrier is not None and not note.is_zero,
        non_negative=note.non_negative,
        cached=partial(mode.cache.get, weight),
        reached=reached or (None if note.beside is None else partial(values_in, *note.beside, value.device)),
    )
    result = _record(mode, Produced(record, value, note.carrier, note.covered), compute or call.run)
    if note.weight:
        noted = mode.noted(result)
        noted.mixture, noted.softmax = _count_mixed(linear, result), note.softmax and mixes
    return result


def _count_mixed(linear: LinearMap, output: Tensor) -> int:
    """The number of results for each vector that a layer reads."""
    if not isinstance(linear, Contraction):
        return linear.channels(output)
    sizes = zip(output.shape, linear.output, strict=True)
    return math.prod(size for size, letter in sizes if letter not in linear.value)


def _record(mode: RelevancePropagation, layer: Produced, compute: Callable[[], Tensor]) -> Tensor:
    mode.trail.layers.append(layer.record)
    output: Tensor = LinearLayer.apply(layer.value, layer.carrier, compute, layer.record, layer.covered)
    if waits_for_launches(output) and not mode.repeated:
        mode.trail.outputs[layer.record] = output.detach()
    if not layer.record.rectified:
        mode.noted(output).produced = layer
    return output


def fold(
    mode: RelevancePropagation,
    value: Tensor,
    compute: Callable[[Tensor], Tensor],
    layer: Produced,
    record: LayerRecord,
) -> Tensor:
    """Fold an operation into the layer before it.

    Args:
        mode: the propagation.
        value: the layer's output, which others may still read.
        compute: the operation.
        layer: the origin of `value`.
        record: the layer with the operation folded in.
    """
    mode.trail.supersede(layer.record, record)
    folded = Produced(record, layer.value, layer.carrier, layer.covered)
    output = _record(mode, folded, partial(compute, value.detach()))
    note_folded(mode, value, output)
    carry_unchanged(mode, value, output)  # of a batch norm before the first layer
    return output


def carry_unchanged(mode: RelevancePropagation, value: Tensor, result: Tensor) -> None:
    """Pass relevance that a first layer gives to zeros through an affine step on one tensor unchanged."""
    note = mode.note(value)
    if note.carrier is not None:
        noted = mode.noted(result)
        noted.carrier, noted.covered = note.carrier.view_as(note.carrier), note.covered
        noted.function_of = note.carrier if note.function_of is None else note.function_of


def note_folded(mode: RelevancePropagation, value: Tensor, result: Tensor) -> None:
    """Note the result of an operation that holds the relevance of a value, as it is a part of the layer before it."""
    holder: Tensor | None = value
    while mode.observed and holder is not None:
        note = mode.noted(holder)
        if note.folded is None:
            note.folded = []
        note.folded.append(result)
        holder = note.copy_of


# -- convolutions and matrix products ----------------------------------------------------------------------------------


def convolution(
    mode: RelevancePropagation,
    call: Call,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size | str = 0,
    dilation: Size = 1,
    groups: int = 1,
) -> Any:
    """A convolution of 1, 2 or 3 dimensions."""
    dimensions = weight.ndim - 2
    extra: tuple[int, ...] = ()
    if isinstance(padding, str):
        dilation = per_dimension(dilation, dimensions)
        reach = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
        if padding == "same" and any(total % 2 for total in reach):
            extra = tuple(total % 2 for total in reach)
        padding = tuple(total // 2 if padding == "same" else 0 for total in reach)
    linear = convolution_of(dimensions, stride, padding, dilation, groups, extra=extra)
    return _convolved(mode, call, input, linear, weight, bias)


def note_zeros(mode: RelevancePropagation, call: Call, result: Tensor) -> None:
    """Note the tensor that a call puts zeros around."""
    arguments = call.bound()
    source, zeros = arguments["input"], tuple(arguments["pad"])
    if arguments.get("mode", "constant") == "constant" and not arguments.get("value") and min(zeros, default=0) >= 0:
        if (padded := mode.note(source).padded) is not None:
            source, before = padded
            zeros = tuple(map(sum, zip_longest(zeros, before, fillvalue=0)))
        mode.noted(result).padded = source, zeros


def transposed_convolution(
    mode: RelevancePropagation,
    call: Call,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size = 0,
    output_padding: Size = 0,
    groups: int = 1,
    dilation: Size = 1,
) -> Any:
    """A transposed convolution of 1, 2 or 3 dimensions."""
    linear = convolution_of(weight.ndim - 2, stride, padding, dilation, groups, output_padding)
    return _convolved(mode, call, input, linear, weight, bias)


def _convolved(
    mode: RelevancePropagation, call: Call, input: Tensor, linear: Convolution, weight: Tensor, bias: Tensor | None
) -> Any:
    """A convolution of either kind, with or without a batch dimension."""
    if is_signal(call, weight):
        return mode.bilinear(call, input, weight, bias)
    if input.ndim == weight.ndim - 1:
        with mode.seeing():
            return call.run_with({id(input): input.unsqueeze(0)}).squeeze(0)
    if (padded := mode.note(input).padded) is not None and (around := linear.around(padded[1])) is not None:
        # The rules count real inputs, also where another operation has padded them.
        input, linear = padded[0], around
    return linear_layer(mode, call, input, linear, weight, bias)


def deformable_convolution(mode: RelevancePropagation, call: Call) -> Any:
    """A convolution that reads the input at computed places: the values there, held in place, and a 1 x 1 convolution.

    The values of each channel at the places of a kernel are the result of a deformable convolution with one 1 in each
    kernel.
    """
    value, weight, bias, groups = map(call.argument, ("input", "weight", "bias", "groups"))
    channels, taps = value.shape[1], weight[0, 0].numel()
    picking = torch.eye(taps, dtype=weight.dtype, device=weight.device).repeat(channels, 1)
    arguments = call.bound() | {
        "weight": picking.view(-1, 1, *weight.shape[2:]),
        "bias": bias.new_zeros(channels * taps),
        "groups": channels,
    }
    arguments |= {name: part.detach() for name in ("offset", "mask") if (part := arguments[name]) is not None}
    sampling = Call(call.operation, call.function, tuple(arguments.values()), {}, [value], [value])
    places = sampling.run()
    inherit(mode, sampling, places)
    with torch.no_grad():
        reached = sampling.run_with({id(value): torch.ones_like(value)}).ne(0)
    with mode.seeing():
        kernel = weight.reshape(len(weight), -1, 1, 1)
    linear = Convolution((1, 1), (0, 0), (1, 1), groups)
    return linear_layer(mode, call, places, linear, kernel, bias,
                        lambda: F.conv2d(places, kernel, bias, groups=groups), reached=lambda: reached)  # fmt: skip


def matrix_product(
    mode: RelevancePropagation, call: Call, input: Tensor, weight: Tensor, bias: Tensor | None = None
) -> Any:
    """`F.linear`."""
    if is_signal(call, weight):
        return mode.bilinear(call, input, weight, bias)
    if weight.layout is not torch.strided:
        with mode.seeing():
            product = input @ weight.t()
            return product if bias is None else product + bias
    return linear_layer(mode, call, input, MatrixProduct(), weight, bias)


def is_signal(call: Call, tensor: Tensor | None) -> bool:
    return id(tensor) in map(id, call.signals)
