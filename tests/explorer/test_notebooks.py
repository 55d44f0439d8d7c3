"""Maps in a notebook: those of the library, each with its title and its colour bar."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from support import headed_networks
from torch import nn

from plugin import explorer, figures, models
from plugin.attr import GuidedBackprop, GuidedGradCam, LRPTranspose
from plugin.errors import InputTypeError, InputValueError, OptionError

CAT = models.sample_images()["cat"]


@pytest.fixture(scope="module")
def model():
    return models.load("all-cnn-c")


@pytest.fixture(scope="module")
def batch(model):
    return torch.cat([model.preprocess(image) for image in list(models.sample_images().values())[:2]])


def drawn(figure):
    return [trace.z for trace in figure.data if trace.type == "heatmap"]


def test_maps_are_those_of_the_library_a_row_for_each_input(model, batch):
    found = drawn(explorer.show(model, batch, ["guided-backprop", "lrp-epsilon-plus-flat"], target=5))
    expected = [
        GuidedBackprop(model.network).attribute(batch, 5),
        LRPTranspose(model.network, "epsilon_plus_flat").attribute(batch, 5),
    ]
    assert len(found) == 4
    for number, values in enumerate(found):
        row, column = divmod(number, 2)
        np.testing.assert_allclose(values, expected[column][row].sum(0).numpy(), atol=1e-5)


def test_titles_and_colour_bars_say_what_is_shown(model):
    figure = explorer.show(model, CAT, "gradient")
    assert len(figure.layout.annotations) == 1
    with torch.no_grad():
        logits = model.network(model.preprocess(CAT))[0]
    share = f"{float(logits.softmax(0)[3]):.0%}".replace("%", " %")
    assert figure.layout.annotations[0].text == f"Gradient<br>cat: logit {float(logits[3]):.3g}, probability {share}"
    (bar,) = (trace.colorbar for trace in figure.data if trace.type == "heatmap")
    assert bar.title.text
    assert figure.data[0].type == "image"  # the picture lies beneath


def test_each_input_has_its_own_most_probable_class(model, batch):
    top = model.network(batch).argmax(1).tolist()
    titles = [annotation.text for annotation in explorer.show(model, batch, "gradient").layout.annotations]
    assert [title.partition("<br>")[2].partition(":")[0] for title in titles] == [model.classes[i] for i in top]


def test_any_network_is_used_as_it_is_and_is_not_changed():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(2 * 36, 3)).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    inputs = torch.randn(1, 8, 8)
    figure = explorer.show(network, inputs, "gradient", classes=("a", "b <i>", "c"), target=1)
    assert "b &lt;i&gt;" in figure.layout.annotations[0].text
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert inputs.grad is None
    assert not inputs.requires_grad
    assert "class 1: " in explorer.show(network, inputs, "gradient", target=1).layout.annotations[0].text


def test_a_method_that_looks_at_a_layer_gets_it(model):
    (found,) = drawn(explorer.show(model, CAT, "guided-grad-cam", target=3, layer="features.relu7"))
    layer = model.network.get_submodule("features.relu7")
    expected = GuidedGradCam(model.network, layer).attribute(model.preprocess(CAT), 3)
    np.testing.assert_allclose(found, expected[0].sum(0).numpy(), atol=1e-5)


def test_the_probability_is_that_of_the_head():
    (title,) = explorer.show(headed_networks.sigmoid(), CAT, "gradient", target=3).layout.annotations
    assert title.text.startswith("Gradient<br>cat: probability ")


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"methods": "saliency"}, OptionError, "unknown method 'saliency'"),
        ({"methods": []}, OptionError, "names no method"),
        ({"methods": "guided-grad-cam"}, OptionError, "pass layer="),
        ({"target": 10}, OptionError, "target 10 is out of range"),
        ({"inputs": torch.zeros(3)}, InputValueError, r"shape \(3,\)"),
        ({"inputs": torch.zeros(0, 3, 32, 32)}, InputValueError, "shape"),
        ({"inputs": [1, 2]}, InputTypeError, "list"),
    ],
)
def test_mistakes_get_a_sentence(model, arguments, error, message):
    with pytest.raises(error, match=message):
        explorer.show(model, **{"inputs": CAT, **arguments})


def test_a_picture_needs_a_model_that_can_preprocess_it(model):
    with pytest.raises(InputTypeError, match=r"plugin\.models\.load"):
        explorer.show(model.network, CAT)


def test_a_network_without_classes_is_refused():
    with pytest.raises(InputValueError, match="number for each class"):
        explorer.show(nn.Conv2d(3, 2, 3), torch.zeros(1, 3, 8, 8))


def test_a_grid_has_a_place_for_each_map_and_says_where_one_is_zero():
    maps = {"A": np.ones((4, 6)), "B<br>of two lines": np.zeros((2, 2)), "C": -np.ones((3, 3))}
    figure = figures.map_grid([maps, {"D": np.ones((5, 5))}], height=300, quantities=("x", "y", "z"))
    assert figure.layout.height == 600
    texts = [annotation.text for annotation in figure.layout.annotations]
    assert texts == ["A", "B<br>of two lines", figures.ZERO_MESSAGE, "C", "D"]
    axes = [(figure.layout[f"xaxis{n}"].domain, figure.layout[f"yaxis{n}"].domain) for n in ("", "2", "3", "4")]
    assert len({*axes}) == 4
    lefts = [across for across, _ in axes[:3]]
    assert all(first[1] < second[0] for first, second in pairwise(lefts))
    assert axes[3][1][1] < axes[0][1][0]
    with pytest.raises(ValueError, match="no map"):
        figures.map_grid([{}])
