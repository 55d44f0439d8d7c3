"""The Compare page: A is the map of the other pages, B differs in one thing, and both stand in the link."""

import io
import json
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import streamlit as st
import torch
from scipy.stats import spearmanr
from support.simulator import maps, opened, png, programs, run, turn_to, widget

from plugin import models
from plugin.explorer.choices.settings import B, Settings, from_query
from plugin.explorer.inputs import offered_networks, offered_pictures
from plugin.explorer.maps import answers, comparisons
from plugin.explorer.maps.questions import Look, Question
from plugin.explorer.maps.shown_maps import Shown
from plugin.explorer.pages.compare import sides
from plugin.explorer.server.untrusted_text import quoted

PHOTOGRAPH = png(models.sample_images()["astronaut"])
NETWORKS, SAMPLES = offered_networks.choices(), offered_pictures.samples()


@pytest.fixture(scope="module")
def doubled():
    file = io.BytesIO()
    torch.save({name: 2 * value for name, value in models.load("all-cnn-c").network.state_dict().items()}, file)
    return file.getvalue()


def captions(at):
    return [caption.value for caption in at.caption]


def measures(at):
    return dict(zip(at.dataframe[0].value["Measure"], at.dataframe[0].value["A and B"], strict=True))


# The settings


@pytest.mark.parametrize(
    ("differs", "own"),
    [
        ("method", {"method": "lrp-epsilon"}),
        ("target", {"target": 0}),
        ("network", {"network": "model-c", "checkpoint": "0123456789ab", "checkpoint_name": "mine.pt"}),
        ("network", {"network": "all-cnn-c", "checkpoint": "", "checkpoint_name": ""}),
        ("image", {"image": "upload", "picture": "0123456789ab", "picture_name": "a, b=c&d.png"}),
        ("image", {"image": "cat", "picture": "", "picture_name": ""}),
    ],
)
def test_link_has_both_sides(differs, own):
    settings = Settings(target=5, differs=differs, b=tuple(own.items()), checkpoint="ba9876543210")
    query = settings.to_query()
    found, notes = from_query(query, NETWORKS, SAMPLES)
    assert not notes
    assert found == replace(settings, b=found.b)
    assert dict(found.b).items() >= own.items()
    assert f"{B}{differs}" in query
    assert {name: getattr(settings.beside, name) for name in own} == own
    assert settings.beside.opacity == settings.opacity


def test_bad_value_of_b_gets_a_sentence():
    for name, value in (("method", "<b>"), ("network", "../x"), ("image", "drawing"), ("target", "-1")):
        settings, notes = from_query({"differs": name, B + name: value}, NETWORKS, SAMPLES)
        assert settings.b == ()
        assert f"{B}{name} {quoted(value)}" in notes[0]
    # Only settings of the chosen difference are shown.
    assert from_query({"b.target": "3", "b.view": "red"}, NETWORKS, SAMPLES) == (Settings(), [])


@pytest.mark.parametrize("differs", ["method", "target", "network", "image"])
def test_b_starts_as_a_copy_of_a_but_for_one_thing(differs):
    shares = np.array([0.1, 0.6, 0.3], np.float32)
    a = Settings(target=1, differs=differs)
    b = sides.with_b(a, shares).beside
    assert [name for name in Settings.__dataclass_fields__ if getattr(a, name) != getattr(b, name)] == [differs]
    assert b.target == (2 if differs == "target" else 1)
    chosen = sides.with_b(a, shares)
    assert sides.with_b(chosen, shares) == chosen
    own = Settings(differs="network", checkpoint="0123456789ab", checkpoint_name="mine.pt")
    assert sides.with_b(own, shares).beside == Settings(differs="network")


# The numbers


network_called = cache(offered_networks.open_network)


def shown(method="gradient", side="A", network="all-cnn-c", picture="cat", target=3):
    look = Look(network_called(network), offered_pictures.sample(picture))
    asked = look.ask(Question(method, target=target))
    result = answers.compute(look.subject, look.picture.image, asked.question)
    return Shown(Settings(network, image=picture), asked, result, 0.5, side=side)


