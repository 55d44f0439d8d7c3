"""The output of a network that is explained: its number, or the choice of one for each picture."""

import operator
from collections.abc import Sequence
from contextlib import suppress
from time import perf_counter
from typing import Any

import torch
from torch import Tensor


def checked_target(target: Any) -> str | int:
    """A target as `plugin.datasets.explain.Explain` takes it.

    Raises:
        ValueError: the target is neither "predicted" nor "label" nor a whole number, as of NumPy.
    """
    if isinstance(target, str) and target in ("predicted", "label"):
        return target
    if not isinstance(target, bool | Sequence):
        with suppress(TypeError):
            return operator.index(target)
    raise ValueError(f"unknown target {target!r}: choose 'predicted', 'label' or the number of an output")


class Selection:
    """Chooses the output to explain when the network has computed it, so that one forward pass is enough.

    Attributes:
        logits: the network's output `(N, classes)`.
        chosen: the number of the chosen output of each example, `(N,)`.
        finite: whether that output is a number, `(N,)`; others are left out, and the rest of the batch is explained.
        finished: the end of the forward pass, by `perf_counter`.
    """

    def __init__(self, target: str | int, labels: Sequence[int] | None) -> None:
        self.target, self.labels = target, labels

    def __call__(self, output: Tensor) -> Tensor:
        if output.ndim != 2:
            raise ValueError(f"its output has the shape {tuple(output.shape)}, and must have (N, classes)")
        self.logits = output.detach()
        self.chosen = self._choose(self.logits)
        if output.is_cuda:
            torch.cuda.synchronize(output.device)
        self.finished = perf_counter()
        selected = output.gather(1, self.chosen.unsqueeze(1)).squeeze(1)
        self.finite = selected.isfinite()
        return selected.where(self.finite, 0)

    def _choose(self, logits: Tensor) -> Tensor:
        if self.target == "predicted":
            return logits.argmax(1)
        numbers = [self.target] * len(logits) if isinstance(self.target, int) else self.labels
        chosen = torch.tensor(numbers, device=logits.device)
        outputs = logits.shape[1]
        wrong = next((number for number in chosen.tolist() if not 0 <= number < outputs), None)
        if wrong is not None:
            raise ValueError(f"target {wrong} is out of range: the network has {outputs} outputs")
        return chosen
