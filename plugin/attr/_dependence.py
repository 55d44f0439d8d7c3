"""The search for the module in which the dependence on the inputs ends; it runs before an error reports it."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ..captum_api import additional_arguments, run_forward
from ..observing import describe
from ..propagation import Propagation


class _Watch:
    """Follows the inputs through the calls of modules.

    Attributes:
        lost: the innermost module that last received a tensor that depends on the inputs and returned none, and whether
            autograd was on there.
    """

    def __init__(self, leaves: tuple[Tensor, ...]) -> None:
        self.lost: tuple[nn.Module, bool] | None = None
        self._leaves = {id(leaf) for leaf in leaves}
        self._reaching: set[Any] = set()
        self._not_reaching: set[Any] = set()
        # For each call that is running: its module, whether it received the inputs, whether a call in it lost them.
        self._running: list[tuple[nn.Module, bool, bool]] = []

    def on_enter(self, module: nn.Module, args: Any) -> None:
        self._running.append((module, self.depends(args), False))

    def on_exit(self, module: nn.Module, output: Any) -> None:
        entered, received, lost_inside = self._running.pop()
        while entered is not module:  # calls that returned nothing, or raised
            entered, received, lost_inside = self._running.pop()
        lost = received and not self.depends(output)
        if lost and not lost_inside:
            self.lost = (module, torch.is_grad_enabled())
        if lost and self._running:
            self._running[-1] = (*self._running[-1][:2], True)

    def depends(self, value: Any) -> bool:
        """Whether a tensor in a nested value was computed from the inputs; parameters do not count."""
        return any(isinstance(item, Tensor) and self._reaches(item) for item in tree_leaves(value))

    def _reaches(self, tensor: Tensor) -> bool:
        if tensor.grad_fn is None:
            return id(tensor) in self._leaves
        met, found = {tensor.grad_fn}, [tensor.grad_fn]
        for node in found:  # the list grows meanwhile
            if node in self._reaching or id(getattr(node, "variable", None)) in self._leaves:
                self._reaching.add(tensor.grad_fn)
                return True
            above = {function for function, _ in node.next_functions if function is not None}
            above -= met | self._not_reaching
            met |= above
            found += above
        self._not_reaching |= met
        return False


def where_it_ends(model: nn.Module, leaves: tuple[Tensor, ...], additional_forward_args: Any) -> str:
    """A sentence that names the module where a model loses its inputs, or an empty one; the model runs once more.

    Args:
        model: the network, which is not changed.
        leaves: its inputs, with gradient where they can have one.
        additional_forward_args: its further arguments.
    """
    watch = _Watch(leaves)
    additional = additional_arguments(additional_forward_args)
    try:
        with Propagation(model, {}, additional, watch.on_enter, watch.on_exit) as propagation:
            copies = tuple(leaf.clone() for leaf in leaves)
            output = propagation.current(run_forward(model, copies, additional_forward_args))
    except Exception:  # any error of the model: another one is under way, and more important
        return ""
    if watch.depends(output):
        return (
            "The model's output depends on them. The value that the target selects does not, or, under LRP, only by "
            "way of gates and of softmax outputs held constant, which receive no relevance."
        )
    if watch.lost is None:
        return ""
    module, autograd = watch.lost
    if not autograd:
        return f"Autograd is off where layer {describe(model, module)} runs."
    return f"They get lost in {describe(model, module)}."