def test_measures_of_likeness():
    a, b = shown(), shown("guided-backprop", "B")
    found = comparisons.compared(a, b)
    told = {row["Measure"]: row["A and B"] for row in comparisons.measures(found)}
    one, other = (each.result.attribution.sum(0, dtype=np.float64).ravel() for each in (a, b))
    assert told["Rank correlation of the maps"] == f"{spearmanr(one, other).statistic:.3f}"
    assert told["Rank correlation of their magnitudes"] == f"{spearmanr(abs(one), abs(other)).statistic:.3f}"
    assert told["Cosine"] == f"{one @ other / np.linalg.norm(one) / np.linalg.norm(other):.3f}"
    both = (one != 0) & (other != 0)
    assert told["Pixels of one sign"] == f"{np.mean(one[both] * other[both] > 0):.3f}"
    strong = [abs(each) >= np.sort(abs(each))[-102] for each in (one, other)]
    assert told["Strongest tenth in common"] == f"{(strong[0] & strong[1]).sum() / 102:.3f}"


def test_maps_are_scaled_where_their_units_differ():
    a = shown()
    assert comparisons.compared(a, shown("deconvnet")).scaled
    assert comparisons.compared(a, shown(network="model-c")).scaled
    for same in (shown(target=5), shown(picture="coffee")):
        found = comparisons.compared(a, same)
        assert not found.scaled
        np.testing.assert_array_equal(found.difference, found.second - found.first)
    assert "units of the two differ" in comparisons.explanation(comparisons.compared(a, shown("deconvnet")))
    digits = comparisons.compared(a, shown(network="mnist-classifier"))
    assert digits.first.shape == digits.second.shape == digits.difference.shape == (28, 28)
    assert "28 x 28 pixels" in comparisons.explanation(digits)


def test_equal_and_zero_maps():
    a = shown()
    assert comparisons.compared(a, a).equal
    assert {row["A and B"] for row in comparisons.measures(comparisons.compared(a, a))} == {"1.000"}
    zero = Shown(a.settings, a.asked, answers.Answer(np.zeros((3, 32, 32), np.float32), 0.0, None), 0.0)
    assert {row["A and B"] for row in comparisons.measures(comparisons.compared(a, zero))} == {"not defined"}


# The page


def test_first_view_compares_two_methods():
    at = opened("compare")
    assert len(maps(at)) == 1
    titles = [text.value for text in at.markdown if text.value.startswith("**")]
    assert titles == ["**A: Gradient**", "**B: Guided backprop**", "**B minus A**"]
    assert at.query_params == {"b.method": "guided-backprop"}
    assert len(programs(at)) == 3
    assert float(measures(at)["Cosine"]) < 1


@pytest.mark.parametrize(
    ("differs", "name", "value"),
    [("method", "method", "lrp-epsilon"), ("target", "target", 5), ("network", "network", "model-c"),
     ("image", "image", "coffee")],
)  # fmt: skip
def test_each_difference_can_be_chosen_and_stands_in_the_link(differs, name, value):
    at = opened("compare", method="deconvnet", target="3")
    run(widget(at, "segmented_control", "differs").set_value(differs))
    run(widget(at, "selectbox", f"b.{name}").set_value(value))
    assert at.query_params[f"b.{name}"] == str(value)
    first, second, _ = programs(at)
    assert first != second
    again = opened("compare", **at.query_params)
    assert programs(again) == programs(at)
    assert again.query_params == at.query_params
    assert not at.warning


