"""The steps that all attributions share: check, run the model under rules, and take the signal at the inputs."""

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from ..captum_api import (
    GradientAttribution,
    Neuron,
    NeuronAttribution,
    Target,
    additional_arguments,
    as_given,
    check_device_ids,
    run_forward,
    select_neuron,
    select_target,
)
from ..errors import (
    ModelError,
    NoDependenceError,
    NotAModuleError,
    NotFiniteError,
    NotSupportedError,
    UnseenOperationError,
)
from ..inputs import Given, Inputs, as_tuple, check_finite, has_gradient
from ..kernels.tracing import building_graph
from ..observing import LayerCapture, describe, find_layer
from ..propagation import ConvolutionLayer, Propagation, backward, check_visible
from ..propagation.convolution import differentiate
from ..propagation.mode import Handler
from ._batches import in_batches
from ._dependence import where_it_ends
from ._finite import where_it_begins

if TYPE_CHECKING:
    from ..accelerate import CompiledAttribution


class ModifiedGradientAttribution(GradientAttribution):
    """The interface of every method that Captum's tools use."""

    @property
    def multiplies_by_inputs(self) -> bool:
        """Whether attributions are in units of the output: False, they are modified gradients."""
        return False

    def attribute_future(self) -> None:
        """Not available.

        Raises:
            NotSupportedError: always.
        """
        raise NotSupportedError(f"{type(self).__name__} does not work on futures: call attribute")

    def recordable(self) -> "ModifiedGradientAttribution":
        """The same attribution, without tensors stored by earlier calls."""
        return copy.copy(self)

    def compile(
        self,
        mode: str = "graph",
        precision: str = "float32",
        channels_last: bool = False,
        other_shapes: str = "compile",
    ) -> "CompiledAttribution":
        """The same attribution, recorded at its first call and run without Python from then on.

        Args:
            mode, precision, channels_last, other_shapes: see `plugin.accelerate.compile`.

        Raises:
            OptionError: an unknown option.

        >>> import torch
        >>> from torch import nn
        >>> from plugin.attr import LRPTranspose
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10)).eval()
        >>> images = torch.randn(2, 3, 8, 8)
        >>> fast = LRPTranspose(model, "epsilon_plus_flat").compile()
        >>> fast.attribute(images, target=3).shape
        torch.Size([2, 3, 8, 8])
        """
        from ..accelerate import CompiledAttribution

        return CompiledAttribution(self, mode, precision, channels_last, other_shapes)

    def _with_graph(self, inputs: Inputs, target: Target, additional: Any, **options: Any) -> tuple[Any, Tensor]:
        """The result of `attribute` and the explained values `(N,)`, with a graph; see `differentiable`."""
        from ..accelerate import differentiable  # takes a second to import, and few calls need it

        return differentiable(self, inputs, target, additional, **options)


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
            NotAModuleError: `model` is no `nn.Module`.
            ModelError: it was scripted, compiled or quantised.
        """
        check_model(model)
        super().__init__(model)
        self.model = model
        # Captum's. As an attribute, a method of this object would be a cycle, and keep the model alive when it is not
        # needed.
        del self.gradient_func

    def _attribute(
        self,
        inputs: Given,
        target: Target,
        additional_forward_args: Any,
        internal_batch_size: int | None,
        create_graph: bool,
    ) -> Given:
        def explain(some: Inputs, target: Target, additional: Any) -> Inputs:
            if create_graph:
                result: Inputs = self._with_graph(some, target, additional)[0]
                return result
            return as_given(some, self.gradient_func(self.forward_func, as_tuple(some), target, additional))

        return cast("Given", in_batches(explain, inputs, target, additional_forward_args, internal_batch_size))

    def gradient_func(
        self, forward: nn.Module, inputs: tuple[Tensor, ...], target: Target = None, additional_forward_args: Any = None
    ) -> tuple[Tensor, ...]:
        """The signal of `target` at each of `inputs`, with the signature of Captum's gradient functions.

        `forward` is the model; `additional_forward_args` and the errors are those of `attribute`.
        """
        inputs = as_tuple(inputs)
        with explaining(self.model, inputs, additional_forward_args):
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
            device_ids: accepted for compatibility with Captum; not needed.

        Raises:
            NotAModuleError: `model` is no `nn.Module`.
            ModelError: it was scripted, compiled or quantised.
            LayerError: the model has no such layer.
            OptionTypeError: another option was given in the place of `device_ids`.
        """
        check_device_ids(device_ids)
        self._attribution = self.method(model)
        NeuronAttribution.__init__(self, model, find_layer(model, layer), device_ids)
        GradientAttribution.__init__(self, model)
        self.model = model

    def _attribute(
        self,
        inputs: Given,
        neuron_selector: Neuron,
        additional_forward_args: Any,
        attribute_to_neuron_input: bool,
        internal_batch_size: int | None,
    ) -> Given:
        def explain(some: Inputs, _: Target, additional: Any) -> Inputs:
            capture = LayerCapture(self.model, self.layer, attribute_to_neuron_input)
            with explaining(self.model, as_tuple(some), additional):
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

        return cast("Given", in_batches(explain, inputs, None, additional_forward_args, internal_batch_size))


