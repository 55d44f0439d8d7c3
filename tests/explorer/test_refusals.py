"""A network that pages cannot use is refused, with the remedy."""

import numpy as np
import pytest
import torch
from torch import nn

from plugin import models
from plugin.explorer.inputs import offered_networks


class Returning(nn.Module):
    """Returns a function of the logits of one convolution."""

    def __init__(self, returned, channels=3):
        super().__init__()
        self.conv, self.returned = nn.Conv2d(channels, 4, 3), returned

    def forward(self, pictures):
        return self.returned(self.conv(pictures))


class OfTwoInputs(Returning):
    def forward(self, pictures, *, scale=1.0, meta=None):
        return super().forward(pictures) * scale


class NeedsMore(Returning):
    def forward(self, pictures, age):  # type: ignore[override]
        return super().forward(pictures) + age


def logits(maps):
    return maps.mean((2, 3))


SMALL = models.Preprocessing(16, 16, (0.5,) * 3, (0.5,) * 3)
REFUSED = {
    "one channel": (
        Returning(logits, channels=1),
        r"\(1, 3, 224, 224\).*Preprocessing\(.*one mean and one std for grey",
    ),
    "four channels": (Returning(logits, channels=4), r"\(1, 3, 224, 224\).*--model package\.module:function"),
    "one size": (Returning(lambda maps: nn.functional.linear(maps.flatten(1), torch.ones(2, 8))), r"Preprocessing\("),
    "bfloat16": (Returning(logits).bfloat16(), r"its weights are bfloat16: give network\.float\(\)"),
    "two inputs": (NeedsMore(logits), r"It takes pictures, age, .* forward adds the rest"),
    "dictionary": (
        Returning(lambda maps: {"out": maps, "aux": 0}),
        r"with 'out', 'aux': .*network\(pictures\)\['out'\]",
    ),
    "tuple": (Returning(lambda maps: (logits(maps), maps)), r"a tuple of 2: .*network\(pictures\)\[0\]"),
    "maps": (Returning(lambda maps: maps), r"shape \(1, 4, 222, 222\): .*\.mean\(\(2, 3\)\)"),
    "one number": (Returning(lambda maps: maps.mean((1, 2, 3))), r"shape \(1,\): .*\[:, None\]"),
    "nothing": (Returning(lambda maps: None), "returns NoneType"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_refusal_of_ones_own_network_says_what_to_do(kind, monkeypatch):
    network, remedy = REFUSED[kind]
    monkeypatch.setitem(offered_networks._own, "mine:network", lambda: network.eval())
    with pytest.raises(ValueError, match=rf"(?s)^mine:network cannot process a picture: .*{remedy}"):
        offered_networks.open_network("mine:network")


def test_arguments_that_may_be_left_out_are_no_reason(monkeypatch):
    network = models.load(OfTwoInputs(logits), preprocessing=SMALL)
    monkeypatch.setitem(offered_networks._own, "mine:network", lambda: network)
    assert len(offered_networks.open_network("mine:network").model.classes) == 4


def test_network_of_grey_values_sees_grey_pictures():
    steps, small = (models.Preprocessing(resize, 16, (0.5,), (0.25,)) for resize in (20, 16))
    picture = models.sample_images()["cat"]
    seen = steps.visible(picture)
    pixels = np.asarray(seen)
    assert pixels.shape == (16, 16, 3)
    np.testing.assert_array_equal(pixels, pixels[..., :1].repeat(3, 2))
    np.testing.assert_array_equal(small.pixels(seen), steps.pixels(picture))  # the same grey values
