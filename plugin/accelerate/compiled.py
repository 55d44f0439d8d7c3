"""Compiled attributions: the recorded graph, run by generated code or replayed as a CUDA graph."""

import logging
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ..captum_api import NeuronAttribution, Target
from ..errors import InputTypeError, OptionError, OptionTypeError
from ..inputs import Inputs, as_tuple, check_finite
from .graphs import PRECISIONS, Table, as_on_a_cpu, in_bfloat16, in_channels_last
from .programs import Program
from .recording import check_attribution, record
from .target_positions import index_tensor

Shapes = tuple[torch.Size, ...]

MODES = ("aten", "graph", "inductor", "cudagraph")
_LAYOUTS = {4: torch.channels_last, 5: torch.channels_last_3d}
_log = logging.getLogger(__name__)


def compile(
    attribution: Any,
    example_inputs: Inputs,
    target: Target = None,
    mode: str = "inductor",
    precision: str = "float32",
    channels_last: bool = False,
    other_shapes: str = "eager",
) -> "CompiledAttribution":
    """Compile an attribution, backward pass included, for inputs of one shape.

    Args:
        attribution: one of `plugin.attr`.
        example_inputs: tensor `(N, ...)` or a tuple of them, of the shape, type and device of the inputs to come.
        target: an example target, or neuron for the neuron classes; its value does not matter.
        mode: "inductor" generates code (C++ on a CPU, which needs a compiler, Triton on a GPU); "cudagraph" captures
            that code in a CUDA graph, so that a call is one launch; "aten" runs the recorded operations unchanged, for
            the attribution's own numbers except for the order of sums; "graph" does too, on a GPU in a CUDA graph, and
            so needs no time to generate code.
        precision: "float32" leaves the numbers unchanged (TF32 only where the process allows it), "tf32" allows it in
            convolutions and matrix products, "bfloat16" computes these in bfloat16 and the rest in float32.
        channels_last: lay out images and the weights of convolutions with the channels last.
        other_shapes: "eager" runs the attribution itself on inputs of another shape, "compile" compiles again; both
            warn, once for each shape.

    Returns:
        An object with `attribute(inputs, target)`.

    Raises:
        OptionTypeError: `attribution` is none of this package's.
        OptionError: an unknown option, or one that this device does not have.
        NotSupportedError: values decide which operations the model computes.
        Others as `attribution.attribute` on the examples.

    >>> import torch
    >>> from torch import nn
    >>> from plugin.attr import LRPTranspose
    >>> from plugin import accelerate
    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10)).eval()
    >>> images = torch.randn(2, 3, 8, 8)
    >>> lrp = LRPTranspose(model, "epsilon_plus")
    >>> fast = accelerate.compile(lrp, images, target=0, mode="aten")
    >>> expected = lrp.attribute(images, target=[3, 5])
    >>> torch.allclose(fast.attribute(images, target=[3, 5]), expected, atol=1e-3)
    True
    """
    compiled = CompiledAttribution(attribution, mode, precision, channels_last, other_shapes)
    compiled.prepare(example_inputs, target)
    return compiled


