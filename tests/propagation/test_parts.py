"""Operations that the engine computes in their parts have the gradient of the whole, and keep their books under LRP."""

from collections.abc import Callable

import pytest
import torch
from support.helpers import assert_close
from torch import Tensor, nn
from torch.nn import functional as F

from plugin.attr import LRPTranspose, ModifiedBackprop

OTHER = torch.randn(3, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
INFINITE = float("inf")
# Functions (N, 6) -> (N, ...).
WHOLE: dict[str, Callable[[Tensor], Tensor]] = {
    **{f"pairwise_distance {p}": lambda x, p=p: F.pairwise_distance(x, OTHER, p) for p in (1, 2, 3, INFINITE)},  # type: ignore[misc]
    **{f"cdist {p}": lambda x, p=p: torch.cdist(x, OTHER, p) for p in (1, 2, 3, INFINITE)},  # type: ignore[misc]
    "distance of two signals": lambda x: F.pairwise_distance(x, x.roll(1, 0)),
    "distances of two signals": lambda x: torch.cdist(x, x.roll(1, 0)),
    "dist": lambda x: torch.dist(x, OTHER).expand(3),
    "pdist": F.pdist,
    "pdist 1": lambda x: F.pdist(x, 1),
    "kernel of a distance": lambda x: torch.exp(-(torch.cdist(x, OTHER) ** 2)),
    "hypot": lambda x: torch.hypot(x, OTHER),
    "cosine_similarity": lambda x: F.cosine_similarity(x, OTHER),
    "local_response_norm": lambda x: F.local_response_norm(x[:, :, None], 3),
    "glu": F.glu,
    "softsign": F.softsign,
    "mse_loss": lambda x: F.mse_loss(x, OTHER, reduction="none"),
    "l1_loss": lambda x: F.l1_loss(x, OTHER, reduction="none"),
    "lp_pool": lambda x: F.lp_pool1d(x[:, None].abs() + 0.1, 3, 2),
    "lerp": lambda x: torch.lerp(x, OTHER, OTHER.sigmoid()),
    "addcdiv": lambda x: torch.addcdiv(x, x, OTHER.exp()),
    "the larger of a signal and a constant": lambda x: torch.stack([x, OTHER]).amax(0),
    "length of a signal and a constant": lambda x: torch.cat([x[None], OTHER[None]]).norm(dim=0),
}


class Measured(nn.Module):
    """A function after a layer."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.layer, self.function = nn.Linear(6, 6), function

    def forward(self, inputs: Tensor) -> Tensor:
        result = self.function(self.layer(inputs))
        return result.flatten(1) if result.ndim > 1 else result


def first(output: Tensor) -> Tensor:
    return output[:, 0] if output.ndim > 1 else output


@pytest.mark.parametrize("name", WHOLE)
def test_the_gradient_is_that_of_the_whole(name) -> None:
    torch.manual_seed(0)
    model, inputs = Measured(WHOLE[name]).double(), torch.randn(3, 6, dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(first(model(inputs)).sum(), inputs)
    assert_close(ModifiedBackprop(model, "gradient").attribute(inputs, target=first), expected, 1e-12)


@pytest.mark.parametrize("name", [name for name in WHOLE if name != "kernel of a distance"])
def test_the_ledger_closes(name) -> None:
    torch.manual_seed(0)
    model, inputs = Measured(WHOLE[name]).double(), torch.randn(3, 6, dtype=torch.float64)
    ledger = LRPTranspose(model, "epsilon").ledger(inputs, first)
    assert ledger.input + ledger.absorbed == pytest.approx(ledger.output, abs=1e-8)
