"""Sixty-four units of a layer of All-CNN-C: one call of `DeconvNet.reconstruct` against sixty-four."""

import pytest

from plugin import models
from plugin.attr import DeconvNet


@pytest.mark.parametrize("position", [True, False], ids=["one position", "all positions"])
@pytest.mark.parametrize("layer", ["conv1", "conv3", "conv5", "conv7"])
@pytest.mark.parametrize("batched", [True, False], ids=["one call", "64 calls"])
def test_reconstruct(layer, position, batched, benchmark) -> None:
    side = {"conv1": 32, "conv3": 16, "conv5": 16, "conv7": 6}[layer]
    where = (side // 2, side // 2) if position else None
    deconvnet = DeconvNet(models.load("all-cnn-c").network, f"features.{layer}", (3, 32, 32))
    units = range(64)

    def one_call() -> None:
        deconvnet.reconstruct(units, position=where)

    def many_calls() -> None:
        for unit in units:
            deconvnet.reconstruct(unit, position=where)

    benchmark.group = f"{layer}, {'one position' if position else 'all positions'}"
    benchmark.pedantic(one_call if batched else many_calls, rounds=3, warmup_rounds=1, iterations=1)