def check_model(model: Any) -> None:
    """Refuse models that no method here can explain.

    Raises:
        NotAModuleError: it is no `nn.Module`.
        ModelError: it was scripted, compiled or quantised, so that its operations cannot be seen or have no gradient.
    """
    if not isinstance(model, nn.Module):
        raise NotAModuleError(f"the model must be an nn.Module, not {_what_it_is(model)}")
    check_visible(model)
    for module in model.modules():
        if _is_quantised(type(module)):
            kind = type(module).__name__
            operation = f"{kind.lower()}_dynamic" if ".dynamic." in type(module).__module__ else kind.lower()
            raise ModelError(
                f"layer {describe(model, module)} is quantised: it computes quantized.{operation}, which has no "
                "gradient and no rule; pass the floating point model that it was made from"
            )


def _what_it_is(model: Any) -> str:
    """The kind of an object that is no module, and the object to pass instead, for the error."""
    if isinstance(model, type) and issubclass(model, nn.Module):
        return f"the class {model.__name__}: pass an instance, as {model.__name__}(...) is"
    for name in ("network", "module", "model"):
        if isinstance(getattr(model, name, None), nn.Module):
            return f"a {type(model).__name__} that holds one: pass model.{name}"
    return f"a {type(model).__name__}: wrap it in a class that derives from nn.Module"


def _is_quantised(kind: type) -> bool:
    """Whether modules of a type compute with integers. Those that only simulate it compute with floats."""
    module = kind.__module__
    return module.startswith("torch.") and ".quantized." in module and ".reference." not in module


@contextmanager
def explaining(model: nn.Module, inputs: tuple[Tensor, ...], additional_forward_args: Any) -> Iterator[None]:
    """`building_graph`, and errors that name the layer where the fault is.

    Raises:
        NoDependenceError: the explained values do not depend on the inputs.
        NotFiniteError: an explained value is NaN or infinite.
        UnseenOperationError: the model calls `flex_attention`.
    """
    with building_graph():
        try:
            yield
        except (NoDependenceError, NotFiniteError) as error:
            search = where_it_ends if isinstance(error, NoDependenceError) else where_it_begins
            leaves = make_leaves(inputs, allow_integers=True)
            raise type(error)(f"{error}. {search(model, leaves, additional_forward_args)}".strip()) from None
        except RuntimeError as error:
            if "flexattention" not in str(error).lower().replace("_", ""):
                raise
            raise UnseenOperationError(
                "the model calls flex_attention, which PyTorch compiles, so that its operations cannot be seen: write "
                "it with torch.nn.functional.scaled_dot_product_attention, or as softmax(scores) @ values"
            ) from error


def make_leaves(inputs: tuple[Tensor, ...], allow_integers: bool = False) -> tuple[Tensor, ...]:
    """Fresh leaves of the graph with the inputs' values, so that the user's tensors are not changed.

    Args:
        inputs: one or more tensors.
        allow_integers: integers, such as token ids, pass unchanged, without a gradient; else they are refused.

    Raises:
        InputTypeError: an input is no tensor, or not floating point.
        InputValueError: an input is empty, or holds NaN or infinity.
    """
    check_finite(inputs, allow_integers)
    return tuple(
        (value.clone() if value.is_inference() else value.detach()).requires_grad_(has_gradient(value))
        for value in inputs
    )


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
        UnseenOperationError: an activation escaped its rule, or a function reads a value that had been overwritten.
    """
    observers = (capture.on_enter, capture.on_exit) if capture is not None else (None, None)
    own = {ConvolutionLayer: differentiate, **rules}
    propagation = Propagation(model, own, additional_arguments(additional_forward_args), *observers)
    with propagation:
        # The model gets copies: it may write into views of them, but not into views of leaves.
        copies = tuple(leaf.clone() for leaf in leaves)
        output = propagation.current(run_forward(model, copies, additional_forward_args))
    # Outside the mode, where a tensor that was overwritten later shows its value when the layer returned it.
    selected = select(output)
    propagation.check(selected)
    return selected


def signals_at(tensors: tuple[Tensor, ...], selected: Tensor) -> tuple[Tensor, ...]:
    """The signal of the selected values `(N,)` at each tensor; zeros where they do not depend on it.

    Raises:
        NoDependenceError: they depend on none of them.
    """
    signals = backward(selected, tensors)
    return tuple(
        torch.zeros_like(tensor) if signal is None else signal for tensor, signal in zip(tensors, signals, strict=True)
    )
