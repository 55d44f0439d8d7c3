"""The search for the module in which the first value arises that is not finite; it runs before an error reports it."""

from typing import Any

from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ..captum_api import additional_arguments, run_forward
from ..observing import describe
from ..propagation import Propagation

_REMEDY = "Look for a division by 0, a root or logarithm of a possible 0, and numbers too large for half precision"


class _Watch:
    """Follows the results of modules.

    Attributes:
        first: the first module that returned a value that is not finite.
    """

    first: nn.Module | None = None

    def on_exit(self, module: nn.Module, output: Any) -> None:
        if self.first is None and not all(map(_is_finite, tree_leaves(output))):
            self.first = module


def where_it_begins(model: nn.Module, leaves: tuple[Tensor, ...], additional_forward_args: Any) -> str:
    """Sentences that name the module where the first such value arises, and the remedy; the model runs once more.

    Args:
        model: the network, which is not changed.
        leaves: its inputs.
        additional_forward_args: its further arguments.
    """
    watch = _Watch()
    try:
        with Propagation(model, {}, additional_arguments(additional_forward_args), on_exit=watch.on_exit):
            run_forward(model, tuple(leaf.clone() for leaf in leaves), additional_forward_args)
    except Exception:  # any error of the model: another one is under way, and more important
        return f"{_REMEDY}."
    if watch.first is None:
        return f"{_REMEDY}."
    layer = describe(model, watch.first)
    tensors = [*watch.first.named_parameters(recurse=False), *watch.first.named_buffers(recurse=False)]
    for name, tensor in tensors:
        if not _is_finite(tensor):
            return f"{name} of layer {layer} holds such values: load its weights again."
    return f"The first one is computed in layer {layer}. {_REMEDY} there."


def _is_finite(value: Any) -> bool:
    return not isinstance(value, Tensor) or bool(value.isfinite().all())
