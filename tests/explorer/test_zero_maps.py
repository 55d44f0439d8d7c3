"""A map that is zero everywhere says where its signal ended."""

import re
from collections import OrderedDict

import pytest
from torch import nn

from plugin import models
from plugin.explorer.inputs import offered_pictures
from plugin.explorer.inputs.subject import Subject, layer_shapes
from plugin.explorer.maps import answers, zero_maps
from plugin.explorer.maps.questions import Question

CAT = offered_pictures.sample("cat").image
NEURON = {"layer": "relu2", "neuron": (1, 2, 3)}


def subject(second_weight: float, second_bias: float) -> Subject:
    """Two convolutions whose weights all have one value; the head's weights are positive."""
    parts = [
        ("conv1", nn.Conv2d(3, 4, 3, padding=1)),
        ("relu1", nn.ReLU()),
        ("conv2", nn.Conv2d(4, 4, 3, padding=1)),
        ("relu2", nn.ReLU(inplace=True)),
        ("pool", nn.AdaptiveAvgPool2d(1)),
        ("flatten", nn.Flatten()),
        ("head", nn.Linear(4, 3)),
    ]
    network = nn.Sequential(OrderedDict(parts)).eval()
    for module, weight, bias in (
        (network.conv1, 0.1, 1.0),
        (network.conv2, second_weight, second_bias),
        (network.head, 0.5, 0.0),
    ):
        nn.init.constant_(module.weight, weight)
        nn.init.constant_(module.bias, bias)
    model = models.load(network, preprocessing=models.Preprocessing(8, 8, (0.0,) * 3, (1.0,) * 3))
    layers, _ = layer_shapes(model)
    return Subject("net", model, layers, "", (), "net")


INHIBITED, DEAD = (-0.1, 9.0), (0.1, -99.0)
CASES = [
    (INHIBITED, Question("deconvnet", 1), "All signal that arrives at `relu1` is negative"),
    (INHIBITED, Question("guided-backprop", 1), "All signal that arrives at `relu1` is negative"),
    (INHIBITED, Question("deconvnet", **NEURON), "All signal that arrives at `relu1` is negative"),
    (INHIBITED, Question("no-image", **NEURON), "ReLUs let only positive signal through"),
    (DEAD, Question("gradient", 1), "The gradient ends at `relu2`: no unit"),
    (DEAD, Question("gradient", 1, contrast=2), "The gradient ends at `relu2`: no unit"),
    (DEAD, Question("guided-backprop", 1), "The signal ends at `relu2`: .* only where they were active"),
    (DEAD, Question("guided-grad-cam", 1, layer="relu1"), "`relu1` is zero, and so is their product"),
    *((DEAD, Question(method, **NEURON), "not active") for method in ("gradient", "guided-backprop", "lrp-epsilon")),
]


@pytest.mark.parametrize(("second", "question", "sentence"), CASES)
def test_reason_names_where_the_signal_ended(second, question, sentence) -> None:
    net = subject(*second)
    if question.contrast is not None:
        nn.init.normal_(net.model.network.head.weight)
    assert not answers.compute(net, CAT, question).attribution.any()
    assert re.search(sentence, zero_maps.reason(net, CAT, question))
