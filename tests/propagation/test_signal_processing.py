"""Spectra, energies, sparse matrices and quantisation inside a network, against the same network written densely."""

from collections.abc import Callable

import pytest
import torch
from support.graphs import FORMS, PRODUCTS, GraphConvolution
from torch import Tensor, nn
from torch.nn import functional as F

from plugin.attr import Deconvolution, GuidedBackprop, LRPTranspose
from plugin.errors import NoRuleError
from plugin.rules import Composite, Epsilon

IMAGES = torch.rand((2, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
WAVES = torch.randn((2, 96), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
TARGET = 1
Compute = Callable[["Net", Tensor], Tensor]


class Net(nn.Module):
    """A convolution, a computation, and a linear layer."""

    def __init__(self, compute: Compute) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convolution, self.head, self.compute = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 3), compute
        self.register_buffer("kernel", torch.randn(4, 8, 5, 2))
        self.register_buffer("mixing", torch.randn(4, 4, 3, 3, 2))
        self.exponent = nn.Parameter(torch.tensor([3.0]))
        self.double().eval()

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.compute(self, F.relu(self.convolution(images)))
        logits: Tensor = self.head(hidden.mean((2, 3)) if hidden.ndim == 4 else hidden)
        return logits


def dense(operation: Callable[[Tensor], Tensor], shape: torch.Size) -> Tensor:
    """The matrix of a linear map of `shape`."""
    unit = torch.eye(shape.numel(), dtype=torch.float64).view(-1, *shape)
    return operation(unit).flatten(1)


def by_matrix(operation: Callable[[Net, Tensor], Tensor]) -> Compute:
    """The same linear map as one product with a constant matrix."""

    def compute(net: Net, hidden: Tensor) -> Tensor:
        matrix = dense(lambda unit: operation(net, unit), hidden.shape[1:])
        return (hidden.flatten(1) @ matrix.detach()).view(len(hidden), 4, 8, 8)

    return compute


def filtered(net: Net, hidden: Tensor) -> Tensor:
    """A global filter (GFNet): a product with a learned kernel at each frequency."""
    spectrum = torch.fft.rfft2(hidden, norm="ortho") * torch.view_as_complex(net.kernel)
    return torch.fft.irfft2(spectrum, s=(8, 8), norm="ortho")


def mixed(net: Net, hidden: Tensor) -> Tensor:
    """A Fourier neural operator: channels are mixed at each of the lowest frequencies."""
    low = torch.fft.rfft2(hidden)[:, :, :3, :3]
    return torch.fft.irfft2(torch.einsum("nixy,ioxy->noxy", low, torch.view_as_complex(net.mixing)), s=(8, 8))


def assigned(net: Net, hidden: Tensor) -> Tensor:
    """The same, where the other frequencies are zeros into which is written."""
    spectrum = torch.zeros(len(hidden), 4, 8, 5, dtype=torch.complex128)
    low = torch.fft.rfft2(hidden)[:, :, :3, :3]
    spectrum[:, :, :3, :3] = torch.einsum("nixy,ioxy->noxy", low, torch.view_as_complex(net.mixing))
    return torch.fft.irfft2(spectrum, s=(8, 8))


def real_part(net: Net, hidden: Tensor) -> Tensor:
    return torch.fft.fft2(hidden).real


def of_parts(net: Net, hidden: Tensor) -> Tensor:
    return torch.view_as_real(torch.fft.fft2(hidden)).sum(-1)


# Of the map as a matrix LRP-0 is known; between two ReLUs guided backprop and deconvnet see them too.
@pytest.mark.parametrize("operation", [filtered, mixed, assigned, real_part, of_parts])
@pytest.mark.parametrize("last", [lambda hidden: hidden, F.relu], ids=["linear", "relu"])
def test_linear_maps_by_their_spectrum(operation, last) -> None:
    network = Net(lambda net, hidden: last(operation(net, hidden)))
    reference = Net(lambda net, hidden: last(by_matrix(operation)(net, hidden)))
    for attribution in (GuidedBackprop, Deconvolution):
        expected = attribution(reference).attribute(IMAGES, TARGET)
        torch.testing.assert_close(attribution(network).attribute(IMAGES, TARGET), expected, rtol=1e-8, atol=1e-12)
    rules = Composite([("convolution", Epsilon(0.1))], default=Epsilon(0.0))
    expected = LRPTranspose(reference, rules).attribute(IMAGES, TARGET)
    found = LRPTranspose(network, rules).attribute(IMAGES, TARGET)
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-12)
    assert expected.any()


def closes(network: nn.Module, inputs: Tensor) -> bool:
    """Whether the relevance at the input and the relevance kept above it add up to the output."""
    ledger = LRPTranspose(network, "epsilon_plus").ledger(inputs, TARGET)
    return abs(ledger.input + ledger.absorbed - ledger.output) < 1e-9 * max(1.0, abs(ledger.output))


class Spectrogram(nn.Module):
    """A waveform `(N, samples)` to the energies that a convolution reads."""

    def __init__(self, energies: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convolution, self.head, self.energies = nn.Conv2d(1, 4, 3), nn.Linear(4, 3), energies
        self.register_buffer("window", torch.hann_window(16))
        self.double().eval()

    def forward(self, waves: Tensor) -> Tensor:
        spectrum = torch.stft(waves, 16, window=self.window, return_complex=True)
        logits: Tensor = self.head(F.relu(self.convolution(self.energies(spectrum)[:, None])).mean((2, 3)))
        return logits


MEL = torch.rand((6, 9), generator=torch.Generator().manual_seed(2), dtype=torch.float64)
ENERGIES: dict[str, Callable[[Tensor], Tensor]] = {
    "magnitude": lambda z: z.abs(),
    "power": lambda z: z.abs().pow(2),
    "power by its parts": lambda z: z.real.square() + z.imag**2,
    "magnitude by its parts": lambda z: (torch.view_as_real(z).pow(2).sum(-1) + 1e-8).sqrt(),
    "log of mel energies": lambda z: torch.log(MEL @ z.abs().pow(2) + 1e-6),
    "log1p of mel energies": lambda z: torch.log1p(MEL @ z.abs().pow(2)),
    "decibels": lambda z: 10 * torch.log10((MEL @ z.abs().pow(2)).clamp(min=1e-10)),
}


@pytest.mark.parametrize("name", ENERGIES)
def test_spectrogram_in_front_of_a_network(name) -> None:
    network = Spectrogram(ENERGIES[name])
    assert closes(network, WAVES)
    guided = GuidedBackprop(network).attribute(WAVES, TARGET)
    assert guided.shape == WAVES.shape
    assert guided.isfinite().all()
    assert guided.any()


SAME_ENERGIES: dict[str, Callable[[Tensor], Tensor]] = {
    "(z z*).real": lambda z: (z * z.conj()).real,
    "|z| ** 2": lambda z: z.abs().pow(2),
    "|z| * |z|": lambda z: z.abs() * z.abs(),
    "re ** 2 + im ** 2": lambda z: z.real.square() + z.imag**2,
    "sum of squares": lambda z: torch.view_as_real(z).pow(2).sum(-1),
    "hypot ** 2": lambda z: torch.hypot(z.real, z.imag).square(),
}


@pytest.mark.parametrize("name", SAME_ENERGIES)
@pytest.mark.parametrize("method", [GuidedBackprop, Deconvolution])
def test_the_logarithm_of_an_energy_is_no_activation_in_any_spelling(method, name) -> None:
    def maps(energy: Callable[[Tensor], Tensor]) -> Tensor:
        return method(Spectrogram(lambda z: torch.log(energy(z) + 1e-3))).attribute(WAVES, TARGET)

    torch.testing.assert_close(maps(SAME_ENERGIES[name]), maps(SAME_ENERGIES["sum of squares"]))


def test_phase_is_refused_with_its_name() -> None:
    with pytest.raises(NoRuleError, match="angle in the"):
        LRPTranspose(Spectrogram(torch.angle)).attribute(WAVES, TARGET)


@pytest.mark.filterwarnings("ignore:Sparse CSR:UserWarning")
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", PRODUCTS)
def test_sparse_adjacency(name, form) -> None:
    adjacency = torch.rand((6, 6), generator=torch.Generator().manual_seed(2), dtype=torch.float64).softmax(1)
    nodes = torch.rand((6, 5), generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    sparse = GraphConvolution(PRODUCTS[name], FORMS[form](adjacency))
    reference = GraphConvolution(torch.matmul, adjacency)
    for method in (GuidedBackprop, Deconvolution, lambda model: LRPTranspose(model, "lrp_0")):
        expected = method(reference).attribute(nodes, TARGET)
        torch.testing.assert_close(method(sparse).attribute(nodes, TARGET), expected, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("exponent", [3, 2.5, "learned"])
def test_generalised_mean_pooling_passes_relevance_by_powers(exponent) -> None:
    """R_i = R x_i^p / sum_j x_j^p, for (mean x^p)^(1 / p)."""

    def pooled(net: Net, hidden: Tensor) -> Tensor:
        power = net.exponent if exponent == "learned" else exponent
        return hidden.clamp(min=1e-6).pow(power).mean((2, 3)).pow(1.0 / power)

    network = Net(pooled)
    power = 3.0 if exponent == "learned" else exponent
    hidden = F.relu(network.convolution(IMAGES)).detach()
    pooling = hidden.clamp(min=1e-6).pow(power).mean((2, 3)).pow(1 / power)
    relevance = pooling * network.head.weight[TARGET]
    shares = hidden.pow(power) / hidden.pow(power).sum((2, 3), keepdim=True)
    expected = Net(lambda net, values: values.mean((2, 3)))
    leaf = IMAGES.clone().requires_grad_()
    values = F.relu(expected.convolution(leaf))
    by_hand = torch.autograd.grad(
        values, leaf, (relevance[..., None, None] * shares / values.clamp(min=1e-12)).detach()
    )
    found = LRPTranspose(network, "lrp_0").attribute(IMAGES, TARGET)
    torch.testing.assert_close(found, IMAGES * by_hand[0], rtol=1e-4, atol=1e-6)
    assert closes(network, IMAGES)


# Functions of a mean square, and of a mean of values that may all be 0.
OF_MEANS: dict[str, Callable[[Tensor], Tensor]] = {
    "sqrt": torch.sqrt,
    "** 0.5": lambda mean: mean**0.5,
    "sqrt(+ eps)": lambda mean: (mean + 1e-2).sqrt(),
    "log1p": torch.log1p,
    "log(+ eps)": lambda mean: (mean + 1e-6).log(),
    "tanh": torch.tanh,
    "relu": lambda mean: F.relu(mean - 0.1),
    "square": torch.square,
    "1 - ": lambda mean: 1 - mean,
}


@pytest.mark.parametrize("squared", [True, False], ids=["of squares", "of values"])
@pytest.mark.parametrize("name", OF_MEANS)
def test_function_of_a_mean_keeps_account(name, squared) -> None:
    def compute(net: Net, hidden: Tensor) -> Tensor:
        hidden = F.relu(
            hidden - torch.tensor([0.0, 0.0, 0.0, 99.0], dtype=hidden.dtype).view(1, 4, 1, 1)
        )  # one mean is 0
        return OF_MEANS[name]((hidden.square() if squared else hidden).mean((2, 3)))

    assert closes(Net(compute), IMAGES)


@pytest.mark.parametrize("function", [lambda mean: 1 / (1 + mean), torch.rsqrt, lambda mean: torch.exp(-mean)])
def test_function_of_a_mean_square_that_is_no_share_of_it_is_refused(function) -> None:
    with pytest.raises(NoRuleError, match="has no LRP rule"):
        LRPTranspose(Net(lambda net, hidden: function(hidden.square().mean((2, 3))))).attribute(IMAGES, TARGET)


def test_rounding_of_quantisation_aware_training_is_a_constant() -> None:
    def rounded(net: Net, hidden: Tensor) -> Tensor:
        return torch.fake_quantize_per_tensor_affine(hidden, 0.05, 0, -128, 127)

    def added(net: Net, hidden: Tensor) -> Tensor:
        return hidden + (rounded(net, hidden) - hidden).detach()

    for attribution in (GuidedBackprop, Deconvolution, LRPTranspose):
        expected = attribution(Net(added)).attribute(IMAGES, TARGET)
        torch.testing.assert_close(attribution(Net(rounded)).attribute(IMAGES, TARGET), expected)
    assert closes(Net(rounded), IMAGES)


@pytest.mark.parametrize("power", [2, 3])
def test_power_average_pooling_is_its_formula(power) -> None:
    network = Net(lambda net, hidden: F.lp_pool2d(hidden, power, 4))
    reference = Net(lambda net, hidden: (F.avg_pool2d(hidden**power, 4) * 16) ** (1 / power))
    for attribution in (GuidedBackprop, Deconvolution, LRPTranspose):
        expected = attribution(reference).attribute(IMAGES, TARGET)
        torch.testing.assert_close(attribution(network).attribute(IMAGES, TARGET), expected, rtol=1e-8, atol=1e-12)
    assert closes(network, IMAGES)
