"""The first call of an attribution that is compiled when it is first used decides the type of its inputs."""

import threading
from typing import Any

import pytest
import torch
from support.recorded import images, network
from torch import Tensor, nn

from plugin.attr import GuidedBackprop
from plugin.errors import InputTypeError


def test_threads_whose_first_inputs_differ_in_type_do_not_get_one_program() -> None:
    class TakesAny(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network()

        def forward(self, given: Tensor) -> Tensor:
            logits: Tensor = self.network(given.float())
            return logits

    compiled = GuidedBackprop(TakesAny().eval()).compile(mode="aten")
    both_are_here, lock = threading.Barrier(2), compiled._lock

    class Gate:
        """The lock, which opens when both threads have come as far as this."""

        def __enter__(self) -> None:
            both_are_here.wait(60)
            lock.acquire()

        def __exit__(self, *error: object) -> None:
            lock.release()

    compiled._lock = Gate()  # type: ignore[assignment]
    found: list[Any] = []

    def first_use(given: Tensor) -> None:
        try:
            found.append(compiled.attribute(given, 0).dtype)
        except Exception as error:
            found.append(error)

    kinds = (torch.float32, torch.float64)
    threads = [threading.Thread(target=first_use, args=(images(0).to(kind),), daemon=True) for kind in kinds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    answer, refusal = sorted(found, key=lambda each: isinstance(each, Exception))
    assert answer in kinds
    assert isinstance(refusal, InputTypeError), refusal
    assert f"compiled for inputs of {answer} on cpu" in str(refusal)


def test_inputs_that_cannot_be_compiled_for_decide_nothing() -> None:
    compiled = GuidedBackprop(network()).compile(mode="aten")
    with pytest.raises(RuntimeError, match="expected scalar type"):
        compiled.attribute(images(0).double(), 0)
    assert compiled.attribute(images(0), 0).dtype == torch.float32
