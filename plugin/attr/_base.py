"""What every attribution here does: check, run the model under rules, and take the signal at the inputs."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from ..kernels.tracing import is_tracing
from ..propagation import (
    ConvolutionLayer,
    Propagation,
    backward,
    check_all_handled,
    check_visible,
    describe,
    find_layer,
)
from ..propagation.convolution import differentiate
from ..propagation.mode import Handler
from ._captum import (
    GradientAttribution,
    Inputs,
    Neuron,
    NeuronAttribution,
    Target,
    additional_arguments,
    as_given,
    as_tuple,
    run_forward,
    select_neuron,
    select_target,
)


class LayerCapture:
    """Sees what a layer receives or returns; of a layer that is used several times, the last use counts."""

    def __init__(self, model: nn.Module, layer: nn.Module, at_input: bool) -> None:
        self.model, self.layer, self.at_input = model, layer, at_input
        self.value: Any = None

    def on_enter(self, module: nn.Module, args: Any) -> None:
        if self.at_input and module is self.layer:
            self.value = args

    def on_exit(self, module: nn.Module, output: Any) -> None:
        if not self.at_input and module is self.layer:
            self.value = output

    def tensors(self) -> tuple[Tensor, ...]:
        """The captured tensors.

        Raises:
            ValueError: the layer was not called, or what it received or returned is not made of tensors.
        """
        value = self.value if isinstance(self.value, (tuple, list)) else (self.value,)
        tensors = tuple(item for item in value if isinstance(item, Tensor))
        if not tensors:
            what = "was not reached by the forward pass" if self.value is None else "has no tensor to attribute to"
            raise ValueError(f"layer {describe(self.model, self.layer)} {what}: choose a layer that the model calls")
        return tensors


class ModifiedGradientAttribution(GradientAttribution):
    """What Captum's tools ask of every method here."""

    @property
    def multiplies_by_inputs(self) -> bool:
        """Whether attributions are in units of the output: False, they are modified gradients."""
        return False

    def attribute_future(self) -> None:
        """Not available.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(f"{type(self).__name__} does not work on futures: call attribute")


class SignalAttribution(ModifiedGradientAttribution):
    """Attribution by a backward pass in which some operations have another rule.

    Subclasses set `rules`: for each type of operation, the function that computes it under the method's rule.
    """

    rules: Mapping[type, Handler]

    def __init__(self, model: nn.Module) -> None:
        """
        Args:
            model: the network; it may be shared between threads and is never changed.

        Raises:
            AssertionError: `model` is no `nn.Module`.
            ValueError: it was scripted or compiled, so that its operations cannot be seen.
        """
        assert isinstance(model, nn.Module), f"the model must be an nn.Module, not a {type(model).__name__}"
        check_visible(model)
        super().__init__(model)
        self.model = model
        # Captum's. As an attribute, a method of this object would be a cycle, and keep the model when nobody needs it.
        del self.gradient_func

    def _attribute(
        self, inputs: Inputs, target: Target, additional_forward_args: Any, internal_batch_size: int | None
    ) -> Inputs:
        def explain(some: Inputs, target: Target, additional: Any) -> Inputs:
            return as_given(some, self.gradient_func(self.forward_func, as_tuple(some), target, additional))

        return in_batches(explain, inputs, target, additional_forward_args, internal_batch_size)

    def gradient_func(
        self, forward: nn.Module, inputs: tuple[Tensor, ...], target: Target = None, additional_forward_args: Any = None
    ) -> tuple[Tensor, ...]:
        """The signal of `target` at each input, with the signature of Captum's gradient functions."""
        with building_graph():
            leaves = make_leaves(inputs)
            select = partial(select_target, target=target)
            return signals_at(leaves, run_under_rules(forward, self.rules, leaves, additional_forward_args, select))


class NeuronSignalAttribution(NeuronAttribution, ModifiedGradientAttribution):
    """The same for one neuron of any layer. Subclasses set `method`."""

    method: Callable[[nn.Module], SignalAttribution]

    def __init__(self, model: nn.Module, layer: nn.Module | str, device_ids: list[int] | None = None) -> None:
        """
        Args:
            model: the network; it may be shared between threads and is never changed.
            layer: one of its modules, or the name of one.
            device_ids: accepted as Captum does; not needed.

        Raises:
            AssertionError: `model` is no `nn.Module`.
            ValueError: the model was scripted or compiled, or has no such layer.
        """
        self._attribution = self.method(model)
        NeuronAttribution.__init__(self, model, find_layer(model, layer), device_ids)
        GradientAttribution.__init__(self, model)
        self.model = model

    def _attribute(
        self,
        inputs: Inputs,
        neuron_selector: Neuron,
        additional_forward_args: Any,
        attribute_to_neuron_input: bool,
        internal_batch_size: int | None,
    ) -> Inputs:
        def explain(some: Inputs, _: Target, additional: Any) -> Inputs:
            capture = LayerCapture(self.model, self.layer, attribute_to_neuron_input)
            with building_graph():
                leaves = make_leaves(as_tuple(some))
                selected = run_under_rules(
                    self.model,
                    self._attribution.rules,
                    leaves,
                    additional,
                    lambda _: select_neuron(capture.tensors(), neuron_selector, describe(self.model, self.layer)),
                    capture,
                )
                return as_given(some, signals_at(leaves, selected))

        return in_batches(explain, inputs, None, additional_forward_args, internal_batch_size)


