"""Tensors that hooks save: a checkpoint is recognised also where PyTorch cannot tell which hooks are in use."""

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from plugin.attr import GuidedBackprop, LRPTranspose
from plugin.propagation import saving


class Checkpointed(nn.Module):
    """Two layers, of which the first is computed again in the backward pass."""

    def __init__(self, use_reentrant: bool | None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.use_reentrant = use_reentrant
        self.body, self.head = nn.Sequential(nn.Linear(5, 6), nn.ReLU()), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        if self.use_reentrant is None:
            return self.head(self.body(x))
        return self.head(checkpoint(self.body, x, use_reentrant=self.use_reentrant))


@pytest.fixture(params=[False, True], ids=["as it is", "before PyTorch 2.8"])
def pytorch(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param:
        monkeypatch.setattr(saving, "_top", None)


@pytest.mark.usefixtures("pytorch")
def test_a_checkpoint_is_recognised() -> None:
    seen: list[bool] = []

    def look(x: Tensor) -> Tensor:
        seen.append(saving.is_checkpointed())
        return x.relu()

    inputs = torch.ones(2, requires_grad=True)
    look(inputs)
    checkpoint(look, inputs, use_reentrant=False)
    assert seen == [False, True]


@pytest.mark.usefixtures("pytorch")
@pytest.mark.parametrize("method", [GuidedBackprop, LRPTranspose])
def test_a_checkpointed_model_has_the_same_map(method: type[GuidedBackprop] | type[LRPTranspose]) -> None:
    inputs = torch.randn(2, 5, generator=torch.Generator().manual_seed(1))
    expected = method(Checkpointed(None).eval()).attribute(inputs, 1)
    torch.testing.assert_close(method(Checkpointed(False).eval()).attribute(inputs, 1), expected)


def test_hooks_of_the_user_keep_operations_out_of_place() -> None:
    with torch.autograd.graph.save_on_cpu():
        assert saving.may_have_hooks()
