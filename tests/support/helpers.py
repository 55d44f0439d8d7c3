"""Small networks, a comparison, and a snapshot that shows any change of a model."""

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn


def slow(*values: object) -> Any:
    """Parameters of a test that `make test-all` runs, and `make test` does not."""
    return pytest.param(*values, marks=pytest.mark.slow)


class ActivationNet(nn.Module):
    """Two convolutions and a linear layer; `activate(index, x)` is called after each of the first two."""

    def __init__(self, activate: Callable[[int, Tensor], Tensor], modules: list[nn.Module] | None = None) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 8, 3, stride=2)
        self.head = nn.Linear(8, 5)
        self.activations = nn.ModuleList(modules or [])
        self.activate = activate

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.activate(0, self.conv1(images))
        hidden = self.activate(1, self.conv2(hidden))
        return self.head(hidden.mean(dim=(2, 3)))


class Between(nn.Module):
    """A function between two layers."""

    def __init__(self, first: nn.Module, between: Callable[[Tensor], Tensor], last: nn.Module) -> None:
        super().__init__()
        self.first, self.between, self.last = first, between, last

    def forward(self, inputs: Tensor) -> Tensor:
        return self.last(self.between(self.first(inputs)))


def with_module(*modules: nn.Module) -> ActivationNet:
    """The network with one activation module that is reused, or two of its own."""
    net = ActivationNet(lambda index, x: modules[index % len(modules)](x), list(modules))
    return net.eval()


def assert_close(found: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    """Of the same shape, and apart by no more than a share of the largest value."""
    assert found.shape == expected.shape
    assert float((found - expected).abs().max()) <= tolerance * float(expected.abs().max())


def snapshot(model: nn.Module) -> dict[str, Any]:
    """Everything an attribution might have changed: values, versions, flags, hooks and attributes of every module."""
    state: dict[str, Any] = {}
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        state[name] = (tensor.clone(), tensor._version, tensor.requires_grad, tensor.grad, id(tensor), dir(tensor))
    for name, module in model.named_modules():
        hooks = {key: list(value) for key, value in vars(module).items() if isinstance(value, dict) and "hook" in key}
        state[f"module {name}"] = (sorted(vars(module)), hooks, module.training)
    shared = vars(torch.nn.modules.module)
    state["global hooks"] = {key: list(shared[key]) for key in shared if key.startswith("_global_") and "hooks" in key}
    return state


def assert_unchanged(before: dict[str, Any], model: nn.Module) -> None:
    """Fail with the name of the first thing that changed."""
    after = snapshot(model)
    assert before.keys() == after.keys()
    for name, (was, now) in {name: (before[name], after[name]) for name in before}.items():
        if isinstance(was, tuple) and isinstance(was[0], Tensor):
            assert torch.equal(was[0], now[0]), f"the values of {name} changed"
            was, now = was[1:], now[1:]
        assert was == now, f"{name} changed"


def run_and_be_killed(function: Callable[..., Any], arguments: dict[str, Any], write: int) -> None:
    """Call a function, and be killed when it is about to touch a file of its argument `out` for the n-th time.

    Counted are files that are opened under a temporary name, and renamed. It must run in a process of its own; with
    `write` 0 the function is left to return.
    """
    left = write

    def count(event: str, details: tuple[Any, ...]) -> None:
        nonlocal left
        if event in ("open", "os.rename") and arguments["out"].name in str(details[0]):
            left -= event == "os.rename" or str(details[0]).endswith(".partial")
            if write and left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    function(**arguments)


def error_between(found: Tensor, expected: Tensor) -> float:
    """The largest difference, as a share of the largest value; infinite for another shape, or for NaN."""
    if found.shape != expected.shape or not bool(found.isfinite().all()):
        return float("inf")
    return float((found - expected).abs().max() / expected.abs().max().clamp_min(1e-30))


Method = Callable[[nn.Module, Any], Tensor]


def assert_same_maps(
    methods: dict[str, Method], model: nn.Module, inputs: Any, expected: dict[str, Tensor], tolerance: float = 1e-9
) -> None:
    """Fail with every method whose map of `model` is not the expected one: how far it is off, or why there is none."""
    differences = []
    for name, method in methods.items():
        try:
            error = error_between(method(model, inputs), expected[name])
        except Exception as problem:  # one method's refusal must not hide what the others find
            differences.append(f"{name}: {type(problem).__name__}: {str(problem)[:160]}")
            continue
        if not error <= tolerance:
            differences.append(f"{name}: {error:.1e}")
    if differences:  # no assertion of pytest's, which would print all tensors
        raise AssertionError("\n".join(differences))
