"""Activation maximisation with generators and classifiers as people bring them."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gan import CodeSpaceAM, PixelAM, load_classifier

CLASSES, CODE = 4, 6


class Generator(nn.Module):
    """Codes to images (1, 8, 8): a quarter of the image for each of the first four entries of the code."""

    code_size = CODE

    def forward(self, codes: Tensor) -> Tensor:
        quarters = torch.sigmoid(2 * codes[:, :4]).view(-1, 1, 2, 2)
        return quarters.repeat_interleave(4, 2).repeat_interleave(4, 3)


class Convolutional(nn.Module):
    """PyTorch's DCGAN tutorial: codes (N, nz, 1, 1), images in [-1, 1]."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.main = nn.Sequential(
            nn.ConvTranspose2d(CODE, 8, 4, 1, 0, bias=False), nn.BatchNorm2d(8), nn.ReLU(True),
            nn.ConvTranspose2d(8, 1, 4, 2, 1, bias=False), nn.Tanh(),
        )  # fmt: skip
        with torch.no_grad():
            self.main[3].weight.mul_(20)

    def forward(self, codes: Tensor) -> Tensor:
        return self.main(codes)


def logits() -> nn.Linear:
    """Class k is the brightness of the k-th quarter against that of the others."""
    layer = nn.Linear(64, CLASSES)
    quarters = torch.arange(4).view(1, 1, 2, 2).repeat_interleave(4, 2).repeat_interleave(4, 3).flatten()
    with torch.no_grad():
        layer.weight.copy_(torch.stack([torch.where(quarters == k, 1.0, -0.4) for k in range(CLASSES)]))
        layer.bias.zero_()
    return layer