@contextmanager
def building_graph() -> Iterator[None]:
    """Autograd on, whatever the caller switched off (NoiseTunnel calls under `no_grad`).

    A recording is known to its thread alone, and autograd has another one for each GPU: it is kept from using them.
    `inference_mode(False)` allows it anew, so that this comes after it.
    """
    with torch.inference_mode(False), torch.enable_grad(), torch.autograd.set_multithreading_enabled(not is_tracing()):
        yield


def in_batches(
    explain: Callable[[Inputs, Target, Any], Any],
    inputs: Inputs,
    target: Target,
    additional_forward_args: Any,
    internal_batch_size: int | None,
) -> Any:
    """Explain some examples after the other, so that only their activations are held at a time.

    Args:
        explain: what is computed of inputs, target and additional arguments: a tensor `(N, ...)`, or tuples and lists
            of such tensors.
        inputs: tensor `(N, ...)`, or a tuple of them.
        target: as Captum has it; a list or tensor with one entry per example is split.
        additional_forward_args: further arguments of the model; tensors with one row per example are split.
        internal_batch_size: how many examples at a time; None: all.

    Returns:
        What `explain` returns for all examples.

    Raises:
        AssertionError: there is not one target per example.
        TypeError, ValueError: as `make_leaves`; the size is less than 1; or the inputs differ in length.
    """
    if internal_batch_size is None:
        return explain(inputs, target, additional_forward_args)
    if internal_batch_size < 1:
        raise ValueError(f"internal_batch_size = {internal_batch_size}: it must be at least 1")
    tensors, additional = as_tuple(inputs), additional_arguments(additional_forward_args)
    if not is_tracing():
        check_finite(tensors)
    count = len(tensors[0])
    if any(len(tensor) != count for tensor in tensors):
        counts = [len(tensor) for tensor in tensors]
        raise ValueError(f"the inputs have {counts} examples: with internal_batch_size they must have the same number")
    targets = target if isinstance(target, list) or (isinstance(target, Tensor) and target.numel() > 1) else None
    assert targets is None or len(targets) == count, f"there are {len(targets)} targets for {count} examples"
    results = []
    for start in range(0, count, internal_batch_size):
        rows = slice(start, start + internal_batch_size)
        some = as_given(inputs, tuple(tensor[rows] for tensor in tensors))
        given = tuple(
            value[rows] if isinstance(value, Tensor) and value.ndim and len(value) == count else value
            for value in additional
        )
        results.append(explain(some, target if targets is None else targets[rows], given or None))
    return tree_map(lambda *parts: torch.cat(parts), *results)


def make_leaves(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Fresh leaves of the graph with the inputs' values, so that the user's tensors are not changed.

    Raises:
        TypeError: an input is no tensor, or not floating point.
        ValueError: an input is empty, or holds NaN or infinity.
    """
    if not is_tracing():
        check_finite(inputs)
    return tuple((value.clone() if value.is_inference() else value.detach()).requires_grad_() for value in inputs)


def check_finite(inputs: tuple[Tensor, ...]) -> None:
    """Refuse what has no gradient or no meaning; errors as for `make_leaves`."""
    for position, value in enumerate(inputs):
        if not isinstance(value, Tensor):
            raise TypeError(f"input {position} is a {type(value).__name__}: pass tensors")
        if not (value.is_floating_point() or value.is_complex()):
            raise TypeError(f"input {position} is {value.dtype}, which has no gradient: pass a floating point tensor")
        if value.numel() == 0:
            raise ValueError(f"input {position} is empty: its shape is {tuple(value.shape)}")
        # A sum shows both in a tenth of the time; but that of finite values may be infinite, too.
        if not bool(value.sum().isfinite()) and not bool(value.isfinite().all()):
            raise ValueError(f"input {position} holds NaN or infinite values: clean it before attributing")


def run_under_rules(
    model: nn.Module,
    rules: Mapping[type, Handler],
    leaves: tuple[Tensor, ...],
    additional_forward_args: Any,
    select: Callable[[Any], Tensor],
    capture: LayerCapture | None = None,
) -> Tensor:
    """Run the model under rules; returns the values `(N,)` that `select` picks from its output, with their graph.

    Raises:
        RuntimeError: an activation escaped its rule.
    """
    observers = (capture.on_enter, capture.on_exit) if capture is not None else (None, None)
    own = {ConvolutionLayer: differentiate, **rules}
    propagation = Propagation(model, own, additional_arguments(additional_forward_args), *observers)
    with propagation:
        # The model is given copies: it may write into views of them, as it may not into views of leaves.
        copies = tuple(leaf.clone() for leaf in leaves)
        output = propagation.current(run_forward(model, copies, additional_forward_args))
    # Outside, where a tensor that was overwritten later shows what it was when the layer returned it.
    selected = select(output)
    if rules:
        check_all_handled(selected, propagation.handled)
    return selected


def signals_at(tensors: tuple[Tensor, ...], selected: Tensor) -> tuple[Tensor, ...]:
    """The signal of the selected values `(N,)` at each tensor; zeros where they do not depend on it.

    Raises:
        ValueError: they depend on none of them.
    """
    signals = backward(selected, tensors)
    return tuple(
        torch.zeros_like(tensor) if signal is None else signal for tensor, signal in zip(tensors, signals, strict=True)
    )
