"""Networks that treat the rows of a batch together, take batches of one size, are compiled, or return no numbers."""

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from support.helpers import assert_unchanged, snapshot
from torch import Tensor, nn

from gan import CodeSpaceAM, ImageSpaceAM, PixelAM

SHAPE = (1, 8, 8)


class Applied(nn.Module):
    """A function of the output of a network."""

    def __init__(self, network: nn.Module, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.network, self.function = network, function

    def forward(self, inputs: Tensor) -> Tensor:
        return self.function(self.network(inputs))


def classifier(norm: bool = False) -> nn.Sequential:
    torch.manual_seed(0)
    middle = [nn.BatchNorm2d(4, track_running_stats=False)] if norm else []
    return nn.Sequential(nn.Conv2d(1, 4, 3), *middle, nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)).eval()


def generator(norm: bool = False) -> nn.Sequential:
    torch.manual_seed(1)
    middle = [nn.BatchNorm1d(64, track_running_stats=False)] if norm else []
    return nn.Sequential(nn.Linear(6, 64), *middle, nn.Unflatten(1, SHAPE), nn.Sigmoid()).eval()


MAXIMIZERS: dict[str, Callable[[nn.Module], Any]] = {
    "codes": lambda net: CodeSpaceAM(net, generator(), code_size=6),
    "pixels": lambda net: PixelAM(net, SHAPE),
    "fourier": lambda net: ImageSpaceAM(net, SHAPE),
}
TOGETHER: dict[str, Callable[[Tensor], Tensor]] = {
    "softmax over rows": lambda rows: rows.softmax(dim=0),
    "centred": lambda rows: rows - rows.mean(dim=0),
    "swapped": lambda rows: rows.flip(0),
    "the first for all": lambda rows: rows[:1].expand_as(rows),
}


@pytest.mark.parametrize("name", MAXIMIZERS)
@pytest.mark.parametrize("together", TOGETHER)
def test_a_classifier_that_mixes_rows_is_refused(name: str, together: str) -> None:
    network = Applied(classifier(), TOGETHER[together])
    with pytest.raises(ValueError, match="output of the Applied depends for one row of a batch on the others"):
        MAXIMIZERS[name](network)


@pytest.mark.parametrize("together", [*TOGETHER][1:])  # of images, whose values lie in [0, 1]
def test_a_generator_that_mixes_rows_is_refused(together: str) -> None:
    network = Applied(generator(), TOGETHER[together])
    with pytest.raises(ValueError, match="image that the Applied makes depends for one row of a batch on the others"):
        CodeSpaceAM(classifier(), network, code_size=6)


@pytest.mark.filterwarnings("ignore:.*did not reach stop_at")
def test_statistics_of_the_batch_are_refused_with_a_remedy_that_works() -> None:
    networks = classifier(norm=True), generator(norm=False)
    with pytest.raises(
        ValueError, match=r"pass lambda batch: torch\.cat\(\[network\(row\) for row in batch\.split\(1\)"
    ):
        CodeSpaceAM(*networks, code_size=6)
    with pytest.raises(ValueError, match="batch norm without running ones"):
        CodeSpaceAM(classifier(), generator(norm=True), code_size=6)
    before = snapshot(networks[0])
    am = CodeSpaceAM(lambda batch: torch.cat([networks[0](row) for row in batch.split(1)]), networks[1], code_size=6)
    both = am.maximize([0, 1], seeds=[3, 4], steps=5)
    for run in range(2):
        single = am.maximize([run], seeds=[3 + run], steps=5)
        torch.testing.assert_close(single.images[0], both.images[run])
        torch.testing.assert_close(networks[0](single.images)[0, run], single.scores[-1, 0])
    assert_unchanged(before, networks[0])


@pytest.mark.filterwarnings("ignore:.*did not reach stop_at")
@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
@pytest.mark.parametrize(("width", "classes"), [(50, 10), (63, 5), (5, 16)])
def test_the_place_of_a_run_in_a_batch_does_not_count(width: int, classes: int, kind: torch.dtype) -> None:
    """Kernels of linear layers of these sizes round rows by their place in the batch."""
    torch.manual_seed(0)
    layers = nn.Flatten(), nn.Linear(64, width), nn.Tanh(), nn.Linear(width, classes)
    network, drawing = nn.Sequential(*layers).to(kind).eval(), generator().to(kind)
    for am in (CodeSpaceAM(network, drawing, code_size=6), PixelAM(network, SHAPE)):
        batch = am.maximize(1, runs=6, steps=8)
        for run in range(6):
            single = am.maximize(1, runs=1, seed=run, steps=8)
            assert torch.equal(single.images[0], batch.images[run])
            assert torch.equal(single.scores[:, 0], batch.scores[:, run])


@pytest.mark.parametrize(
    ("size", "told"), [(1, "takes one .* at a time .*pass lambda batch"), (2, "for two .* not for")]
)
def test_programs_for_batches_of_one_size_are_refused(size: int, told: str) -> None:
    images, codes = torch.rand(size, *SHAPE), torch.randn(size, 6)
    with pytest.raises(ValueError, match=told):
        PixelAM(torch.export.export(classifier(), (images,)).module(), SHAPE)
    with pytest.raises(ValueError, match=told):
        CodeSpaceAM(classifier(), torch.export.export(generator(), (codes,)).module(), code_size=6)


@pytest.mark.filterwarnings("ignore:.*did not reach stop_at")
@pytest.mark.parametrize("layer", [None, "0", "_orig_mod.0"])
def test_a_compiled_network_is_run_as_it_was_written(layer: str | None) -> None:
    plain, compiled = classifier(), torch.compile(classifier(), backend="eager")
    if layer == "0":  # compiled in place
        compiled = classifier()
        compiled.compile(backend="eager")
    target = 1 if layer is None else (1, 2, 2)
    own = None if layer is None else "0"
    makers = PixelAM(plain, SHAPE, own), PixelAM(compiled, SHAPE, layer)
    expected, found = (maker.maximize(target, runs=2, steps=4) for maker in makers)
    assert torch.equal(found.images, expected.images)


@pytest.mark.parametrize("kind", [torch.int64, torch.complex64, torch.bool])
def test_outputs_that_are_no_real_numbers_are_refused(kind: torch.dtype) -> None:
    network = Applied(classifier(), lambda logits: logits.to(kind))
    with pytest.raises(ValueError, match=f"output of the Applied is of {kind}: values that can rise"):
        PixelAM(network, SHAPE)


@pytest.mark.parametrize("size", [np.int64(6), [6], (6,), torch.Size([6]), 6])
def test_the_size_of_a_code_in_any_form(size: Any) -> None:
    assert CodeSpaceAM(classifier(), generator(), code_size=size).code_shape == (6,)


@pytest.mark.parametrize("size", [6.0, "6", 0, (), (6, -1)])
def test_a_size_that_is_none_is_named(size: Any) -> None:
    with pytest.raises(ValueError, match=r"code_size=.* of the Sequential: give the length of its codes, or"):
        CodeSpaceAM(classifier(), generator(), code_size=size)


def test_what_a_generator_raises_is_told() -> None:
    def picky(codes: Tensor) -> Tensor:
        assert codes.shape[1] == 5, "five numbers"
        return operator.itemgetter("image")({})

    with pytest.raises(ValueError, match=r"picky does not take codes \(2, 6\) \(five numbers\): pass code_size="):
        CodeSpaceAM(classifier(), picky, code_size=6)
    with pytest.raises(ValueError, match=r"picky does not take codes \(2, 5\) \('image'\)"):
        CodeSpaceAM(classifier(), picky, code_size=5)
