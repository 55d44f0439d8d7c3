"""Pointwise arithmetic in blocks equals the same arithmetic at once, whatever the memory layout."""

import pytest
import torch

from plugin.kernels.blocks import BLOCK, in_blocks

LAYOUTS = {
    "contiguous": lambda x: x,
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "transposed": lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
    "with gaps": lambda x: torch.stack([x, x], -1)[..., 0],
    "expanded": lambda x: x[:1].expand_as(x),
}


@pytest.mark.parametrize("first", LAYOUTS)
@pytest.mark.parametrize("second", LAYOUTS)
@pytest.mark.parametrize("rows", [3, 67])
def test_equals_the_arithmetic_at_once(first, second, rows) -> None:
    calls = []

    def quotient(result: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> None:
        calls.append(a.numel())
        torch.add(b, 2, out=result)
        torch.div(a * b, result, out=result)

    random = torch.Generator().manual_seed(0)
    a, b = torch.rand(2, 4, 16, rows, 100, generator=random)
    a, b = LAYOUTS[first](a), LAYOUTS[second](b)
    result = in_blocks(quotient, a, b)
    assert torch.equal(result, a * b / (b + 2))
    in_one_order = first == second and first in ("contiguous", "channels last", "transposed")
    assert (len(calls) > 1) == (in_one_order and a.numel() >= 2 * BLOCK)
    assert sum(calls) == a.numel()
