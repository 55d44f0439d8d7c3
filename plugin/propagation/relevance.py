"""Layer-wise relevance propagation as a function mode.

The signal that travels is the multiplier m = R / a, so whatever is linear and sign-preserving needs no rule: the plain
vector-Jacobian product is LRP-0. What is not is listed here, each operation with every spelling:

* convolutions and linear layers: the rule of the composite; a batch norm that follows is folded in, and the
  convolution is not computed again;
* activations other than piecewise linear ones: m * f(x) / x, with f'(0) at x = 0 if f(0) = 0;
* layer, group, instance and RMS norm, `F.normalize`: linear, with the deviation held constant;
* products: all to the signal if the other factor is a gate (the output of a sigmoid or softmax), else half to each;
* softmax: its gradient, or held constant; attention: expressed in these parts, or what they come to.

An operation that is on no list has no LRP meaning that is known, and raises.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..kernels.linear import Convolution, LinearMap, MatrixProduct, Scaling
from ..kernels.tracing import is_tracing
from ..rules.composite import Composite, Layer
from ..rules.lrp import Rule
from . import attention
from .convolution import per_dimension
from .layers import Absorption, ActivationLayer, LayerRecord, LinearLayer, NormalisationLayer, Trail, WeightCache
from .mode import Propagation
from .modules import Observer, describe, running_module
from .operations import Activation, recognise, with_arguments
from .spellings import spellings
from .tensors import TensorTable, hooked, map_tensors, tensors_in

Size = int | Sequence[int]

# Linear in what they move, and blind to its values.
MOVEMENTS = frozenset(
    "view view_as reshape reshape_as flatten unflatten permute transpose swapaxes swapdims movedim moveaxis t squeeze "
    "unsqueeze contiguous clone narrow select expand expand_as broadcast_to repeat tile roll flip rot90 unbind split "
    "tensor_split chunk index_select gather pixel_shuffle pixel_unshuffle channel_shuffle unfold fold as_strided "
    "__getitem__ to type type_as float double half bfloat16 cpu cuda pad constant_pad_nd alias detach_copy "
    "repeat_interleave diagonal tril triu take_along_dim hsplit vsplit dsplit T mT H mH data meshgrid".split()
)
# Linear or piecewise linear through 0 in all their signals together: the vector-Jacobian product is LRP-0.
_HOMOGENEOUS = MOVEMENTS | frozenset(
    "add sub subtract rsub neg negative positive __add__ __radd__ __sub__ __rsub__ __neg__ __pos__ sum mean cat concat "
    "concatenate stack hstack vstack dstack dropout dropout1d dropout2d dropout3d alpha_dropout feature_alpha_dropout "
    "feature_dropout max_pool1d max_pool2d max_pool3d max_pool1d_with_indices max_pool2d_with_indices fn "
    "max_pool3d_with_indices avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d "
    "adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d interpolate upsample grid_sample "
    "max amax maximum min amin minimum topk sort where masked_fill masked_select index_put index_add scatter "
    "scatter_add masked_scatter index_fill cumsum lerp relu leaky_relu prelu rrelu requires_grad_ register_hook "
    "written".split()
)
_PIECEWISE_LINEAR = frozenset({"relu", "leaky_relu", "prelu", "rrelu"})
_NON_NEGATIVE = frozenset({"relu", "relu6", "hardtanh", "softplus"})
_SIGN_PRESERVING = MOVEMENTS | frozenset(
    "add __add__ __radd__ sum mean cat concat concatenate stack dropout dropout1d dropout2d dropout3d feature_dropout "
    "max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d "
    "adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d amax max maximum boolean_dispatch "
    "fn".split()
)


@dataclass(slots=True)
class _Call:
    """A call that at least one signal goes into.

    Attributes:
        signals: the tensors that depend on the input.
        given: all tensors among the arguments, parameters as the model has them.
    """

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    signals: list[Tensor]
    given: list[Tensor]

    @property
    def name(self) -> str:
        """The function's own name, without the overload of an ATen operator."""
        return _name(self.function)

    def run(self) -> Any:
        """The plain call."""
        return self.function(*self.args, **self.kwargs)

    def argument(self, position: int, name: str, default: Any = None) -> Any:
        """One argument, given by position or by name."""
        return self.args[position] if len(self.args) > position else self.kwargs.get(name, default)


