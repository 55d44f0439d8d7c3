"""Networks that draw, drop, detach or divide by zero: told before the ascent, or maximised all the same."""

import threading
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gan import CodeSpaceAM, ImageSpaceAM, LatentGenerator, PixelAM
from gan.maximising.maximizer import ActivationMaximizer
from gan.maximising.objectives import channel, direction, neuron
from gan.maximising.spaces import Maco

LINEAR = "encoder.layers.0.linear1"
RUNS: dict[str, Any] = {"runs": 3, "seed": 0, "steps": 6, "stop_at": 1.0}


class Drawing(nn.Module):
    """Codes of six numbers to 8 x 8 pixels."""

    code_size = 6

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 64)

    def forward(self, codes: Tensor) -> Tensor:
        return self.linear(codes).view(-1, 1, 8, 8).sigmoid()


class Noisy(Drawing):
    def forward(self, codes: Tensor) -> Tensor:
        images: Tensor = self.linear(codes).view(-1, 1, 8, 8)
        return (images + torch.randn_like(images)).sigmoid()


class Dropping(nn.Sequential):
    def forward(self, input: Tensor) -> Tensor:
        return F.dropout(super().forward(input), 0.5, training=True)


def classifier(kind: type[nn.Sequential] = nn.Sequential) -> nn.Sequential:
    torch.manual_seed(0)
    return kind(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)).eval()


# --- randomness -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda: CodeSpaceAM(classifier(), Noisy()),
        lambda: CodeSpaceAM(classifier(Dropping), Drawing()),
        lambda: PixelAM(classifier(Dropping), (1, 8, 8)),
        lambda: ImageSpaceAM(classifier(Dropping), (1, 8, 8), "0"),
    ],
    ids=["generator", "classifier", "pixels", "image"],
)
@pytest.mark.filterwarnings("ignore:.*did not reach")
def test_numbers_drawn_in_the_forward_pass_are_held(make: Callable[[], ActivationMaximizer]) -> None:
    with pytest.warns(UserWarning, match="draws random numbers in its forward pass: they are the same in every pass"):
        am = make()
    found = []
    for state in (1, 2):
        torch.manual_seed(state)
        found.append(am.maximize(1, **RUNS))
        after = torch.rand(3)
        torch.manual_seed(state)
        assert torch.equal(torch.rand(3), after), "the caller's random state is left alone"
    assert torch.equal(found[0].images, found[1].images)


class Slowly(nn.Sequential):
    """Draws before and after a pause in which another thread computes."""

    def forward(self, input: Tensor) -> Tensor:
        first = torch.rand(1)
        time.sleep(0.002)
        values: Tensor = super().forward(input)
        return values * (first + torch.rand(1))


@pytest.mark.filterwarnings("ignore:.*draws random numbers", "ignore:.*did not reach")
def test_numbers_are_held_while_another_thread_holds_its_own() -> None:
    runs = [PixelAM(classifier(Slowly), (1, 8, 8)) for _ in range(3)]
    expected = runs[0].maximize(1, **RUNS)
    with ThreadPoolExecutor() as threads:
        for found in threads.map(lambda am: am.maximize(1, **RUNS), runs):
            assert torch.equal(found.images, expected.images)


def test_lazy_layers_draw_their_weights_once(recwarn: pytest.WarningsRecorder) -> None:
    ImageSpaceAM(nn.Sequential(nn.Flatten(), nn.LazyLinear(5)), (1, 8, 8))
    assert not recwarn.list


# --- buffers ----------------------------------------------------------------------------------------------------------


class Counting(nn.Sequential):
    """Follows its inputs in eval mode too: in place, by a new buffer, and in a part of it."""

    calls: Tensor
    mean: Tensor

    def __init__(self, *parts: nn.Module) -> None:
        super().__init__(*parts, nn.Sequential(nn.Identity()))
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("mean", torch.zeros(()))
        self[-1].register_buffer("largest", torch.zeros(()))

    def forward(self, input: Tensor) -> Tensor:
        self.calls += 1
        self.mean = 0.9 * self.mean + 0.1 * input.detach().mean()
        self[-1].largest.copy_(input.detach().max())
        return super().forward(input)