def test_own_files_are_a_and_b(doubled):
    at = opened("compare", differs="network", target="3")
    run(widget(at, "selectbox", "b.network").set_value("all-cnn-c"))
    assert "equal, number for number" in at.info[0].value
    run(widget(at, "file_uploader", "b.weights.all-cnn-c").set_value(("mine.pt", doubled, "application/octet-stream")))
    assert "checkpoint" not in at.query_params
    assert at.query_params["b.checkpoint_name"] == "mine.pt"
    first, second, _ = programs(at)
    assert "mine.pt" not in first
    assert "checkpoint='mine.pt'" in second
    assert not at.info
    assert "B: network all-cnn-c, weights `mine.pt`, picture cat" in captions(at)
    assert programs(opened("compare", **at.query_params)) == programs(at)
    # How its pictures are prepared is B's own, too.
    (side,) = [field for field in at.number_input if field.key.startswith("attribute.b.preprocessing") and
               field.key.endswith("crop")]  # fmt: skip
    side.set_value(24)
    (use,) = [button for button in at.button if button.label == "Use for its pictures"]
    run(use.click())
    assert at.query_params["b.crop"] == "24"
    assert "crop" not in at.query_params
    # Another network of B has weights of its own, and A keeps its own.
    run(widget(at, "selectbox", "b.network").set_value("model-c"))
    assert not {"b.checkpoint", "b.crop"} & {*at.query_params}
    run(widget(at, "segmented_control", "differs").set_value("image"))
    run(widget(at, "file_uploader", "b.file").set_value(("koala.png", PHOTOGRAPH, "image/png")))
    assert at.query_params["b.picture_name"] == "koala.png"
    assert "image" not in at.query_params
    first, second, _ = programs(at)
    assert "'cat'" in first
    assert "koala.png" in second
    # And as A, which all pages then have.
    run(widget(at, "file_uploader", "weights.all-cnn-c").set_value(("mine.pt", doubled, "application/octet-stream")))
    assert all("checkpoint='mine.pt'" in program for program in programs(at))
    turn_to(at, "attribute")
    at.query_params.clear()
    run(at)
    assert at.query_params["checkpoint_name"] == "mine.pt"
    assert not [name for name in at.query_params if name.startswith(B)]


def test_link_asks_for_the_file_of_b_and_warns_of_another(doubled):
    wanted = {"b.network": "all-cnn-c", "b.checkpoint": "0123456789ab", "b.checkpoint_name": "wanted.pt"}
    at = opened("compare", differs="network", **wanted)
    assert "needs the checkpoint `wanted.pt`" in at.info[0].value
    assert not maps(at)
    assert at.query_params == {"differs": "network", **wanted}
    run(widget(at, "file_uploader", "b.weights.all-cnn-c").set_value(("mine.pt", doubled, "application/octet-stream")))
    assert len(maps(at)) == 1
    assert "it needs `wanted.pt`" in at.warning[0].value


def test_networks_of_other_classes_are_compared_by_the_name_of_the_class():
    assert sides.target_of_b(Settings(), 2, "abc", "cbd", np.zeros(3)) == 0
    assert sides.target_of_b(Settings(), 2, "abc", "xyz", np.array([0, 1, 0])) == 1
    assert sides.target_of_b(Settings(), 2, "abc", "abc", np.array([0, 1, 0])) == 2
    at = opened("compare", differs="network", **{"b.network": "mnist-classifier"})
    assert any(caption.startswith("mnist-classifier, class") for caption in captions(at))


def test_attribute_page_leads_here_with_its_first_method():
    at = opened(methods="lrp-epsilon,gradient", target="5")
    (query,) = [link.proto.query_string for link in at.get("page_link") if link.proto.page == "compare"]
    assert query == "target=5&method=lrp-epsilon"


@pytest.mark.parametrize(("browser", "stacked"), [("Android 15; Mobile Safari/537.36", True), ("X11; Linux", False)])
def test_maps_stand_below_each_other_on_a_phone(browser, stacked, monkeypatch):
    monkeypatch.setattr(type(st.context), "headers", property(lambda _: {"User-Agent": browser}))
    at = opened("compare", image="cat")
    (figure,) = [json.loads(chart.proto.spec) for chart in at.get("plotly_chart")]
    tops = {figure["layout"][name]["domain"][1] for name in ("yaxis", "yaxis2", "yaxis3")}
    assert len(tops) == (3 if stacked else 1)