@dataclass
class _Produced:
    """How a tensor came to be, for the batch norm that may follow."""

    record: LayerRecord
    value: Tensor
    carrier: Tensor | None


class RelevancePropagation(Propagation):
    """Runs a model so that the backward pass is LRP.

    Args:
        model: the network.
        composite: the rule of each linear layer, and of softmax.
        cache: quantities derived from weights, kept between calls.
        unknown: "raise" for operations without LRP meaning, or "gradient".
        account: keep what each layer and each other operation absorbed, for the ledger.
        repeated: several backward passes will follow.
        protected, on_enter, on_exit: see `Propagation`.
    """

    # Not a sum: a layer needs its output for its share of the relevance.
    _really_in_place = frozenset({F.relu})

    def __init__(
        self,
        model: nn.Module,
        composite: Composite,
        cache: WeightCache,
        unknown: str = "raise",
        account: bool = False,
        repeated: bool = False,
        protected: Iterable[Any] = (),
        on_enter: Observer | None = None,
        on_exit: Observer | None = None,
        layer_rules: Callable[[nn.Module], Rule | None] | None = None,
    ) -> None:
        super().__init__(model, {}, protected, on_enter, on_exit)
        self.composite, self.cache, self.unknown, self.account = composite, cache, unknown, account
        self.layer_rules, self.repeated = layer_rules, repeated
        self.trail = Trail()
        self._names = {module: name for name, module in model.named_modules()}
        self._owners = {id(parameter): module for module in self._names for parameter in module._parameters.values()}
        self._carriers: TensorTable[Tensor] = TensorTable()
        self._non_negative: TensorTable[bool] = TensorTable()
        self._gates: TensorTable[bool] = TensorTable()
        self._produced: TensorTable[_Produced] = TensorTable()
        self._folded: TensorTable[list[Tensor]] = TensorTable()

    def carry(self, value: Tensor, carrier: Tensor) -> None:
        """Let the zero-valued leaf `carrier` receive relevance that is not a multiple of the input `value`."""
        self._carriers[value] = carrier

    def found_at(self, value: Tensor) -> list[Tensor]:
        """Where a tensor's relevance is found: there, and at the results of what was folded into its layer."""
        return [value, *(found for folded in self._folded.get(value) or () for found in self.found_at(folded))]

    def carrier(self, value: Tensor) -> Tensor | None:
        """The leaf that receives relevance of `value` that is not a multiple of it, if it has one."""
        return self._carriers.get(value)

    def assign_rules(self) -> None:
        """Give every layer its rule, now that the forward pass is over."""
        count = len(self.trail.layers)
        for index, record in enumerate(self.trail.layers):
            layer = Layer(record.name, record.module, index, count, record.reads_input)
            own = self.layer_rules(record.module) if self.layer_rules is not None else None
            record.rule = own or self.composite.rule_for(layer)
        for before, record in reversed(self.trail.superseded):
            before.rule = record.rule
        for record in self.trail.passed:
            record.account, record.repeated = self.account, self.repeated

    # -- dispatch ------------------------------------------------------------------------------------------------------

    def _call(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        given = tensors_in(args) + tensors_in(kwargs) if kwargs else tensors_in(args)
        signals: list[Tensor] = []
        parameters: list[Tensor] = []
        for tensor in given:
            if not tensor.requires_grad:
                continue
            # Parameters do not depend on the input: what requires grad otherwise does.
            if tensor.is_leaf and self._carriers.get(tensor) is None:
                parameters.append(tensor)
            else:
                signals.append(tensor)
        if parameters and not (signals and function in _READS_PARAMETERS):
            constants = {id(parameter): self.cache.constant(parameter) for parameter in parameters}
            args, kwargs = _with_tensors(args, kwargs, constants)
        if not signals:
            return super()._call(function, args, kwargs)
        handler = _HANDLERS.get(function)
        if handler is not None:
            return handler(self, _Call(function, args, kwargs, signals, given))
        activation = recognise(function, args, kwargs, (Activation,))
        if activation is not None:
            return self._activation(cast(Activation, activation))
        return self._as_it_is(_Call(function, args, kwargs, signals, given))

    def _is_kept(self, base: Tensor) -> bool:
        # Nor may what is noted of it become untrue.
        noted = (self._produced, self._non_negative, self._gates, self._carriers)
        return self.account or any(table.get(base) is not None for table in noted)

    def _is_free(self, value: Tensor) -> bool:
        # A layer needs its output only for the relevance of readers other than what is folded into it.
        return not self.account and (self._produced.get(value) is not None or super()._is_free(value))

    def _owner(self, call: "_Call") -> nn.Module:
        """The layer that a call belongs to: that of a parameter among its arguments, else the one that is running."""
        for tensor in call.given:
            owner = self._owners.get(id(tensor))
            if owner is not None:
                return owner
        return running_module(self.model)

    def _as_it_is(self, call: "_Call") -> Any:
        """An operation whose vector-Jacobian product is right, or one that is not known."""
        name = call.name
        if self.account and name not in _KEEPS_NOTHING:
            result = self._run_watched(call)
        else:
            result = super()._call(call.function, call.args, call.kwargs)
        if name not in _HOMOGENEOUS and any(tensor.requires_grad for tensor in tensors_in(result)):
            if self.unknown == "raise":
                raise NotImplementedError(
                    f"{name} in layer {describe(self.model, running_module(self.model))} has no LRP rule: express it "
                    'in operations that have one, or pass unknown="gradient" to let its gradient stand in'
                )
            return result
        if name in MOVEMENTS:
            self._move(self._carriers, call, result)
            self._move(self._gates, call, result)
        elif "dropout" in name:
            self._move(self._gates, call, result)
        if name in _SIGN_PRESERVING and self._is_non_negative(call):
            for tensor in tensors_in(result):
                self._non_negative[tensor] = True
        return result

    def _is_non_negative(self, call: "_Call") -> bool:
        others = [tensor for tensor in tensors_in((call.args, call.kwargs)) if not tensor.requires_grad]
        # A summand, the weight of one, or what is put around the edges.
        numbers = [*call.args, *call.kwargs.values()] if call.name in _HOLDS_CONSTANTS else []
        return (
            not any(tensor.is_floating_point() for tensor in others)
            and not any(isinstance(number, (int, float)) and number < 0 for number in numbers)
            and all(self._non_negative.get(signal) for signal in call.signals)
        )

    def _move(self, table: TensorTable[Any], call: "_Call", result: Any) -> None:
        """What is noted of a tensor moves with it."""
        shaped_like_another = call.name.endswith("_as")
        noted = table.get(call.signals[0]) if len(call.signals) == 1 or shaped_like_another else None
        if noted is None:
            return
        if isinstance(noted, Tensor):
            args, kwargs = _with_tensors(call.args, call.kwargs, {id(call.signals[0]): noted})
            noted_results = tensors_in(call.function(*args, **kwargs))
        else:
            noted_results = [noted] * len(tensors_in(result))
        for tensor, value in zip(tensors_in(result), noted_results, strict=True):
            table[tensor] = value

    def _run_watched(self, call: _Call) -> Any:
        """The plain call, with a note of the relevance that it keeps."""
        absorption = Absorption(f"{call.name.strip('_')} in {describe(self.model, self._owner(call))}")
        aliases = {id(signal): absorption.watch_signal(signal) for signal in call.signals}
        args, kwargs = _with_tensors(call.args, call.kwargs, aliases)
        result = super()._call(call.function, args, kwargs)
        self.trail.absorptions.append(absorption)
        given = {id(aliases[id(signal)]): signal for signal in call.signals}
        for tensor in tensors_in(result):
            if tensor.requires_grad and id(tensor) not in given:
                absorption.watch_result(tensor)
        # Dropout in eval mode returns what it was given.
        return map_tensors(lambda tensor: given.get(id(tensor), tensor), result)

    # -- linear layers -------------------------------------------------------------------------------------------------

    def _linear_layer(
        self,
        call: _Call,
        value: Tensor,
        linear: LinearMap,
        weight: Tensor,
        bias: Tensor | None,
        compute: Callable[[], Tensor] | None = None,
    ) -> Tensor:
        if any(weight is signal for signal in call.signals):
            return cast(Tensor, self._as_it_is(call))
        owner, weight, carrier = self._owner(call), self.cache.constant(weight), self._carriers.get(value)
        record = LayerRecord(
            name=self._names.get(owner, ""),
            module=owner,
            linear=linear,
            weight=weight,
            bias=None if bias is None else self.cache.constant(bias),
            reads_input=carrier is not None,
            non_negative=bool(self._non_negative.get(value)),
            cached=partial(self.cache.get, weight),
        )
        return self._record(_Produced(record, value, carrier), compute or call.run)

    def _record(self, layer: _Produced, compute: Callable[[], Tensor]) -> Tensor:
        self.trail.layers.append(layer.record)
        output = LinearLayer.apply(layer.value, layer.carrier, compute, layer.record)
        if not layer.record.rectified:
            self._produced[output] = layer
        return output

    def _fold(
        self, value: Tensor, compute: Callable[[Tensor], Tensor], layer: _Produced, record: LayerRecord
    ) -> Tensor:
        """What follows a layer becomes a part of it.

        Args:
            value: the layer's output, which others may still read.
            compute: what follows.
            layer: how `value` came to be.
            record: the layer with what follows.
        """
        self.trail.supersede(layer.record, record)
        output = self._record(_Produced(record, layer.value, layer.carrier), partial(compute, value.detach()))
        if self._observed:
            self._folded[value] = [*(self._folded.get(value) or ()), output]
        return output

    def _convolution(
        self,
        call: _Call,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Size = 1,
        padding: Size | str = 0,
        dilation: Size = 1,
        groups: int = 1,
    ) -> Tensor:
        dimensions = weight.ndim - 2
        if isinstance(padding, str):
            dilation = per_dimension(dilation, dimensions)
            reach = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
            odd = padding == "same" and any(total % 2 for total in reach)
            padding = tuple(total // 2 if padding == "same" else 0 for total in reach)
            if odd:
                extra = [amount for total in reversed(reach) for amount in (0, total % 2)]
                with self.seeing():
                    return call.function(F.pad(input, extra), weight, bias, stride, padding, dilation, groups)
        linear = _convolution(dimensions, _fixed(stride), _fixed(padding), _fixed(dilation), groups)
        return self._convolved(call, input, linear, weight, bias)

    def _transposed_convolution(
        self,
        call: _Call,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Size = 1,
        padding: Size = 0,
        output_padding: Size = 0,
        groups: int = 1,
        dilation: Size = 1,
    ) -> Tensor:
        geometry = (_fixed(stride), _fixed(padding), _fixed(dilation), groups, _fixed(output_padding))
        return self._convolved(call, input, _convolution(weight.ndim - 2, *geometry), weight, bias)

    def _convolved(
        self, call: _Call, input: Tensor, linear: Convolution, weight: Tensor, bias: Tensor | None
    ) -> Tensor:
        """Either kind, with or without a batch dimension."""
        if input.ndim == weight.ndim - 1:
            args, kwargs = _with_tensors(call.args, call.kwargs, {id(input): input.unsqueeze(0)})
            with self.seeing():
                return call.function(*args, **kwargs).squeeze(0)
        return self._linear_layer(call, input, linear, weight, bias)

    def _linear(self, call: _Call, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return self._linear_layer(call, input, MatrixProduct(), weight, bias)

    def _batch_norm(
        self,
        call: _Call,
        input: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        training: bool = False,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        """y * s + t: folded into the layer that produced its input, else a linear layer of its own (epsilon)."""
        mean, variance = running_mean, running_var
        if training or mean is None or variance is None:  # the batch decides: nothing to keep
            dims = [0, *range(2, input.ndim)]
            mean, variance = input.detach().mean(dims), input.detach().var(dims, unbiased=False)
        parts = [self.cache.constant(part) for part in (variance, mean, weight, bias) if part is not None]

        def scale_and_shift() -> tuple[Tensor, Tensor]:
            scale = (variance + eps).rsqrt() * (1.0 if weight is None else weight)
            return scale, (0.0 if bias is None else bias) - mean * scale

        plain = super()._call

        def normalise(value: Tensor) -> Tensor:
            rest = (running_mean, running_var, weight, bias, training, momentum, eps)
            return cast(Tensor, plain(call.function, (value, *rest), {}) if training else call.function(value, *rest))

        produced = self._produced.get(input)
        if produced is None or not _scales_its_channels(produced.record.linear, input):
            scale, shift = self.cache.get(parts[0], f"batch norm {eps}", scale_and_shift, parts)
            return self._linear_layer(call, input, Scaling(), scale, shift, partial(normalise, input.detach()))
        before = produced.record

        def folded() -> tuple[Tensor, Tensor]:
            scale, shift = scale_and_shift()
            bias = shift if before.bias is None else shift + before.bias * scale
            return before.linear.scale_outputs(before.weight, scale), bias

        others = parts if before.bias is None else [*parts, before.bias]
        new_weight, new_bias = self.cache.get(before.weight, f"batch norm {eps}", folded, others)
        record = before.changed(new_weight, new_bias, partial(self.cache.get, new_weight))
        return self._fold(input, normalise, produced, record)

    # -- the rest ------------------------------------------------------------------------------------------------------

    def _activation(self, activation: Activation) -> Tensor:
        produced = self._produced.get(activation.input) if activation.name == "relu" else None
        if produced is not None:
            # The layer remembers max(y, 0), which the next one reads anyway, in place of y.
            layer = produced.record
            rectified = layer.changed(layer.weight, layer.bias, layer.cached, rectified=True)
            result = self._fold(activation.input, activation.function, produced, rectified)
        elif activation.name in _PIECEWISE_LINEAR:
            result = activation.function(activation.input)
        else:
            result = ActivationLayer.apply(activation.input, activation.function, self.repeated)
        if activation.name in _NON_NEGATIVE or (
            activation.name in ("leaky_relu", "prelu") and self._non_negative.get(activation.input)
        ):
            self._non_negative[result] = True
        return result

    def _squashing(self, call: _Call) -> Tensor:
        rest = {name: value for name, value in call.kwargs.items() if value is not call.signals[0]}
        function = with_arguments(call.function, call.args[1:], rest)
        result = ActivationLayer.apply(call.signals[0], function, self.repeated)
        if call.name in ("sigmoid", "hardsigmoid"):
            self._gates[result] = True
            self._non_negative[result] = True
        return result

    def _softmax(self, call: _Call) -> Tensor:
        if self.composite.softmax == "constant":
            return call.run().detach()
        result = self._run_watched(call) if self.account else call.run()
        self._gates[result] = True
        self._non_negative[result] = True
        return result

    def _product(self, call: _Call) -> Tensor:
        """a * b: all to the signal if the other is a gate, else half to each; linear if one is constant."""
        if len(call.signals) == 1:
            return self._scaled(call)
        gates = [signal for signal in call.signals if self._gates.get(signal)]
        if gates and len(gates) < len(call.signals) and call.name in _ELEMENTWISE:
            swap = {id(gate): gate.detach() for gate in gates}
        else:
            swap = {id(signal): _weigh_signal(signal, 1 / len(call.signals)) for signal in call.signals}
        args, kwargs = _with_tensors(call.args, call.kwargs, swap)
        result = call.function(*args, **kwargs)
        if all(self._non_negative.get(signal) for signal in call.signals):
            self._non_negative[result] = True
        return result

    def _scaled(self, call: _Call) -> Tensor:
        """One factor is constant; a matrix on the right is the weight of a linear layer, written by hand."""
        if call.name in ("matmul", "__matmul__", "mm") and len(call.args) == 2:
            value, weight = call.args
            if value is call.signals[0] and isinstance(weight, Tensor) and weight.ndim == 2 and value.ndim >= 2:
                return self._linear_layer(call, value, MatrixProduct(), weight.t(), None)
        return call.run()

    def _added_product(self, call: _Call) -> Tensor:
        """`addmm(bias, x, weight)` and `baddbmm`, as a product and a sum."""
        bias, first, second = call.args[:3]
        with self.seeing():
            return torch.matmul(first, second) * call.kwargs.get("alpha", 1) + bias * call.kwargs.get("beta", 1)

    def _quotient(self, call: _Call) -> Tensor:
        if any(divisor is call.signals[-1] for divisor in call.args[1:2]):
            return self._as_it_is(call)
        return call.run()

    def _layer_norm(self, call: _Call) -> Tensor:
        value, shape = call.argument(0, "input"), call.argument(1, "normalized_shape")
        weight, bias = call.argument(2, "weight"), call.argument(3, "bias")
        epsilon, centre = call.argument(4, "eps", 1e-5), True
        if call.name == "rms_norm":
            bias, epsilon, centre = None, call.argument(3, "eps"), False
            epsilon = torch.finfo(value.dtype).eps if epsilon is None else epsilon
        normal = NormalisationLayer.apply(value, list(range(-len(shape), 0)), epsilon, centre)
        return self._affine(normal, weight, bias)

    def _group_norm(self, call: _Call) -> Tensor:
        value, groups = call.argument(0, "input"), call.argument(1, "num_groups")
        weight, bias, epsilon = call.argument(2, "weight"), call.argument(3, "bias"), call.argument(4, "eps", 1e-5)
        grouped = value.reshape(value.shape[0], groups, -1)
        normal = NormalisationLayer.apply(grouped, [-1], epsilon).reshape(value.shape)
        return self._affine(normal, *(_per_channel(t, value.ndim) for t in (weight, bias)))

    def _instance_norm(self, call: _Call) -> Tensor:
        value = call.argument(0, "input")
        mean, weight, bias = call.argument(1, "running_mean"), call.argument(3, "weight"), call.argument(4, "bias")
        if not call.argument(5, "use_input_stats", True) and mean is not None:
            with self.seeing():
                return F.batch_norm(
                    value,
                    mean,
                    call.argument(2, "running_var"),
                    weight,
                    bias,
                    False,
                    0.0,
                    call.argument(7, "eps", 1e-5),
                )
        normal = NormalisationLayer.apply(value, list(range(2, value.ndim)), call.argument(7, "eps", 1e-5))
        return self._affine(normal, *(_per_channel(t, value.ndim) for t in (weight, bias)))

    def _affine(self, normal: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
        """normal * weight + bias; the bias absorbs relevance and is seen by the ledger."""
        scaled = normal if weight is None else normal * weight
        if bias is None:
            return scaled
        with self.seeing():
            return scaled + bias

    def _normalize(self, call: _Call) -> Tensor:
        value, order = call.argument(0, "input"), call.argument(1, "p", 2.0)
        dim, epsilon = call.argument(2, "dim", 1), call.argument(3, "eps", 1e-12)
        return value / value.detach().norm(order, dim, keepdim=True).clamp_min(epsilon)

    def _gated_linear_unit(self, call: _Call) -> Tensor:
        with self.seeing():
            signal, gate = call.signals[0].chunk(2, call.argument(1, "dim", -1))
            return signal * torch.sigmoid(gate)

    def _attention(self, call: _Call) -> Any:
        """Attention in its parts, so that softmax and products are seen."""
        expressed = getattr(attention, call.name)
        with self.seeing():
            return expressed(*call.args, **call.kwargs)

    def _scaled_dot_product(self, call: _Call) -> Tensor:
        """Its parts, or what they come to: of two products half to each factor, so half to V, a quarter to Q and K.

        PyTorch's one operation keeps no scores. In parts it is seen by the ledger and by recordings, and where anything
        but Q, K and V takes part.
        """
        names = ("query", "key", "value")
        parts = [call.argument(position, name) for position, name in enumerate(names)]
        unusual = call.argument(4, "dropout_p", 0.0) or call.kwargs.get("enable_gqa")
        all_signals = len(call.signals) == 3 and all(any(part is signal for signal in call.signals) for part in parts)
        if self.account or is_tracing() or unusual or not all_signals:
            return cast(Tensor, self._attention(call))
        query, key, value = parts
        if self.composite.softmax == "constant":
            query, key = query.detach(), key.detach()
        else:
            query, key, value = map(_weigh_signal, parts, (1 / 4, 1 / 4, 1 / 2))
        rest = {name: argument for name, argument in call.kwargs.items() if name not in names}
        return cast(Tensor, call.function(query, key, value, *call.args[3:], **rest))


def _with_tensors(
    args: tuple[Any, ...], kwargs: dict[str, Any], swap: dict[int, Tensor]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments, with other tensors in place of those with these identities."""

    def swapped(tensor: Tensor) -> Tensor:
        return swap.get(id(tensor), tensor)

    return map_tensors(swapped, args), map_tensors(swapped, kwargs)


def _by_signature(method: Callable[..., Any]) -> Callable[["RelevancePropagation", _Call], Any]:
    """A handler that is also given the call's arguments as its own."""
    return lambda propagation, call: method(propagation, call, *call.args, **call.kwargs)


def _scales_its_channels(linear: LinearMap, output: Tensor) -> bool:
    """Whether a batch norm's channels (dimension 1) are the output channels of the layer; not so on sequences."""
    return isinstance(linear, Convolution) or (isinstance(linear, MatrixProduct) and output.ndim == 2)


@lru_cache(maxsize=4096)
def _name(function: Callable[..., Any]) -> str:
    name = getattr(function, "__name__", str(function)).split(".")[0]
    return name if name != "__get__" else getattr(function.__self__, "__name__", name)  # type: ignore[attr-defined]


def _fixed(size: int | Sequence[int]) -> int | tuple[int, ...]:
    return size if isinstance(size, int) else tuple(size)


@lru_cache(maxsize=4096)
def _convolution(
    dimensions: int,
    stride: int | tuple[int, ...],
    padding: int | tuple[int, ...],
    dilation: int | tuple[int, ...],
    groups: int,
    output_padding: int | tuple[int, ...] | None = None,
) -> Convolution:
    """The map of a convolution; of a transposed one if there is an output padding."""
    return Convolution(
        per_dimension(stride, dimensions),
        per_dimension(padding, dimensions),
        per_dimension(dilation, dimensions),
        groups,
        transposed=output_padding is not None,
        output_padding=() if output_padding is None else per_dimension(output_padding, dimensions),
    )


def _per_channel(values: Tensor | None, ndim: int) -> Tensor | None:
    return None if values is None else values.view(-1, *(1,) * (ndim - 2))


def _weigh_signal(tensor: Tensor, weight: float) -> Tensor:
    """The same tensor; the signal that passes it is multiplied by `weight`."""
    return hooked(tensor, lambda signal: signal * weight)


_SUMS = frozenset("add sub subtract rsub __add__ __radd__ __sub__ __rsub__".split())
_PADDINGS = frozenset({"pad", "constant_pad_nd"})
_HOLDS_CONSTANTS = _SUMS | _PADDINGS
# They move all they are given, or ask for something.
_KEEPS_NOTHING = (MOVEMENTS - _PADDINGS) | {"grad_fn", "requires_grad_", "register_hook", "retain_grad"}
_ELEMENTWISE = frozenset("mul multiply __mul__ __rmul__".split())
_LAYERS: dict[Callable[..., Any], str] = {
    _by_signature(RelevancePropagation._convolution): "conv1d conv2d conv3d",
    _by_signature(RelevancePropagation._transposed_convolution): "conv_transpose1d conv_transpose2d conv_transpose3d",
    _by_signature(RelevancePropagation._linear): "linear",
    _by_signature(RelevancePropagation._batch_norm): "batch_norm",
}
_METHODS: dict[Callable[..., Any], str] = {
    RelevancePropagation._squashing: "sigmoid hardsigmoid tanh softsign logsigmoid tanhshrink softshrink hardshrink",
    RelevancePropagation._softmax: "softmax softmin",
    RelevancePropagation._product: "mul multiply __mul__ __rmul__ matmul __matmul__ __rmatmul__ mm bmm mv einsum",
    RelevancePropagation._added_product: "addmm baddbmm",
    RelevancePropagation._quotient: "div divide true_divide __truediv__ __rtruediv__",
    RelevancePropagation._layer_norm: "layer_norm rms_norm",
    RelevancePropagation._group_norm: "group_norm",
    RelevancePropagation._instance_norm: "instance_norm",
    RelevancePropagation._normalize: "normalize",
    RelevancePropagation._gated_linear_unit: "glu",
    RelevancePropagation._attention: "multi_head_attention_forward",
    RelevancePropagation._scaled_dot_product: "scaled_dot_product_attention",
}
# Spelled in F alone: the functions of the same name elsewhere take other arguments.
_ONLY_FUNCTIONAL = frozenset({"batch_norm", "instance_norm", "multi_head_attention_forward", "normalize"})
_HANDLERS: dict[Callable[..., Any], Callable[[RelevancePropagation, _Call], Any]] = {
    function: method
    for method, names in (_LAYERS | _METHODS).items()
    for name in names.split()
    for function in ([getattr(F, name)] if name in _ONLY_FUNCTIONAL else spellings(name))
}
# Their handlers take parameters as the model has them; elsewhere constants stand for these.
_READS_PARAMETERS = frozenset(function for function, method in _HANDLERS.items() if method in _LAYERS)