class View(nn.Module):
    """`x.view(-1, n)` after a convolution, as in PyTorch's tutorials."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.head = nn.Conv2d(1, 1, 3, padding=1, bias=False), logits()
        nn.init.dirac_(self.conv.weight)
        self.more = nn.Conv2d(1, 3, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        hidden = self.conv(images).relu()
        unused = self.more(hidden).view(-1, 3 * 64)
        return self.head(hidden.view(-1, 64)) + 0 * unused.sum(1, keepdim=True)


class Tokens(nn.Module):
    """Patches as tokens, attention, a layer norm."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.patches, self.norm = nn.Conv2d(1, 8, 4, 4), nn.LayerNorm(8)
        self.attention, self.head = nn.MultiheadAttention(8, 2, batch_first=True), nn.Linear(8, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.patches(images).flatten(2).mT
        tokens = self.norm(tokens + self.attention(tokens, tokens, tokens)[0])
        return 60 * self.head(tokens[:, 0] * torch.tensor([1.0, 2, -1, 1, -2, 1, 3, 1]))


@dataclass
class Answer:
    logits: Tensor
    hidden: Tensor


class Returning(nn.Module):
    """Logits in the containers that some libraries return."""

    def __init__(self, wrap: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.head, self.wrap = logits(), wrap

    def forward(self, images: Tensor) -> Any:
        return self.wrap(self.head(images.flatten(1)))


def network(*last: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), logits(), *last).eval()


def smoothed() -> nn.Module:
    """Never surer than about 0.9, as after training with smoothed labels."""

    class Smoothed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = network()

        def forward(self, images: Tensor) -> Tensor:
            return 1.8 * torch.tanh(self.body(images) / 8)

    return Smoothed()


HEADS = {
    "logits": (network(), "logits"),
    "softmax": (network(nn.Softmax(1)), "softmax"),
    "log-softmax": (network(nn.LogSoftmax(1)), "log-softmax"),
    "sigmoid": (network(nn.Sigmoid()), "sigmoid"),
    "sigmoid in forward": (Returning(torch.sigmoid), "sigmoid"),
    "softmax, then squeezed": (Returning(lambda values: values.softmax(1).unsqueeze(2).squeeze()), "softmax"),
    "view": (View().eval(), "logits"),
    "half": (network().half(), "logits"),
    "bfloat16": (network().bfloat16(), "logits"),
    "double": (network().double(), "logits"),
    "object": (Returning(lambda values: Answer(values, values)), "logits"),
    "dictionary": (Returning(lambda values: {"loss": None, "logits": values}), "logits"),
    "tuple": (Returning(lambda values: (values, values)), "logits"),
    "function": (network().forward, "logits"),
    "tokens": (Tokens().eval(), "logits"),
    "gelu": (network(nn.Linear(4, 4), nn.GELU(), nn.Linear(4, 4)), "logits"),
}


@pytest.mark.filterwarnings("ignore:.*did not reach stop_at")
@pytest.mark.parametrize("name", HEADS)
def test_every_head_is_climbed_and_its_probability_told(name: str) -> None:
    classifier, head = HEADS[name]
    am = CodeSpaceAM(classifier, Generator())
    assert am.activations.head == head
    result = am.maximize([0, 1, 2, 3], seeds=range(4), steps=40, stop_at=0.9)
    assert result.probabilities is not None
    assert torch.equal(result.reached, result.probabilities >= 0.9)
    assert bool((result.scores[-1] >= result.scores[0]).all())
    if name not in ("gelu", "tokens"):
        assert result.reached.all()


def test_a_sigmoid_tells_its_own_probability() -> None:
    sigmoid = network(nn.Sigmoid())
    result = CodeSpaceAM(sigmoid, Generator()).maximize(1, runs=2, steps=60, least_steps=60)
    assert result.probabilities is not None
    torch.testing.assert_close(result.probabilities, sigmoid(result.images)[:, 1])
    assert result.probabilities.min() > 0.999
    plain = CodeSpaceAM(network(), Generator()).maximize(1, runs=2, steps=60, least_steps=60)
    torch.testing.assert_close(result.scores[-1], plain.scores[-1].sigmoid(), atol=1e-3, rtol=0)


@pytest.mark.parametrize("squeeze", [True, False])
@pytest.mark.parametrize("sigmoid", [True, False])
def test_a_single_output_is_a_class(squeeze: bool, sigmoid: bool) -> None:
    class One(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(64, 1)
            nn.init.constant_(self.head.weight, 0.3)

        def forward(self, images: Tensor) -> Tensor:
            values = self.head(images.flatten(1) - 0.5)
            values = values.sigmoid() if sigmoid else values
            return values.squeeze(1) if squeeze else values

    classifier = One()
    result = CodeSpaceAM(classifier, Generator()).maximize(0, runs=3, steps=60)
    assert result.reached.all()
    assert result.probabilities is not None
    outputs = classifier(result.images).flatten()
    torch.testing.assert_close(result.probabilities, outputs.detach() if sigmoid else outputs.sigmoid().detach())


def test_doubtful_heads_are_told_and_can_be_given() -> None:
    doubtful = Returning(lambda values: 1 / (1 + torch.exp(-values)))
    with pytest.warns(UserWarning, match=r"outputs lie in \[0, 1\] and are taken as logits"):
        CodeSpaceAM(doubtful, Generator())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert CodeSpaceAM(doubtful, Generator(), head="sigmoid").maximize(0, runs=1, steps=60).reached.all()
        assert PixelAM(doubtful, (1, 8, 8), head="sigmoid").activations.head == "sigmoid"
    with pytest.raises(ValueError, match="unknown head 'tanh': choose one of logits"):
        CodeSpaceAM(doubtful, Generator(), head="tanh")


def test_an_output_that_is_not_one_row_per_image_is_named() -> None:
    with pytest.raises(ValueError, match=r"is \(8,?.*\) for 2 images: a tensor with one row per image"):
        CodeSpaceAM(Returning(lambda values: values.view(-1)), Generator())


# --- generators -------------------------------------------------------------------------------------------------------


def test_codes_with_two_more_axes_and_images_of_a_tanh() -> None:
    generator = Convolutional().eval()
    with pytest.warns(UserWarning, match=r"images lie in \[-.*taken as \[-1, 1\] and mapped to \[0, 1\].*image_range="):
        am = CodeSpaceAM(network(), generator, code_size=CODE)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        told = CodeSpaceAM(network(), generator, code_size=(CODE, 1, 1), image_range=(-1, 1))
    results = [each.maximize(2, runs=4, steps=10, stop_at=0.2) for each in (am, told)]
    for result in results:
        assert result.codes.shape == (4, CODE, 1, 1)
        assert 0 <= result.images.min() < result.images.max() <= 1
        torch.testing.assert_close(result.images, (generator(result.codes) + 1) / 2)
        torch.testing.assert_close(result.codes.flatten(1).norm(dim=1), torch.full((4,), CODE**0.5))
    assert torch.equal(results[0].codes, results[1].codes)
    single = told.maximize(2, seeds=[3], steps=10, stop_at=0.2)
    torch.testing.assert_close(single.codes[0], results[1].codes[3], atol=1e-4, rtol=0)
    wanted = (generator(torch.randn(1, CODE, 1, 1)) + 1) / 2
    assert told.invert(wanted).shape == (1, CODE, 1, 1)


@pytest.mark.parametrize(
    ("stretch", "told"),
    [(lambda x: 255 * x, "taken as [0, 255]"), (lambda x: 7 * x - 3, "used as they are"), (lambda x: x, "")],
)
def test_the_range_of_images_is_measured(stretch: Callable[[Tensor], Tensor], told: str) -> None:
    plain = Generator()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        am = CodeSpaceAM(network(), lambda codes: stretch(plain(codes)), code_size=CODE)
    assert [warning.category for warning in caught] == [UserWarning] * bool(told)
    if told:
        assert told in str(caught[0].message)
    if "255" in told:
        result, expected = (
            each.maximize(1, runs=2, steps=5, stop_at=1e-3) for each in (am, CodeSpaceAM(network(), plain))
        )
        torch.testing.assert_close(result.images, expected.images, atol=1e-5, rtol=0)


def test_generators_in_half_precision_and_of_objects() -> None:
    @dataclass
    class Decoded:
        sample: Tensor

    class Half(nn.Module):
        code_size = CODE

        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(1)
            self.linear = nn.Linear(CODE, 64).half()

        def forward(self, codes: Tensor) -> Decoded:
            return Decoded(self.linear(codes).sigmoid().view(-1, 1, 8, 8))

    result = CodeSpaceAM(network(), Half()).maximize(0, runs=2, steps=5, stop_at=1e-3)
    assert result.images.dtype == result.codes.dtype == torch.float32


def test_a_generator_that_fails_is_named() -> None:
    with pytest.raises(ValueError, match="makes images with NaN"):
        CodeSpaceAM(network(), lambda codes: Generator()(codes) / 0 * 0, code_size=CODE)
    with pytest.raises(ValueError, match=r"image_range=\(1, 0\)"):
        CodeSpaceAM(network(), Generator(), image_range=(1, 0))


# --- activations of real data -----------------------------------------------------------------------------------------


def real_images() -> tuple[Tensor, Tensor]:
    images = Generator()(torch.randn(300, CODE, generator=torch.Generator().manual_seed(3)))
    return images, smoothed()(images).argmax(1)


def test_runs_stop_at_what_real_data_reach() -> None:
    am, (images, labels) = CodeSpaceAM(smoothed(), Generator()), real_images()
    with pytest.warns(UserWarning, match=r'4 of 4 runs did not reach stop_at=0\.99.*stop_at="data"'):
        am.maximize([0, 1, 2, 3], seeds=range(4), steps=20)
    result = am.maximize([0, 1, 2, 3], seeds=range(4), stop_at="data", real=(images, labels))
    assert result.reached.all()
    chances = smoothed()(images).softmax(1)
    expected = torch.stack([chances[labels == k, k].quantile(0.5) for k in range(4)])
    assert isinstance(result.stop_at, Tensor)
    torch.testing.assert_close(result.stop_at, expected)
    assert result.tried.max() < 256, "a start that leads as real images do is clear enough"
    again = am.maximize([0, 1, 2, 3], seeds=range(4), stop_at="data", real=images)
    assert torch.equal(again.codes, result.codes), "without labels the classifier's own classes count"


def test_units_stop_at_the_best_real_image() -> None:
    am, (images, _) = CodeSpaceAM(network(), Generator(), "1"), real_images()
    result = am.maximize((2,), runs=2, stop_at="data", real=images)
    torch.testing.assert_close(result.stop_at, network()(images)[:, 2].max().expand(2).detach())


def test_one_stop_per_run() -> None:
    am = CodeSpaceAM(network(), Generator())
    result = am.maximize([1, 1], seeds=[0, 1], stop_at=[0.5, 0.999], steps=60)
    assert result.reached.all()
    with pytest.raises(ValueError, match="3 values for 2 runs"):
        am.maximize([1, 1], seeds=[0, 1], stop_at=[0.5, 0.9, 0.9])
    with pytest.raises(ValueError, match=r'give a number, or "data" together with real='):
        am.maximize(1, stop_at="data")
    with pytest.raises(ValueError, match="none of the 5 real images belongs to class 3"):
        am.maximize(3, stop_at="data", real=(torch.rand(5, 1, 8, 8), torch.zeros(5)))


# --- units in layers without channels first ---------------------------------------------------------------------------


def test_an_int_in_a_layer_of_tokens_is_told() -> None:
    am = CodeSpaceAM(Tokens().eval(), Generator(), "norm")
    with pytest.warns(UserWarning, match=r"is \(4, 8\) per image, which looks like rows, such as tokens"):
        am.maximize(2, runs=1, steps=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = am.maximize((slice(None), 2), runs=2, steps=10)
    assert (result.scores[-1] > result.scores[0]).all()


def pooled() -> nn.Module:
    """Class maps behind a ReLU, averaged: in [0, 1] for small weights, and no probabilities."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())


# How people spell logits and probabilities of small numbers `(N, 4)`.
SPELLED: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "rectified": (torch.relu, "logits"),
    "of a temperature": (lambda values: values / 50, "logits"),
    "scaled by a parameter": (lambda values: values * nn.Parameter(torch.tensor(0.02)), "logits"),
    "of two parts": (lambda values: torch.cat([values[:, :2], values[:, 2:].relu()], 1), "logits"),
    "of two paths": (lambda values: values.relu() + values, "logits"),
    "summed": (lambda values: values.relu().unsqueeze(2).sum(2), "logits"),
    "clamped, then averaged": (lambda values: values.clamp(0, 6).unsqueeze(2).mean(2), "logits"),
    "of an ensemble": (lambda values: torch.stack([values.softmax(1), (2 * values).softmax(1)]).mean(0), "softmax"),
    "the complement of sigmoids": (lambda values: 1 - values.sigmoid(), "sigmoid"),
    "sigmoids of two heads": (lambda values: torch.cat([part.sigmoid() for part in values.split(2, 1)], 1), "sigmoid"),
    "softmaxes of two heads": (
        lambda values: torch.cat([part.softmax(1) for part in values.split(2, 1)], 1),
        "sigmoid",
    ),
    "sigmoids kept from 0": (lambda values: values.sigmoid().clamp(1e-6, 1 - 1e-6), "sigmoid"),
    "sigmoids in another order": (lambda values: values.sigmoid()[:, [1, 0, 3, 2]], "sigmoid"),
    "the largest of two views": (lambda values: torch.stack([values, 2 * values]).sigmoid().amax(0), "sigmoid"),
    "a softmax kept from 0": (lambda values: values.softmax(1).clamp(min=1e-6), "softmax"),
    "a sum with the complement": (lambda values: 5 - values.sigmoid(), "logits"),
    "averaged sigmoids": (lambda values: values.unsqueeze(2).expand(-1, -1, 3).sigmoid().mean(2), "sigmoid"),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", SPELLED)
def test_logits_that_lie_in_the_range_of_probabilities_are_known(name: str) -> None:
    """The operation that made them tells it; their values on one image do not."""
    last, head = SPELLED[name]
    body = pooled()
    assert PixelAM(lambda images: last(body(images)), (1, 8, 8)).activations.head == head
    assert last(body(torch.full((1, 1, 8, 8), 0.5))).min() >= 0, "by their values they might be probabilities"


@pytest.mark.filterwarnings("error")
def test_a_pooled_head_is_logits_in_either_memory_format() -> None:
    assert PixelAM(pooled(), (1, 8, 8)).activations.head == "logits"


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["mnist-classifier", "mnist-judge"])
def test_shipped_classifiers_return_logits(name: str) -> None:
    """Whatever they are shown first: of small images all logits may lie in [0, 1]."""
    classifier = load_classifier(name)
    with torch.no_grad():
        classifier.head.weight.mul_(1e-3)
        classifier.head.bias.fill_(0.5)
    assert PixelAM(classifier, (1, 28, 28)).activations.head == "logits"
