"""Attributions as files: a `torch.export` program and an ONNX model, which need neither this package nor autograd."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, fx
from torch._decomp import get_decompositions

from ..errors import NotSupportedError
from ..extras import require
from ..files import replacing, replacing_archive
from ..inputs import Inputs, as_tuple, check_finite
from .graphs import Table, aten
from .recording import Recording, check_attribution, record

_SUFFIXES = (".pt2", ".onnx")
_LARGEST_FILE = 1_500_000_000  # bytes; an ONNX file ends at 2 GB, beyond which weights are in a second file
_log = logging.getLogger(__name__)


def export(attribution: Any, example_inputs: Inputs, path: str | Path) -> list[Path]:
    """Write a program that computes the map: inputs and targets in, maps out.

    The program takes the inputs, of the examples' shapes, and `target` `(N,)`, int64: for each example the index of the
    explained output (row by row where the output has more than one dimension per example). It returns a tuple with the
    map of each input.

    Args:
        attribution: one of `plugin.attr`; its current weights are written.
        example_inputs: tensor `(N, ...)`, such as images `(N, C, H, W)`, or a tuple of them.
        path: a file ending in ".pt2" (`torch.export.load(path).module()(images, target)`) or ".onnx" (needs the extra
            `accelerate`); without such an ending both are written, with the endings added.

    Returns:
        The files that were written.

    Raises:
        MissingExtraError: the ONNX exporter is not installed (a ModuleNotFoundError).
        OSError: a file cannot be written, for example on a full disk.
        NotSupportedError: values decide which operations the model computes, or ONNX has no such operation.
        OptionTypeError: `attribution` is none of this package's.
        Others as `attribution.attribute` on the examples.

    >>> import torch
    >>> from torch import nn
    >>> from plugin.attr import GuidedBackprop
    >>> from pathlib import Path
    >>> from tempfile import mkdtemp
    >>> from plugin import accelerate
    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10)).eval()
    >>> images = torch.randn(2, 3, 8, 8)
    >>> (path,) = accelerate.export(GuidedBackprop(model), images, Path(mkdtemp(), "map.pt2"))
    >>> (maps,) = torch.export.load(path).module()(images, torch.tensor([3, 5]))  # without this package
    >>> maps.shape
    torch.Size([2, 3, 8, 8])
    """
    check_attribution(attribution)
    path = Path(path)
    files = [path] if path.suffix in _SUFFIXES else [path.with_name(path.name + suffix) for suffix in _SUFFIXES]
    if any(file.suffix == ".onnx" for file in files):
        _require_onnx()
    values = as_tuple(example_inputs)
    check_finite(values)
    index = torch.zeros(len(values[0]), dtype=torch.int64, device=values[0].device)
    recording = record(attribution, example_inputs, index, [forward_operations()])
    module = _with_constants(recording)
    with torch.no_grad():
        program = torch.export.export(module, (*(value.detach().contiguous() for value in values), index))
    for file in files:
        _log.info("writing %s", file)
        if file.suffix == ".pt2":
            with replacing_archive(file) as archive:
                torch.export.save(program, archive)
        else:
            _write_onnx(program, module, file, len(values))
    return files


def _require_onnx() -> None:
    for module in ("onnx", "onnxscript"):
        require(module, extra="accelerate", purpose="an export to a path that does not end in .pt2")


def _with_constants(recording: Recording) -> fx.GraphModule:
    """The graph of the inputs alone, with the tensors it needs of the weights as buffers; it returns only the maps."""
    with torch.no_grad():
        constants = recording.derive(*recording.weights.checked())
    module, graph = recording.run, recording.run.graph
    for position, (node, constant) in enumerate(zip(list(graph.nodes), constants, strict=False)):
        name = f"constant_{position}"
        module.register_buffer(name, constant.clone())
        with graph.inserting_before(node):
            node.replace_all_uses_with(graph.get_attr(name))
        graph.erase_node(node)
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    for position, node in enumerate(inputs):
        name = "target" if node is inputs[-1] else "inputs" if len(inputs) == 2 else f"inputs_{position}"
        node.target = node.name = name
    output = next(node for node in graph.nodes if node.op == "output")
    output.args = (tuple(output.args[0][:-1]),)
    graph.eliminate_dead_code()
    module.recompile()
    return module


def _write_onnx(program: torch.export.ExportedProgram, module: fx.GraphModule, file: Path, inputs: int) -> None:
    names = ["inputs"] if inputs == 1 else [f"inputs_{position}" for position in range(inputs)]
    try:
        model = torch.onnx.export(program, dynamo=True, verbose=False, input_names=[*names, "target"])
    except torch.onnx.OnnxExporterError as error:
        raise NotSupportedError(
            f"the map has an operation that ONNX cannot express ({_last_line(error)}): export to a path ending in .pt2"
        ) from error
    assert model is not None
    with replacing(file) as partial:
        if sum(buffer.nbytes for buffer in module.buffers()) <= _LARGEST_FILE:
            model.save(partial, external_data=False)
            return
        # The model refers to the file of its weights by name: both get their names in a folder of their own.
        weights = f"{file.name}.data"
        with TemporaryDirectory(prefix=".", dir=file.parent) as folder:
            model.save(Path(folder) / file.name, external_data=True)
            os.replace(Path(folder) / weights, file.with_name(weights))
            os.replace(Path(folder) / file.name, partial)


def _last_line(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).strip().splitlines()[0]


def forward_operations() -> Table:
    """Backward operations, decomposed into operations that every format has."""
    table: Table = dict(
        get_decompositions(
            [
                aten.threshold_backward,
                aten.native_batch_norm,
                aten.native_batch_norm_backward,
                aten.native_layer_norm_backward,
                aten.native_group_norm_backward,
                aten._softmax_backward_data,
                aten.gelu_backward,
                aten.silu_backward,
                aten.elu_backward,
                aten.hardtanh_backward,
                aten.hardswish_backward,
                aten.hardsigmoid_backward,
                aten.leaky_relu_backward,
                aten.softplus_backward,
                aten.mish_backward,
                aten.sigmoid_backward,
                aten.tanh_backward,
                aten.select_backward,
                aten.slice_backward,
                aten.native_dropout_backward,
                aten._adaptive_avg_pool2d,
            ]
        )
    )
    return table | {
        aten.convolution_backward.default: _convolution_backward,
        aten.max_pool2d_with_indices_backward.default: _max_pool_backward,
        aten.max_pool3d_with_indices_backward.default: _max_pool_backward,
        aten.avg_pool2d_backward.default: _average_pool_backward,
        aten._adaptive_avg_pool2d_backward.default: _adaptive_average_pool_backward,
        aten.copysign.Tensor: _copysign,
    }


def _convolution_backward(
    signal: Tensor,
    value: Tensor,
    weight: Tensor,
    bias_sizes: Sequence[int] | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
    wanted: Sequence[bool],
) -> Any:
    """The transposed operator; a map needs no signal for the weight and the bias."""
    if any(wanted[1:]):
        return NotImplemented
    nothing = [0] * len(stride)
    if transposed:
        return aten.convolution(signal, weight, None, stride, padding, dilation, False, nothing, groups), None, None
    geometry = zip(value.shape[2:], signal.shape[2:], weight.shape[2:], stride, padding, dilation, strict=True)
    # A stride makes several sizes of x map to one size of y: `missing` is the difference to the real size.
    missing = [size - ((count - 1) * s - 2 * p + d * (k - 1) + 1) for size, count, k, s, p, d in geometry]
    return aten.convolution(signal, weight, None, stride, padding, dilation, True, missing, groups), None, None


def _max_pool_backward(signal: Tensor, value: Tensor, kernel: Sequence[int], *geometry: Any) -> Tensor:
    """Add each window's signal at the position of its maximum; `geometry` ends with these positions."""
    indices, dimensions = geometry[-1], len(kernel)
    flat = (indices.flatten(-dimensions), signal.flatten(-dimensions))
    return torch.zeros_like(value).flatten(-dimensions).scatter_add(-1, *flat).view(value.shape)