@pytest.mark.parametrize(
    "make",
    [
        lambda network: CodeSpaceAM(network, Drawing()),
        lambda network: PixelAM(network, (1, 8, 8)),
        lambda network: ImageSpaceAM(network, (1, 8, 8), "0"),
    ],
    ids=["codes", "pixels", "fourier"],
)
@pytest.mark.filterwarnings("ignore:.* did not reach stop_at")
def test_buffers_that_a_network_writes_are_as_before(make: Callable[[nn.Module], ActivationMaximizer]) -> None:
    network = classifier(Counting)
    network.calls.fill_(3)
    before = {name: (buffer, buffer.clone()) for name, buffer in network.named_buffers()}
    runs = make(network)
    first, second = (runs.maximize(0, runs=3, seed=0, steps=6) for _ in range(2))
    assert torch.equal(first.images, second.images)
    for name, buffer in network.named_buffers():
        assert buffer is before[name][0]
        assert torch.equal(buffer, before[name][1])


# --- independence -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_generator_without_a_graph_is_told(mode: Callable[[], Any]) -> None:
    generator = Drawing()

    def drawn(codes: Tensor) -> Tensor:
        with mode():
            return generator(codes)

    with pytest.raises(ValueError, match=r"images do not depend on their codes: look for torch\.no_grad"):
        CodeSpaceAM(classifier(), drawn, code_size=6).maximize(1, **RUNS)


def test_a_classifier_that_looks_at_no_image_is_told() -> None:
    bias = nn.Parameter(torch.rand(5))
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 5))

    def detached(images: Tensor) -> Tensor:
        return network(images).detach().round() + bias

    with pytest.raises(ValueError, match="do not depend on the image"):
        CodeSpaceAM(detached, Drawing(), head="logits").maximize(1, **RUNS)


def test_a_generator_of_lists_of_styles_is_told() -> None:
    generator = Drawing()
    with pytest.raises(ValueError, match=r"makes \(1, 1, 8, 8\) of two codes: images are \(2, C, H, W\); pass a func"):
        CodeSpaceAM(classifier(), lambda styles: generator(styles[0]), code_size=6)


def test_a_generator_with_labels_is_told() -> None:
    generator = Drawing()

    def conditional(codes: Tensor, labels: Tensor) -> Tensor:
        return generator(codes + labels)

    with pytest.raises(ValueError, match=r"the conditional does not take codes .*: pass a function of codes alone"):
        CodeSpaceAM(classifier(), conditional, code_size=6)  # type: ignore[arg-type]


# --- numbers ----------------------------------------------------------------------------------------------------------


def rooted(images: Tensor) -> Tensor:
    values: Tensor = classifier()(images)
    return values + 0 * (values - values.detach()).abs().sqrt()


@pytest.mark.filterwarnings("ignore:.*draws random numbers")
def test_a_slope_that_is_no_number_is_told() -> None:
    for am in (CodeSpaceAM(rooted, Drawing()), ImageSpaceAM(rooted, (1, 8, 8)), PixelAM(rooted, (1, 8, 8))):
        with pytest.raises(ValueError, match="slope of a unit of the output of the rooted is NaN or infinite at its"):
            am.maximize(1, **RUNS)


def test_another_class_that_is_no_number_is_told() -> None:
    broken = classifier()
    with torch.no_grad():
        broken[3].weight[0] = torch.nan
    with pytest.raises(ValueError, match="another class of the output of the Sequential is NaN or infinite"):
        CodeSpaceAM(broken, Drawing()).maximize(1, **RUNS)


@pytest.mark.parametrize("head", ["softmax", "sigmoid", "log-softmax"])
def test_a_head_that_the_outputs_refute_is_refused(head: str) -> None:
    def far(images: Tensor) -> Tensor:
        return images.flatten(1)[:, :5] + 3

    with pytest.raises(ValueError, match=rf"head='{head}': its outputs are .* lie in \[3.*leave head= out"):
        CodeSpaceAM(far, Drawing(), head=head)


def test_a_range_that_the_images_refute_is_told() -> None:
    generator = Drawing()

    def bytes_of(codes: Tensor) -> Tensor:
        return 255 * generator(codes)

    with pytest.warns(UserWarning, match=r"lie in \[.*\], and image_range=\(0, 1\) clips them"):
        CodeSpaceAM(classifier(), bytes_of, code_size=6, image_range=(0, 1))
    latents = torch.randn(30, 4, 4, 4)
    with pytest.warns(UserWarning, match=r"image_range=\(0, 1\) clips them: give its black and white"):
        LatentGenerator(lambda codes: 2 * codes[:, :3].tanh() - 0.5, latents)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LatentGenerator(lambda codes: codes[:, :3].tanh(), latents, image_range=(-1, 1))
        CodeSpaceAM(classifier(), bytes_of, code_size=6, image_range=(0, 255))


