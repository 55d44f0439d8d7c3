"""Modules that are taken as a whole: their result is replaced, and no operation inside has a rule.

A module with a rule of its own, or with a row for its class, is not inspected. While it runs, operations are
differentiated as usual. When it ends, its result is replaced by one that follows from the module's arguments, by the
rule.
"""

import copy
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .calls import with_tensors
from .tensors import map_tensors, tensors_in

# Computes the replacement of a result from the module, its arguments by position and by keyword, and the result.
Replace = Callable[[nn.Module, tuple[Any, ...], dict[str, Any], Any], Any]


class WholeModules:
    """Sees the modules of a forward pass that are taken as a whole.

    Args:
        modules: these modules.
        is_on: whether operations are seen: inside a rule they are not, and a module may be called once more.
        resolve: returns the current value of a tensor that was overwritten.
        replace: computes the replacement of a result.
    """

    def __init__(
        self,
        modules: Collection[nn.Module],
        is_on: Callable[[], bool],
        resolve: Callable[[Any], Any],
        replace: Replace,
    ) -> None:
        self._modules, self._is_on, self._resolve, self._replace = modules, is_on, resolve, replace
        # None for a module that received no signal: it computes a constant.
        self._running: list[tuple[tuple[Any, ...], dict[str, Any]] | None] = []

    @property
    def inside(self) -> bool:
        """Whether one of them is running."""
        return any(received is not None for received in self._running)

    def has(self, module: nn.Module) -> bool:
        """Whether a module that is now called is one of them."""
        return module in self._modules and self._is_on()

    def enter(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Note that one of them begins."""
        args, kwargs = self._resolve(args), self._resolve(kwargs)
        self._running.append((args, kwargs) if signals_in(args, kwargs) else None)

    def leave(self, module: nn.Module, output: Any) -> Any:
        """Note that one of them ends; `output` is None if it raised an error. Inside another, nothing is replaced."""
        received = self._running.pop()
        if received is None or output is None or self.inside:
            return output
        return self._replace(module, *received, output)


def run_module(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """Call a module once more, on copies, as it may overwrite its arguments and buffers."""
    if module.training and next(module.buffers(), None) is not None:
        module = copy.deepcopy(module)
    return module(*map_tensors(Tensor.clone, args), **map_tensors(Tensor.clone, kwargs))


def signals_in(args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
    """The different tensors among arguments that depend on the input."""
    found = [tensor for tensor in tensors_in((args, kwargs)) if tensor.requires_grad]
    return list({id(tensor): tensor for tensor in found if not isinstance(tensor, nn.Parameter)}.values())


@dataclass(frozen=True)
class Opaque:
    """A function as one node of autograd's graph, differentiated as usual; its operations stay hidden."""

    function: Callable[..., Any]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        signals = signals_in(args, kwargs)
        aliases, args, kwargs = apart(signals, args, kwargs)
        result = self.function(*args, **kwargs)
        computed = tuple(tensor for tensor in tensors_in(result) if tensor.requires_grad)
        if not signals or not computed:
            return result
        hidden = dict(zip(map(id, computed), _Hidden.apply(computed, aliases, *signals), strict=True))
        return map_tensors(lambda tensor: hidden.get(id(tensor), tensor), result)


class _Hidden(torch.autograd.Function):
    """Results of signals, with their own gradient."""

    @staticmethod
    def forward(
        ctx: Any, computed: tuple[Tensor, ...], aliases: tuple[Tensor, ...], *signals: Tensor
    ) -> tuple[Tensor, ...]:
        ctx.computed, ctx.aliases = computed, aliases
        ctx.set_materialize_grads(False)
        return tuple(tensor.detach().clone() for tensor in computed)

    @staticmethod
    def backward(ctx: Any, *arrived: Tensor | None) -> tuple[Any, ...]:
        given = [(tensor, signal) for tensor, signal in zip(ctx.computed, arrived, strict=True) if signal is not None]
        if not given:
            return None, None, *[None] * len(ctx.aliases)
        return None, None, *gradients([tensor for tensor, _ in given], ctx.aliases, [signal for _, signal in given])


def apart(
    signals: Sequence[Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Tensor, ...], tuple[Any, ...], dict[str, Any]]:
    """A separate alias of each signal, as one may be computed from another, and the arguments with these aliases."""
    aliases = {id(signal): signal.view_as(signal) for signal in signals}
    return tuple(aliases.values()), *with_tensors(args, kwargs, aliases)


def gradients(computed: list[Tensor], inputs: Sequence[Tensor], signals: list[Tensor]) -> tuple[Tensor | None, ...]:
    """The signals at `inputs` for the signals at tensors computed from them, inside a backward pass."""
    keep: dict[str, Any] = {"retain_graph": True, "create_graph": torch.is_grad_enabled()}
    return torch.autograd.grad(computed, tuple(inputs), signals, allow_unused=True, **keep)
