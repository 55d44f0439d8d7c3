"""Two maps and their difference in one figure."""

import numpy as np
import pytest
from PIL import Image

from plugin import figures

RNG = np.random.default_rng(1)
ONE, OTHER = RNG.normal(size=(4, 6)), 3 * RNG.normal(size=(4, 6))
LARGE = np.kron(OTHER, np.ones((2, 3)))


def test_larger_map_is_averaged_to_the_size_of_the_smaller():
    noisy = LARGE + np.tile([[1.0, -1.0, 0.0], [-1.0, 0.0, 1.0]], (4, 6))
    one, other = figures.common_size(ONE, noisy)
    np.testing.assert_array_equal(one, ONE)
    np.testing.assert_allclose(other, OTHER, atol=1e-5)
    assert figures.common_size(np.zeros((4, 8)), np.zeros((8, 4)))[0].shape == (4, 4)
    with pytest.raises(ValueError, match=r"\(3, 4, 6\)"):
        figures.common_size(ONE, np.zeros((3, 4, 6)))


def test_difference_is_in_the_maps_unit_or_of_scaled_maps():
    np.testing.assert_array_equal(figures.difference(ONE, OTHER, scaled=False), OTHER - ONE)
    expected = OTHER / np.abs(OTHER).max() - ONE / np.abs(ONE).max()
    np.testing.assert_allclose(figures.difference(ONE, OTHER, scaled=True), expected)
    np.testing.assert_allclose(figures.difference(ONE, 7 * ONE, scaled=True), 0, atol=1e-12)
    zero = np.zeros_like(ONE)
    np.testing.assert_allclose(figures.difference(zero, ONE, scaled=True), ONE / np.abs(ONE).max())


def test_linked_maps_share_their_axes_and_tell_all_values():
    maps = {"A": ONE, "B": OTHER, "B minus A": OTHER - ONE}
    figure = figures.linked_maps(maps, [Image.new("RGB", (6, 4)), None], opacity=0.5, clip_percentile=100)
    drawn = [trace for trace in figure.data if trace.type == "heatmap"]
    assert len(figure.data) == len(drawn) + 1
    for trace, (name, values) in zip(drawn, maps.items(), strict=True):
        np.testing.assert_allclose(trace.z, values, rtol=1e-6)
        assert trace.zmax == -trace.zmin == pytest.approx(np.abs(values).max())
        # The values of each map are sent once for each of the maps, in single precision.
        assert trace.z.dtype == trace.customdata.dtype == np.float32
        assert trace.customdata.shape == (*values.shape, 2)
        others = iter(range(2))
        for other, told in maps.items():
            place = "z" if other == name else f"customdata[{next(others)}]"
            assert f"{other} <b>%{{{place}:" in trace.hovertemplate
            if other != name:
                np.testing.assert_allclose(trace.customdata[..., int(place[-2])], told, rtol=1e-6)
    assert [trace.opacity for trace in drawn] == [0.5, 1.0, 1.0]
    axes = figure.layout
    assert axes.xaxis2.matches == axes.xaxis3.matches == "x"
    assert axes.yaxis2.matches == axes.yaxis3.matches == "y"
    with pytest.raises(ValueError, match="one size"):
        figures.linked_maps({"A": ONE, "B": LARGE})
    with pytest.raises(ValueError, match="none"):
        figures.linked_maps({})


def test_stacked_maps_stand_below_each_other_and_stay_linked():
    maps = {"A": ONE, "B": OTHER, "B minus A": OTHER - ONE}
    figure = figures.linked_maps(maps, [Image.new("RGB", (6, 4)), None], opacity=0.5, height=300, stacked=True)
    assert figure.layout.height == 900
    across = [figure.layout[name].domain for name in ("xaxis", "xaxis2", "xaxis3")]
    down = [figure.layout[name].domain for name in ("yaxis", "yaxis2", "yaxis3")]
    assert across == [(0, 1)] * 3
    assert down[0][0] >= down[1][1] >= down[1][0] >= down[2][1]
    assert figure.layout.xaxis3.matches == "x"
    assert figure.layout.yaxis3.matches == "y"
    drawn = [trace for trace in figure.data if trace.type == "heatmap"]
    assert [trace.opacity for trace in drawn] == [0.5, 1.0, 1.0]