@pytest.mark.filterwarnings("ignore:.*did not reach")
def test_weights_that_were_made_in_inference_mode() -> None:
    with torch.inference_mode():
        networks = classifier(), Drawing()
    layer = networks[0][0]
    found = CodeSpaceAM(networks[0], networks[1], layer).maximize(1, runs=2, steps=3)
    assert found.images.shape == (2, 1, 8, 8)
    assert all(parameter.is_inference() for parameter in networks[0].parameters()), "it is left as it was"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"steps": 3.5}, "steps=3.5: give a whole number"),
        ({"seeds": [0.2, 0.7, 0.9]}, "a seed=0.2: give a whole number"),
        ({"runs": "3"}, "runs='3': give a whole number"),
        ({"seeds": 3}, "seeds=3: give one whole number for each run"),
    ],
)
def test_numbers_that_are_not_whole_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        CodeSpaceAM(classifier(), Drawing()).maximize(1, **{**RUNS, **arguments})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"candidates": 1.5}, "candidates=1.5: give a whole number"),
        ({"learning_rate": None}, "learning_rate=None: give a number"),
        ({"image_range": (0, torch.inf)}, r"image_range=\(0, inf\): give the generator's black and white"),
        ({"image_range": (-1, 0, 1)}, r"image_range=\(-1, 0, 1\): give the generator's black and white"),
    ],
)
def test_options_of_another_kind_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        CodeSpaceAM(classifier(), Drawing(), **arguments)


@pytest.mark.filterwarnings("ignore:.*did not reach stop_at")
@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16])
def test_functions_of_networks_of_other_number_types_are_given_theirs(kind: torch.dtype) -> None:
    networks = classifier().to(kind), Drawing().to(kind)
    expected = CodeSpaceAM(*networks).maximize(1, runs=2, steps=3)
    given = CodeSpaceAM(lambda images: networks[0](images), lambda codes: networks[1](codes), code_size=6)
    found = given.maximize(1, runs=2, steps=3)
    torch.testing.assert_close(found.images.float(), expected.images.float())


def test_what_would_not_be_heeded_is_refused() -> None:
    am = CodeSpaceAM(classifier(), Drawing())
    with pytest.raises(ValueError, match=r'real= is for stop_at="data", and stop_at=0\.9: leave one of them out'):
        am.maximize(1, runs=2, stop_at=0.9, real=torch.rand(3, 1, 8, 8))
    with pytest.raises(ValueError, match="stop_at=nan: give finite values of the unit"):
        CodeSpaceAM(classifier(), Drawing(), "0").maximize(1, runs=2, stop_at=torch.nan)
    with pytest.raises(ValueError, match="learning_rate=inf: it must be above 0, and finite"):
        CodeSpaceAM(classifier(), Drawing(), learning_rate=torch.inf)


@pytest.mark.filterwarnings("ignore:.*did not reach")
def test_an_array_is_a_list_of_targets() -> None:
    am = CodeSpaceAM(classifier(), Drawing())
    found = am.maximize(np.array([0, 3]), steps=2)
    assert found.targets == [0, 3]
    assert torch.equal(found.images, am.maximize([0, 3], steps=2).images)


# --- layers, objectives and spaces ------------------------------------------------------------------------------------


