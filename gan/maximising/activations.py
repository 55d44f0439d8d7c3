"""Activations of a classifier for images, at its output or at one of its layers; the classifier stays unchanged."""

import copy
import itertools
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from plugin.devices import choose_device, on_device
from plugin.heads import HEADS, LOG_SOFTMAX, LOGITS, find_head
from plugin.observing import ModuleTrace, describe, find_layer

from .held_noise import Held
from .separate_rows import ONE_BY_ONE, UNFIT, beside_another, reason_of, refuse_mixed_rows, takes_one

Transform: TypeAlias = Callable[[Tensor], Tensor]

# Names under which networks return their main output beside others.
_NAMES = ("logits", "sample", "out")
# The types of real numbers that networks compute with.
TYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
# Layers that PyTorch may compute in one kernel.
_FUSED = (nn.TransformerEncoder, nn.TransformerEncoderLayer, nn.MultiheadAttention)


class Called(nn.Module):
    """A function as a module without parameters."""

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, inputs: Tensor) -> Any:
        return self.function(inputs)


def placed(network: nn.Module | Callable[[Tensor], Any], device: str | torch.device | None) -> nn.Module:
    """A network, or any function of a tensor, as a module.

    It is copied if it lies on another device than the one given, or if its weights were made in inference mode.
    """
    module = as_module(network)
    tensors = (tensor for tensor in (*module.parameters(), *module.buffers()) if not is_lazy(tensor))
    if any(tensor.is_inference() for tensor in tensors):
        with torch.inference_mode(False):  # autograd takes no weights that were made in inference mode
            module = copy.deepcopy(module)
    return module if device is None else on_device(module, choose_device(device))


def layer_in(network: nn.Module, given: object, layer: nn.Module | str | None) -> nn.Module | str | None:
    """The given layer, or its name if the network is a copy of the one given."""
    if network is given or not isinstance(layer, nn.Module) or not isinstance(given, nn.Module):
        return layer
    found = find_layer(given, layer)
    names: list[str] = [name for name, module in given.named_modules() if module is found]
    return names[0]


def as_module(network: nn.Module | Callable[[Tensor], Any]) -> nn.Module:
    """A network, or any function of a tensor, as a module."""
    return network if isinstance(network, nn.Module) else Called(network)


def name_of(module: nn.Module) -> str:
    """The name of a network, or of the function that it wraps, for messages."""
    if isinstance(module, Called):
        return getattr(module.function, "__name__", type(module.function).__name__)
    return type(module).__name__


class _Reached(Exception):
    """Ends the forward pass: the layer was computed."""


@contextmanager
def evaluating(*modules: nn.Module | None) -> Iterator[None]:
    """Eval mode, no compilation and autograd for modules, in any state of the caller, which is restored afterwards.

    Buffers are restored too: some networks count calls, or track statistics of their inputs even in eval mode.
    """
    parts = [part for module in modules if module is not None for part in module.modules()]
    training = [part for part in parts if part.training]
    buffers = [(part, dict(part.named_buffers(recurse=False))) for part in parts]
    # Tensors made in inference mode cannot be written outside of it, and lazy layers have no values yet.
    written = (b for _, own in buffers for b in own.values() if not (b.is_inference() or is_lazy(b)))
    values = {buffer: (buffer._version, buffer.clone()) for buffer in written}
    for part in training:
        part.training = False
    try:
        with torch.inference_mode(False), torch.enable_grad(), _eager():
            yield
    finally:
        for part in training:
            part.training = True
        for part, own in buffers:
            part._buffers.update(own)
        with torch.no_grad():
            for buffer, (version, value) in values.items():
                if buffer._version != version:
                    buffer.copy_(value)


@contextmanager
def _eager() -> Iterator[None]:
    """Run compiled networks eagerly: compiled code does not call observers of layers."""
    if "torch._dynamo" not in sys.modules:  # nothing was compiled, and importing it takes seconds
        yield
        return
    with warnings.catch_warnings(), torch.compiler.set_stance("force_eager"):
        warnings.filterwarnings("ignore", message="Using `torch.compile")  # about global hooks, which are intended here
        yield


