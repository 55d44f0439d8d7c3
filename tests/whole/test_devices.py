"""Which device is chosen; networks are copied to it, not moved; PyTorch's default device does not matter."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from plugin.attr import DeconvNet, GuidedBackprop, LRPTranspose, NeuronDeconvolution
from plugin.devices import available, choose_device, on_device
from plugin.errors import OptionError, OptionTypeError
from plugin.seeds import seeded, set_global_states


@pytest.mark.parametrize(
    ("cuda", "mps", "rank", "expected", "names"),
    [
        (2, True, None, "cuda:0", ("cuda:0", "cuda:1", "mps", "cpu")),
        (2, False, "1", "cuda:1", ("cuda:0", "cuda:1", "cpu")),
        (1, False, "3", "cuda:0", ("cuda:0", "cpu")),  # the launcher shows each process its own GPU only
        (0, True, None, "mps", ("mps", "cpu")),
        (0, False, "1", "cpu", ("cpu",)),
    ],
)
def test_the_best_device_there_is(
    cuda: int, mps: bool, rank: str | None, expected: str, names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: cuda > 0)
    monkeypatch.setattr("torch.cuda.device_count", lambda: cuda)
    monkeypatch.setattr("torch.backends.mps.is_available", lambda: mps)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    if rank is not None:
        monkeypatch.setenv("LOCAL_RANK", rank)
    assert choose_device() == torch.device(expected)
    assert available() == names
    for name in names:
        assert choose_device(name) == choose_device(torch.device(name)) == torch.device(name)
    for missing in {"cuda:0", "cuda:5", "mps"} - set(names):
        with pytest.raises(OptionError, match=f"device '{missing}' is not there: this PyTorch sees {names[0]}"):
            choose_device(missing)


def test_a_rank_that_is_no_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setenv("LOCAL_RANK", "first")
    with pytest.raises(OptionError, match="LOCAL_RANK=first: set it to the number of the process on its machine"):
        choose_device()


@pytest.mark.parametrize("kind", ["cuda", "mps", "xpu"])
def test_generators_of_a_device_are_as_before(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made, module, set_states = torch.Generator, getattr(torch, kind), []
    monkeypatch.setattr(torch, "Generator", lambda device="cpu": made())
    monkeypatch.setattr(module, "get_rng_state", lambda device: made().manual_seed(7).get_state())
    monkeypatch.setattr(module, "set_rng_state", lambda state, device: set_states.append(state))
    for name in ("cuda", "xpu"):  # which nothing would restore
        monkeypatch.setattr(f"torch.{name}.manual_seed_all", lambda seed: pytest.fail("other devices are seeded"))
    before = torch.get_rng_state()
    with seeded(3, torch.device(kind)):
        drawn = torch.rand(5)
    assert torch.equal(drawn, torch.rand(5, generator=made().manual_seed(3)))
    assert torch.equal(torch.get_rng_state(), before)
    assert len(set_states) == 2
    for seed, state in zip((3, 7), set_states, strict=True):
        assert torch.equal(state, made().manual_seed(seed).get_state())
    set_global_states([before, torch.zeros(16, dtype=torch.uint8)], torch.device(kind))
    assert len(set_states) == 2, "the state of another kind of device is left out"


def test_what_is_no_device() -> None:
    with pytest.raises(OptionError, match="there is no device 'gpu'"):
        choose_device("gpu")
    with pytest.raises(OptionTypeError, match="the device 3 is a int"):
        choose_device(3)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["meta", "xla", "xpu", "hpu", "vulkan", "lazy", "privateuseone"])
def test_a_device_that_computes_no_values_is_refused(name: str) -> None:
    with pytest.raises(OptionError, match=f"device '{name}' is not there: this PyTorch sees .*cpu, give one of these"):
        choose_device(name)


def test_a_network_is_copied_where_it_is_wanted() -> None:
    network = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    assert on_device(network, torch.device("cpu")) is network
    copied = on_device(network, torch.device("meta"))
    assert copied is not network
    assert {value.device.type for value in copied.state_dict().values()} == {"meta"}
    assert {value.device.type for value in network.state_dict().values()} == {"cpu"}


class Pooled(nn.Module):
    """Operations whose readings need numbers of our own: a ReLU by hand, windows, joined values, an einsum."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.pool, self.next = nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), nn.Conv2d(4, 4, 2)
        self.last = nn.Linear(8, 5)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.conv(images)
        hidden = self.next(self.pool(hidden * (hidden > 0))).amax((2, 3))
        hidden = torch.cat([hidden, hidden.flip(1)], 1)
        return torch.einsum("ni,oi->no", hidden, self.last.weight) + self.last.bias


CALLS: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {
    "guided": lambda model, images: GuidedBackprop(model).attribute(images, 2),
    "lrp": lambda model, images: LRPTranspose(model, "epsilon_gamma_box").attribute(images, 2),
    "ledger": lambda model, images: torch.tensor(LRPTranspose(model, "epsilon").ledger(images, 2).input, device="cpu"),
    "neuron": lambda model, images: NeuronDeconvolution(model, "conv").attribute(images, (1, 2, 2)),
    "no image": lambda model, images: DeconvNet(model, "next", images.shape[1:], "uniform").reconstruct([(1, 0, 1), 3]),
}


@pytest.mark.parametrize("name", CALLS)
def test_the_default_device_of_pytorch_does_not_matter(name: str) -> None:
    model, images = Pooled().eval(), torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.device("meta"):  # users of a GPU may have made it the default; here it has no values
        found = CALLS[name](model, images)
    torch.testing.assert_close(found, CALLS[name](model, images))