class CompiledAttribution:
    """An attribution with the same `attribute`, compiled for one shape of inputs.

    `compile` makes it. An attribution's method of that name makes it too, and takes the shape from the first call.

    The weights are live: in-place changes count from the next call on, and tensors derived from the weights are then
    computed again. If a change cannot be followed, the next call raises. Threads may share it.

    >>> import torch
    >>> from torch import nn
    >>> from plugin.attr import GuidedBackprop
    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10)).eval()
    >>> images = torch.randn(2, 3, 8, 8)
    >>> fast = GuidedBackprop(model).compile(mode="aten")
    >>> fast.attribute(images, target=3).shape  # the first call compiles
    torch.Size([2, 3, 8, 8])
    """

    def __init__(
        self, attribution: Any, mode: str, precision: str, channels_last: bool, other_shapes: str = "eager"
    ) -> None:
        """
        Args:
            attribution: an attribution of `plugin.attr`.
            mode, precision, channels_last, other_shapes: see `compile`.

        Raises:
            OptionError: an unknown option.
            OptionTypeError: it is no attribution of `plugin.attr`.
        """
        check_attribution(attribution)
        for name, value, choices in (
            ("mode", mode, MODES),
            ("precision", precision, PRECISIONS),
            ("other_shapes", other_shapes, ("eager", "compile")),
        ):
            if value not in choices:
                raise OptionError(f"{name} = {value!r}: choose one of {', '.join(choices)}")
        self.attribution, self.mode, self.precision = attribution, mode, precision
        self.channels_last, self.other_shapes = channels_last, other_shapes
        self._programs: dict[Shapes, Program] = {}
        self._kinds: list[tuple[torch.dtype, torch.device]] = []
        self._warned: set[Shapes] = set()
        self._lock = threading.Lock()

    def prepare(self, inputs: Inputs, target: Target = None) -> None:
        """Compile for the shapes of these inputs.

        Args:
            inputs: tensor `(N, ...)` or a tuple of them.
            target: as in `attribute`.

        Raises:
            OptionError: the mode or the precision does not exist on the device of the inputs. Others as for `compile`.
        """
        values = as_tuple(inputs)
        check_finite(values)
        on_gpu = values[0].is_cuda
        if self.mode == "cudagraph" and not on_gpu:
            raise OptionError(
                f"mode 'cudagraph' needs inputs on a CUDA device, not on {values[0].device}: use 'inductor'"
            )
        if self.precision == "tf32" and not on_gpu:
            raise OptionError(f"there is no TF32 on {values[0].device}: use precision 'bfloat16' or 'float32'")
        index = torch.zeros(len(values[0]), dtype=torch.int64, device=values[0].device)
        tables: list[Table] = [in_bfloat16()] if self.precision == "bfloat16" else []
        tables += [in_channels_last()] if self.channels_last else []
        tables += [as_on_a_cpu()] if self.mode == "inductor" and not on_gpu else []
        laid_out = self._laid_out(values)
        given = laid_out if isinstance(inputs, tuple) else laid_out[0]
        _log.info("recording %s for inputs %s", type(self.attribution).__name__, _listed(_shapes(values)))
        with _allowing_tf32(self.precision == "tf32"):
            recording = record(self.attribution, given, index, tables)
            index = index_tensor(target, len(index), recording.sizes, index.device)
            self._programs[_shapes(values)] = Program(recording, self.mode, laid_out, index)
        self._kinds = _kinds(values)

    def attribute(
        self,
        inputs: Inputs,
        target: Target = None,
        additional_forward_args: None = None,
        return_convergence_delta: bool = False,
        neuron_selector: Target = None,
    ) -> Any:
        """The same as the attribution's own `attribute`.

        Args:
            inputs: tensor `(N, ...)` or a tuple of them, of the types and device it was compiled for.
            target: None, an int, a tuple of ints, a tensor, or a list with one entry per example.
            additional_forward_args: not supported; must be None.
            return_convergence_delta: as in `LRPTranspose.attribute`.
            neuron_selector: the neuron classes' name for `target`: an int or a tuple of ints.

        Returns:
            The attribution's result.

        Raises:
            TargetError: there is no such target.
            ModelChangedError: the model was changed in a way that needs compiling again.
            InputTypeError: inputs of another type or number.
            OptionTypeError: a target that is no index, or additional arguments.
            InputValueError: an input is empty or not finite.

        >>> import torch
        >>> from torch import nn
        >>> from plugin.attr import LRPTranspose
        >>> fast = LRPTranspose(nn.Linear(4, 3)).compile(mode="aten")
        >>> relevance, delta = fast.attribute(torch.randn(2, 4), target=[0, 2], return_convergence_delta=True)
        >>> relevance.shape, delta.shape
        (torch.Size([2, 4]), torch.Size([2]))
        """
        if additional_forward_args is not None:
            raise OptionTypeError(
                "a compiled attribution takes no additional_forward_args: call the attribution itself"
            )
        values = as_tuple(inputs)
        check_finite(values)
        if neuron_selector is not None:
            target = neuron_selector
        program = self._program(inputs, values, target)
        if program is None:
            return self._eager(inputs, target, return_convergence_delta)
        recording = program.recording
        index = index_tensor(target, len(values[0]), recording.sizes, values[0].device)
        with _allowing_tf32(self.precision == "tf32"):
            *maps, selected = program(*self._laid_out(values), index)
        result = recording.nested(maps)
        if return_convergence_delta:
            return result, self.attribution.compute_convergence_delta(result, selected)
        return result

    def _check_kinds(self, values: tuple[Tensor, ...]) -> None:
        kinds = _kinds(values)
        if self._kinds and kinds != self._kinds:
            raise InputTypeError(
                f"compiled for inputs of {_kinds_listed(self._kinds)}, not {_kinds_listed(kinds)}: convert them with "
                "inputs.to(...), or compile again"
            )

    def _program(self, inputs: Inputs, values: tuple[Tensor, ...], target: Target) -> "Program | None":
        shapes = _shapes(values)
        with self._lock:
            self._check_kinds(values)  # here: the first call of another thread may just have decided them
            program = self._programs.get(shapes)
            if program is not None:
                return program
            if not self._programs:  # the first call decides the shape
                self.prepare(inputs, target)
                return self._programs[shapes]
            compiling = self.other_shapes == "compile"
            if shapes not in self._warned:
                self._warned.add(shapes)
                warnings.warn(
                    f"compiled for inputs of {' and '.join(map(_listed, self._programs))}, not {_listed(shapes)}: "
                    + ("compiling for these too" if compiling else "the attribution itself is run on these"),
                    stacklevel=3,
                )
            if not compiling:
                return None
            self.prepare(inputs, target)
            return self._programs[shapes]

    def _eager(self, inputs: Inputs, target: Target, return_convergence_delta: bool) -> Any:
        delta = {"return_convergence_delta": True} if return_convergence_delta else {}
        if isinstance(self.attribution, NeuronAttribution):
            return self.attribution.attribute(inputs, neuron_selector=target)
        return self.attribution.attribute(inputs, target=target, **delta)

    def _laid_out(self, values: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        def layout(value: Tensor) -> torch.memory_format:
            return _LAYOUTS.get(value.ndim, torch.contiguous_format) if self.channels_last else torch.contiguous_format

        return tuple(value.detach().contiguous(memory_format=layout(value)) for value in values)


@contextmanager
def _allowing_tf32(allowed: bool) -> Iterator[None]:
    """Allow TF32 in products within this context; the process's own setting is restored."""
    if not allowed:
        yield
        return
    products, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = True
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(products)
        torch.backends.cudnn.allow_tf32 = convolutions


def _shapes(values: Sequence[Tensor]) -> Shapes:
    return tuple(value.shape for value in values)


def _listed(shapes: Shapes) -> str:
    return ", ".join(str(tuple(shape)) for shape in shapes)


def _kinds(values: Sequence[Tensor]) -> list[tuple[torch.dtype, torch.device]]:
    return [(value.dtype, value.device) for value in values]


def _kinds_listed(kinds: Sequence[tuple[torch.dtype, torch.device]]) -> str:
    return ", ".join(f"{dtype} on {device}" for dtype, device in kinds)