def _average_pool_backward(
    signal: Tensor,
    value: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    ceil_mode: bool,
    count_include_pad: bool,
    divisor: int | None,
) -> Tensor:
    """The transpose of the average, one matrix for each dimension: A^T m B."""
    result = signal
    for at in (0, 1):
        size, count, k = value.shape[-2 + at], signal.shape[-2 + at], kernel[at]
        step, pad = (stride or kernel)[at], padding[at]
        first = torch.arange(count)[:, None] * step - pad
        position = torch.arange(size)[None]
        covered = ((position >= first) & (position < first + k)).double()
        real = covered.sum(1, keepdim=True)
        # With padding counted, a window is counted up to the padded border; in ceil mode it may reach beyond.
        whole = (first + k).clamp(max=size + pad) - first if count_include_pad else real
        result = _along(result, -2 + at, covered if divisor else covered / whole)
    return result / divisor if divisor else result


def _adaptive_average_pool_backward(signal: Tensor, value: Tensor) -> Tensor:
    """The same for windows from floor(i * size / count) to ceil((i + 1) * size / count)."""
    result = signal
    for dimension in (-2, -1):
        size, count = value.shape[dimension], signal.shape[dimension]
        index, position = torch.arange(count)[:, None], torch.arange(size)[None]
        covered = (position >= index * size // count) & (position < -(-(index + 1) * size // count))
        result = _along(result, dimension, covered / covered.sum(1, keepdim=True))
    return result


def _along(signal: Tensor, dimension: int, matrix: Tensor) -> Tensor:
    """The signal `(..., windows, ...)` times a matrix `(windows, positions)` along one dimension."""
    return (signal.movedim(dimension, -1) @ matrix.to(signal)).movedim(-1, dimension)


def _copysign(magnitude: Tensor, sign: Tensor) -> Tensor:
    """copysign without -0.0, which ONNX cannot tell from 0.0; a vanishing denominator may get either sign."""
    return torch.where(sign < 0, -magnitude.abs(), magnitude.abs())
