"""Figures: zero is white, scales are symmetric, hovering tells the truth, nothing is divided by zero."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from plugin import figures

RNG = np.random.default_rng(0)
ATTRIBUTION = RNG.normal(size=(3, 8, 6)).astype(np.float32)
MAP = ATTRIBUTION.sum(0)
PHOTOGRAPH = Image.fromarray(RNG.integers(0, 255, (16, 12, 3), dtype=np.uint8))


def heatmap(figure):
    (trace,) = [trace for trace in figure.data if trace.type == "heatmap"]
    return trace


def test_channels_are_summed_or_picked():
    np.testing.assert_array_equal(figures.reduce_channels(ATTRIBUTION), MAP)
    np.testing.assert_array_equal(figures.reduce_channels(ATTRIBUTION, 2), ATTRIBUTION[2])
    parts = [figures.reduce_channels(ATTRIBUTION, how) for how in ("positive", "negative")]
    assert parts[0].min() >= 0 >= parts[1].max()
    np.testing.assert_array_equal(parts[0] + parts[1], MAP)
    for how in (3, -1, "max"):
        with pytest.raises(ValueError, match="index from 0 to 2"):
            figures.reduce_channels(ATTRIBUTION, how)
    with pytest.raises(ValueError, match="shape"):
        figures.reduce_channels(MAP)


def test_limit_is_a_percentile_of_all_magnitudes():
    values = np.arange(-50, 51, dtype=float)
    assert figures.symmetric_limit([values], 100) == 50
    assert figures.symmetric_limit([values, 10 * values], 100) == 500
    assert figures.symmetric_limit([values], 50) == np.percentile(np.abs(values), 50)
    assert figures.symmetric_limit([np.zeros((2, 2))]) == figures.symmetric_limit([]) == 0
    assert figures.symmetric_limit([np.array([np.nan, np.inf, -2.0])]) == 2


def test_limit_of_a_sparse_map_is_its_maximum():
    values = np.zeros((100, 100))
    values[3, 4] = -7
    assert figures.symmetric_limit([values], 99) == 7


@pytest.mark.parametrize("percentile", [0, -1, 101, float("nan")])
def test_percentile_out_of_range(percentile):
    with pytest.raises(ValueError, match="percentile"):
        figures.symmetric_limit([MAP], percentile)


def test_signed_map_is_centred_and_keeps_raw_values():
    trace = heatmap(figures.signed_map(MAP, clip_percentile=80))
    assert trace.zmid == 0
    assert trace.zmax == -trace.zmin == pytest.approx(figures.symmetric_limit([MAP], 80))
    assert np.abs(MAP).max() > trace.zmax
    np.testing.assert_array_equal(trace.z, MAP)
    assert "%{z" in trace.hovertemplate
    assert trace.colorbar.ticktext[0].startswith("≤")
    ends = [heatmap(figures.signed_map(MAP, limit=limit)).colorbar.ticktext[-1] for limit in (0.123, 99.7, 1234.5, 2e5)]
    assert [end.removeprefix("≥ ") for end in ends] == ["0.12", "100", "1234", "2e+05"]


def test_positive_is_red_and_negative_is_blue():
    (low, high) = (figures.SIGNED_COLOURS[0], figures.SIGNED_COLOURS[-1])
    assert heatmap(figures.signed_map(MAP)).colorscale[0][1] == low
    assert heatmap(figures.signed_map(MAP)).colorscale[-1][1] == high
    blue, white, red = figures.signed_colours(np.array([[-5.0, 0.0, 5.0]]), limit=1.0)[0].astype(int)
    assert blue[2] > blue[0] + 50
    assert red[0] > red[2] + 50
    assert white.min() > 240


def test_image_lies_beneath_and_is_stretched_over_the_map():
    figure = figures.signed_map(MAP, PHOTOGRAPH, opacity=0.4)
    beneath, above = figure.data
    assert (beneath.type, above.type, above.opacity) == ("image", "heatmap", 0.4)
    assert beneath.dx * PHOTOGRAPH.width == MAP.shape[1]
    assert beneath.x0 - beneath.dx / 2 == beneath.y0 - beneath.dy / 2 == -0.5


def test_zero_map_says_so():
    for limit in (None, 2.0):
        figure = figures.signed_map(np.zeros((4, 4)), limit=limit)
        assert figures.ZERO_MESSAGE in figure.layout.annotations[0].text
        assert not heatmap(figure).showscale
    assert figures.colour_map(np.zeros((3, 4, 4))).layout.annotations
    assert not figures.signed_map(MAP).layout.annotations


@pytest.mark.parametrize("arguments", [{"opacity": 1.5}, {"limit": -1.0}, {"limit": float("nan")}, {"opacity": -0.1}])
def test_bad_arguments_are_named(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        figures.signed_map(MAP, **arguments)


def test_not_finite_values_are_left_out():
    values = MAP.copy()
    values[0, 0], values[1, 1] = np.nan, np.inf
    trace = heatmap(figures.signed_map(values))
    assert np.isfinite(trace.zmax)
    assert figures.signed_colours(values, 1.0).shape == (8, 6, 3)


def test_colour_picture_is_grey_at_zero_and_symmetric():
    picture = figures.as_image(np.stack([MAP, -MAP, 0 * MAP]), clip_percentile=100).astype(int)
    assert (picture[..., 2] == 128).all()
    np.testing.assert_array_equal(picture[..., 0] - 128, 128 - picture[..., 1])
    assert (figures.as_image(np.zeros((3, 2, 2))) == 128).all()
    with pytest.raises(ValueError, match="shape"):
        figures.as_image(MAP)


def test_colour_map_hovers_over_raw_values():
    trace = figures.colour_map(ATTRIBUTION, PHOTOGRAPH).data[-1]
    np.testing.assert_array_equal(trace.customdata, ATTRIBUTION.transpose(1, 2, 0))


def test_side_by_side_shares_a_scale():
    maps = {"one": MAP, "ten": 10 * MAP}
    shared = [trace for trace in figures.side_by_side(maps, PHOTOGRAPH).data if trace.type == "heatmap"]
    own = [trace for trace in figures.side_by_side(maps, shared=False).data if trace.type == "heatmap"]
    assert shared[0].zmax == shared[1].zmax
    assert own[1].zmax == pytest.approx(10 * own[0].zmax)
    with pytest.raises(ValueError, match="no map"):
        figures.side_by_side({})


def test_bars_keep_classes_of_one_name_apart():
    bars = figures.top_k_bars(np.array([0.1, 0.4, 0.3, 0.2]), ["crane", "crane", "dog"], k=3).data[0]
    assert list(bars.customdata) == [1, 2, 3]
    assert len(set(bars.y)) == 3
    figure = figures.top_k_bars(np.array([0.1, 0.4, 0.3, 0.2]), ["crane", "crane", "dog"], k=2, chosen=3)
    assert list(figure.layout.yaxis.ticktext) == ["crane", "dog", "▸ class 3"]
    named = figures.top_k_bars([0.1, 0.9], ["<b>cat's</b>", "<a href='x'>dog</a>"], chosen=0)
    assert list(named.layout.yaxis.ticktext) == ["&lt;a href='x'&gt;dog&lt;/a&gt;", "▸ &lt;b&gt;cat's&lt;/b&gt;"]
    assert len(set(figure.data[0].marker.color)) == 2


def test_png_is_the_blend_enlarged_without_smoothing():
    colours = figures.signed_colours(MAP, 1.0)
    opened = Image.open(io.BytesIO(figures.to_png(colours, side=64)))
    assert opened.size == (48, 64)
    np.testing.assert_array_equal(np.asarray(opened)[::8, ::8], colours)
    beneath = Image.open(io.BytesIO(figures.to_png(colours, PHOTOGRAPH, opacity=0.0, side=8)))
    np.testing.assert_array_equal(np.asarray(beneath), np.asarray(PHOTOGRAPH.resize((6, 8), Image.Resampling.BICUBIC)))


def test_npz_is_read_without_pickle():
    file = figures.to_npz({"map": MAP}, {"target": 3, "layer": None}, {"numpy": np.__version__})
    with np.load(io.BytesIO(file), allow_pickle=False) as arrays:
        np.testing.assert_array_equal(arrays["map"], MAP)
        assert json.loads(str(arrays["settings"])) == {"target": 3, "layer": None}
        assert json.loads(str(arrays["versions"])) == {"numpy": np.__version__}


def test_image_figure_has_no_axes():
    figure = figures.image_figure(PHOTOGRAPH, title="photograph")
    assert figure.data[0].source.startswith("data:image/png;base64,")
    assert figure.layout.xaxis.visible is False
    assert figure.layout.title.text == "photograph"


def test_ledger_bars_stack_the_parts_of_each_layer():
    figure = figures.ledger_bars(["head", "body", "body"], [3.0, -1.0, 0.5], [1.0, 4.0, -1.5], [0.0, 0.0, 1e-6])
    left, to_bias, to_stabiliser, entered = figure.data
    assert (list(left.x), list(to_bias.x)) == ([3.0, -1.0, 0.5], [1.0, 4.0, -1.5])
    assert list(entered.x) == pytest.approx([4.0, 3.0, -1.0 + 1e-6])
    # A bar for each position: layers of one name do not share one. The first is on top.
    assert list(left.y) == [0, 1, 2]
    assert figure.layout.yaxis.range[0] > figure.layout.yaxis.range[1]
    assert figure.layout.barmode == "relative"
    assert len({left.marker.color, to_bias.marker.color, to_stabiliser.marker.color}) == 3
    assert len({trace.marker.pattern.shape for trace in figure.data[:3]}) == 3
    with pytest.raises(ValueError, match="2 layers"):
        figures.ledger_bars(["head", "body"], [1.0, 2.0], [1.0], [1.0, 2.0])


def test_ledger_bars_cut_long_names_and_grow_with_their_number():
    figure = figures.ledger_bars(["a" * 60] * 50, *[[1.0] * 50] * 3)
    assert max(map(len, figure.layout.yaxis.ticktext)) < 35
    assert figure.layout.height > 1000
    assert figure.data[0].customdata[0] == "a" * 60


def test_ledger_bars_show_a_line_of_several_words_whole_and_no_markup():
    long = f"inactive inputs of {'a' * 40}"
    figure = figures.ledger_bars(["inactive inputs of features.conv3", long, "<lambda>"], *[[1.0] * 3] * 3)
    first, second, third = figure.layout.yaxis.ticktext
    assert first == "inactive inputs of<br>features.conv3"
    assert second == f"inactive inputs of<br>… {'a' * 29}"
    assert third == "&lt;lambda&gt;"


def test_score_curves_are_told_apart_without_colour():
    shares = np.linspace(0, 1, 3)
    figure = figures.score_curves(shares, {"deletion": [3, 1, 0], "insertion": [0, 2, 3]}, "logit")
    assert [trace.name for trace in figure.data] == ["deletion", "insertion"]
    np.testing.assert_array_equal(figure.data[1].y, [0, 2, 3])
    assert len({trace.line.dash for trace in figure.data}) == 2
    assert figure.layout.yaxis.title.text == "logit"
    for curves in ({}, {"deletion": [3, 1]}):
        with pytest.raises(ValueError, match="3 shares need curves"):
            figures.score_curves(shares, curves, "logit")


def test_colour_bar_names_the_quantity():
    assert heatmap(figures.signed_map(MAP, quantity="share of the score")).colorbar.title.text == "share of the score"