class Tokens(nn.Module):
    """A transformer of 4 x 4 patches."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, 8, 2, 2)
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 1)
        self.head = nn.Linear(8, 5)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.encoder(self.patches(images).flatten(2).transpose(1, 2)).mean(dim=1))


@pytest.mark.filterwarnings("ignore:.*did not reach")
def test_layers_that_pytorch_computes_at_once_are_reached() -> None:
    """Without a graph a transformer in eval mode runs none of the layers in it."""
    network, unit = Tokens().eval().requires_grad_(False), (slice(None), 3)
    for am in (ImageSpaceAM(network, (1, 8, 8), LINEAR), CodeSpaceAM(network, Drawing(), LINEAR)):
        found = am.maximize(unit, runs=2, steps=4)
        assert found.scores[-1].min() > found.scores[0].min()
        assert not found.images.requires_grad


@pytest.mark.parametrize("target", [channel(3), neuron(3), 2 * channel(1) - neuron(2, 1)])
def test_a_channel_of_tokens_is_told(target: Any) -> None:
    with pytest.warns(UserWarning, match=r"an int, a channel and a neuron are an index into the first axis"):
        ImageSpaceAM(Tokens(), (1, 8, 8), "encoder").maximize(target, runs=1, steps=1)


def test_a_channel_of_signals_is_not(recwarn: pytest.WarningsRecorder) -> None:
    signals = nn.Sequential(nn.Flatten(2), nn.Conv1d(1, 4, 9, 4))
    ImageSpaceAM(signals, (1, 8, 8), "1").maximize(3, runs=1, steps=1)
    assert not recwarn.list


def test_objectives_that_mean_nothing_are_refused() -> None:
    assert sum([channel(1), channel(2)]) == channel(1) + channel(2)
    for wrong in (lambda: channel(1) * channel(2), lambda: "2" * channel(1), lambda: channel(1.5)):  # type: ignore
        with pytest.raises(TypeError, match=r"give a number|cannot be interpreted as an integer"):
            wrong()
    useless_ones = (
        lambda: channel(1) / 0,
        lambda: torch.nan * channel(1),
        lambda: direction(np.zeros(3)),
        lambda: direction([1.0], cosine_power=-1),
    )
    for useless in useless_ones:
        with pytest.raises(ValueError, match=r"another number|a finite number|points somewhere"):
            useless()


def test_spaces_and_photographs_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"the space makes images \(1, 16, 16\), and image_shape is \(1, 8, 8\)"):
        ImageSpaceAM(classifier(), (1, 8, 8), space=Maco((1, 16, 16)))
    with pytest.raises(ValueError, match=r"input_size 20 is not \(height, width\)"):
        ImageSpaceAM(classifier(), (1, 8, 8), input_size=20)  # type: ignore[arg-type]
    photographs = torch.rand(4, 1, 8, 8)
    for wrong in (255 * photographs, torch.nan * photographs, photographs[:0]):
        with pytest.raises(ValueError, match="real images have"):
            Maco((1, 8, 8), wrong)
    eight_bits = (255 * photographs).round().byte()
    torch.testing.assert_close(Maco((1, 8, 8), eight_bits).magnitude, Maco((1, 8, 8), eight_bits / 255).magnitude)
    with pytest.raises(ValueError, match="latents hold NaN or infinite values"):
        LatentGenerator(nn.Identity(), torch.full((30, 3, 4, 4), torch.nan))


@pytest.mark.filterwarnings("ignore:.*clips them")
def test_a_decoder_in_half_precision_gets_its_latents_so() -> None:
    decoder = nn.ConvTranspose2d(4, 1, 2, 2).half()
    generator = LatentGenerator(decoder, torch.randn(30, 4, 4, 4).half())
    found = CodeSpaceAM(classifier(), generator).maximize(1, runs=1, steps=3, stop_at=0.01)
    assert (found.images.shape, found.codes.dtype) == ((1, 1, 8, 8), torch.float32)


def test_images_are_inverted_by_their_values() -> None:
    am, image = CodeSpaceAM(classifier(), Drawing()), torch.randint(256, (1, 1, 8, 8), dtype=torch.uint8)
    assert torch.equal(am.invert(image, steps=2), am.invert(image / 255, steps=2))
    for wrong in (3 * torch.randn(1, 1, 8, 8), torch.rand(0, 1, 8, 8)):
        with pytest.raises(ValueError, match="real images have"):
            am.invert(wrong, steps=2)


def test_numbers_that_another_thread_draws_are_not_the_networks() -> None:
    over = threading.Event()

    def draw() -> None:
        while not over.is_set():
            torch.rand(1)

    other = threading.Thread(target=draw)
    other.start()
    try:
        for _ in range(20):
            CodeSpaceAM(
                nn.Sequential(nn.Flatten(), nn.Linear(64, 3)),
                lambda codes: codes.sigmoid().view(-1, 1, 8, 8),
                code_size=64,
            )
    finally:
        over.set()
        other.join()