class Activations:
    """Activations of a classifier for images `(N, C, H, W)`, at its output or at a layer; it stays unchanged.

    Images are converted to the number type of its parameters, and activations in half precision to float32.

    Args:
        classifier: any module that takes images. If its output is no tensor, its attribute or entry "logits", "sample"
            or "out" is taken, else its first tensor.
        layer: one of its modules, or the name of one; None for the output. If a layer is used several times, the last
            use counts. Later layers are not computed.
        transform: from the images to the classifier's input: a resize, a normalisation.
        example: an image `(1, C, H, W)` for a first pass.
        head: the kind of output, one of `HEADS`; None detects it.

    Attributes:
        shape: of the activations of one image.
        head: one of `HEADS` where the activations are classes, else None.
        pair: activations of two images that differ `(2, *shape)`.
        held: the context of its forward passes.

    Raises:
        ValueError: the images do not fit, there is no such layer or head.
    """

    def __init__(
        self,
        classifier: nn.Module,
        layer: nn.Module | str | None,
        transform: Transform | None,
        example: Tensor,
        head: str | None = None,
    ) -> None:
        if head is not None and head not in HEADS:
            raise ValueError(f"unknown head {head!r}: choose one of {', '.join(HEADS)}")
        self.classifier, self.transform = classifier, transform
        self.layer = None if layer is None else find_layer(classifier, layer)
        self._uses: int | None = None
        self._last: nn.Module | None = None
        # On a CPU, pooling and convolutions are twice as fast with the channels last in memory.
        self._channels_last = True
        types = dict.fromkeys(value.dtype for value in classifier.parameters() if value.is_floating_point())
        # With several types, as with batch norm in float32, one of them is that of the images.
        # A function does not declare its type.
        self._types: list[torch.dtype | None] = [*types] if len(types) == 1 else [None, *(types or TYPES)]
        self._type = self._types[0]
        self.held = Held(example.device)
        # Without a graph PyTorch computes these in one kernel, and calls none of the layers inside.
        self._fuses = any(isinstance(module, _FUSED) for module in classifier.modules())
        with evaluating(classifier):
            # Two rows reveal a network that mixes rows or drops an axis of length 1.
            with self.held.watching(classifier, name_of(classifier)):
                found = self._try(example.detach().repeat(2, 1, 1, 1).requires_grad_())
            pair = beside_another(example.detach())
            self.pair = refuse_mixed_rows(lambda images: self._run(images)[0], pair, self.name)
            self.shape = tuple(found.shape[1:])
            classes = self.layer is None and len(self.shape) == 1
            self.head = (head or find_head(found) or _logits_in_doubt()) if classes else None
            if self.head is not None and head is not None:
                _refuse_other_values(head, found.detach())

    @property
    def name(self) -> str:
        """The name of the output or layer, for messages."""
        if self.layer is None:
            return f"the output of the {name_of(self.classifier)}"
        return f"layer {describe(self.classifier, self.layer)}"

    def __call__(self, images: Tensor) -> Tensor:
        """Activations `(N, *shape)`, with their graph."""
        found: Tensor
        if self.layer is not None:
            found = self._run(images)[0]
            return found
        with self.held:
            found = tensor_of(self.classifier(self.prepare(images)))
        return found

    def with_features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Activations, and features `(N, k)`: the layer's activations, or the input of the classifier's last layer."""
        activations, received = self._run(images)
        return activations, (activations if self.layer is not None else received).flatten(1).to(activations)

    def prepare(self, images: Tensor) -> Tensor:
        """The classifier's input, in the memory format and the number type that it takes."""
        inputs = images if self.transform is None else self.transform(images)
        if self._type is not None and inputs.is_floating_point():
            inputs = inputs.to(self._type)
        if inputs.ndim != 4:
            return inputs
        memory_format = torch.channels_last if self._channels_last else torch.contiguous_format
        return torch.empty_like(inputs, memory_format=memory_format).copy_(inputs)

    def _try(self, example: Tensor) -> Tensor:
        """Activations of a first pass, in which every misfit of the networks shows."""
        problem: Exception | None = None
        # `x.view(len(x), -1)` after a convolution needs the channels first in memory.
        for kind, channels_last in itertools.product(self._types, (True, False)):
            self._type, self._channels_last = kind, channels_last
            try:
                return self._checked(self._run(example)[0], len(example))
            except _NotReachedError:
                raise
            except UNFIT as error:
                problem = problem or error
        assert problem is not None
        if isinstance(problem, _NoRowsError):
            raise problem
        reason = reason_of(problem)
        if takes_one(lambda: self._run(example[:1])):
            raise ValueError(f"the {name_of(self.classifier)} takes one image at a time ({reason}): {ONE_BY_ONE}")
        remedy = "change" if self.transform else "pass"
        remedy += " transform=, a function that gives them the size, channels and type that it takes"
        raise ValueError(
            f"images of shape {tuple(example.shape[1:])} do not fit the {name_of(self.classifier)} ({reason}): {remedy}"
        ) from problem

    def _checked(self, activations: Any, count: int) -> Tensor:
        if not isinstance(activations, Tensor) or activations.ndim < 2 or len(activations) != count:
            shape = tuple(activations.shape) if isinstance(activations, Tensor) else type(activations).__name__
            raise _NoRowsError(
                f"{self.name} is {shape} for {count} images: a tensor with one row per image is needed; wrap the "
                "network in a function that returns it"
            )
        if not activations.is_floating_point():
            raise _NoRowsError(
                f"{self.name} is of {activations.dtype}: values that can rise with the image are needed; name a layer "
                "before argmax, rounding or comparisons, or wrap the network in a function that returns real numbers"
            )
        return activations

    def _run(self, images: Tensor) -> tuple[Any, Tensor]:
        """The activations, and the input of the last layer with weights."""
        if self._fuses and not torch.is_grad_enabled():
            with torch.enable_grad():
                activations, received = self._run(images.detach().requires_grad_())
            return activations.detach(), received.detach()
        uses, value, received = 0, None, images

        def enter(module: nn.Module, arguments: Any) -> None:
            nonlocal received
            if self._last is None and any(parameter.ndim > 1 for parameter in module.parameters(recurse=False)):
                weighted.append(module)
            if module is self._last and arguments:
                received = arguments[0]

        def leave(module: nn.Module, output: Any) -> None:
            nonlocal uses, value
            if module is self.layer:
                uses, value = uses + 1, output
                if uses == self._uses:
                    raise _Reached

        weighted: list[nn.Module] = []
        output = None
        try:
            with self.held, ModuleTrace(enter, leave):
                output = self.classifier(self.prepare(images))
        except _Reached:
            pass
        except Exception:
            # Later layers may fail: the images may be too small for the rest of the network.
            if not uses:
                raise
        if self.layer is not None and not uses:
            raise _NotReachedError(
                f"layer {describe(self.classifier, self.layer)} was not reached by the forward pass: choose one that "
                "the network calls; layers inside scripted and exported programs cannot be observed"
            )
        if self._uses is None and self._last is None:
            self._uses, self._last = uses, weighted[-1] if weighted else None
        return tensor_of(output if self.layer is None else value), received


def _logits_in_doubt() -> str:
    warnings.warn(
        "the classifier's outputs lie in [0, 1] and are taken as logits: pass head='sigmoid' if they are "
        "probabilities, head='logits' if not",
        stacklevel=5,
    )
    return LOGITS


def _refuse_other_values(head: str, outputs: Tensor) -> None:
    """
    Raises:
        ValueError: the outputs cannot come from this head.
    """
    low, high = float(outputs.min()), float(outputs.max())
    wrong = high > 1e-3 if head == LOG_SOFTMAX else low < -1e-3 or high > 1 + 1e-3
    if head != LOGITS and wrong:
        expected = "at most 0" if head == LOG_SOFTMAX else "in [0, 1]"
        raise ValueError(
            f"head={head!r}: its outputs are {expected}, and the classifier's lie in [{low:.3g}, {high:.3g}]; leave "
            "head= out to find it out"
        )


class _NotReachedError(ValueError):
    """The forward pass does not use the layer."""


class _NoRowsError(ValueError):
    """The classifier's output does not have one row of numbers per image."""


def tensor_of(output: Any) -> Any:
    """The tensor in a module's output, at least in float32; a single number per image becomes a row of one."""
    if not isinstance(output, Tensor):
        named = output if isinstance(output, Mapping) else getattr(output, "__dict__", {})
        parts = list(output.values()) if isinstance(output, Mapping) else output
        chosen = next((named[name] for name in _NAMES if isinstance(named.get(name), Tensor)), None)
        if chosen is None and isinstance(parts, (list, tuple)):
            chosen = next((part for part in parts if isinstance(part, Tensor)), None)
        if chosen is None:
            return output
        output = chosen
    output = output.float() if output.dtype in (torch.float16, torch.bfloat16) else output
    return output.unsqueeze(1) if output.ndim == 1 else output
