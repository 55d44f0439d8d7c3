"""The guided tour: its figures show the library's values, and its links open the pages they name."""

import io
import json
from functools import cache

import numpy as np
import pytest
from support.simulator import maps, opened, run, turn_to, widget

from plugin.explorer.app import PAGES
from plugin.explorer.choices.fitting import fit
from plugin.explorer.choices.offered_methods import lrp_key
from plugin.explorer.choices.settings import TOUR, Settings
from plugin.explorer.inputs import offered_networks
from plugin.explorer.inputs.offered_pictures import sample
from plugin.explorer.maps import ledgers, unit_pictures
from plugin.explorer.maps.answers import Answer
from plugin.explorer.maps.questions import Question
from plugin.explorer.pages.tour import step_findings, tour_steps

open_network = cache(offered_networks.open_network)


@cache
def found(step):
    return tour_steps.compute(step, open_network)


def test_steps_are_those_of_the_links():
    assert tuple(tour_steps.STEPS) == TOUR
    assert tour_steps.neighbours(TOUR[0])[0] == tour_steps.neighbours(TOUR[-1])[1] == ""
    assert [tour_steps.neighbours(step)[1] for step in TOUR[:-1]] == list(TOUR[1:])


def test_relu_rules_are_those_of_the_paper():
    x, signal = np.array(step_findings.FORWARD), np.array(step_findings.INCOMING)
    assert {(a > 0, b > 0) for a, b in zip(x.ravel(), signal.ravel(), strict=True)} == {
        (a, b) for a in (True, False) for b in (True, False)
    }
    arrays = found("relu-rules").arrays
    np.testing.assert_array_equal(arrays["Output relu(x)"], np.maximum(x, 0))
    np.testing.assert_array_equal(arrays["Gradient"], signal * (x > 0))
    np.testing.assert_array_equal(arrays["Deconvnet"], np.maximum(signal, 0))
    np.testing.assert_array_equal(arrays["Guided backprop"], np.maximum(signal, 0) * (x > 0))
    heatmaps = found("relu-rules").figure.data
    assert [list(map(float, row)) for row in heatmaps[3].text] == arrays["Gradient"].tolist()


def test_only_pooling_needs_the_picture():
    arrays = {name: Answer(values, 0, None) for name, values in found("switches").arrays.items()}
    assert unit_pictures.likeness(arrays["all-cnn-c, cat"], arrays["all-cnn-c, coffee"]) == pytest.approx(1, abs=1e-5)
    assert abs(unit_pictures.likeness(arrays["model-c, cat"], arrays["model-c, coffee"])) < 0.5
    assert all(result.attribution.any() for result in arrays.values())


def test_low_units_like_their_picture_and_high_ones_do_not():
    low, high = (float(part.split()[0]) for part in found("without-a-picture").finding.split(": ")[2:])
    assert low > 1 > high


def test_relevance_and_what_was_absorbed_stand_above_each_map():
    subject, shown = open_network("all-cnn-c"), found("conservation")
    ledger = ledgers.compute(subject, sample("cat").image, Question(lrp_key("epsilon_plus_flat"), 3))
    titles = [annotation.text for annotation in shown.figure.layout.annotations]
    assert f"LRP epsilon, z+, flat<br>{ledger.input:.3f} + {ledger.absorbed:.3f}" in titles
    sums = [sum(map(float, title.partition("<br>")[2].split(" + "))) for title in titles]
    assert sums == pytest.approx([ledger.output] * 4, abs=2e-3)
    assert shown.arrays["LRP epsilon, z+, flat"].sum() == pytest.approx(ledger.input, abs=1e-3)


def test_digits_of_both_generators_are_images():
    arrays = found("code-space").arrays
    assert {name: values.shape for name, values in arrays.items()} == dict.fromkeys(
        ("MLP GAN", "DCGAN"), (16, 1, 28, 28)
    )
    assert all(0 <= values.min() < values.max() <= 1 for values in arrays.values())


def test_invariance_grows_with_depth_and_training():
    trained, untrained = found("invariance").arrays.values()
    assert trained[-1] > trained[0]
    assert trained[-1] > untrained[-1]


@pytest.mark.parametrize("step", TOUR)
def test_step_has_words_numbers_and_a_page_to_go_on(step):
    shown, goal = found(step), tour_steps.STEPS[step]
    assert shown.alternative
    assert shown.finding
    assert shown.seconds > 0
    with np.load(io.BytesIO(tour_steps.npz(step, shown))) as file:
        settings = json.loads(str(file["settings"]))
        stored = {name: file[f"array_{index}"] for index, name in enumerate(settings["names"])}
        assert "torch" in json.loads(str(file["versions"]))
    assert settings["step"] == step
    assert all(np.array_equal(stored[name], values) for name, values in shown.arrays.items())
    assert goal.page in {page.path for page in PAGES}
    subject = open_network(goal.settings.network)
    fitted, notes = fit(goal.settings, subject.model.classes, subject.layers, subject.channels)
    assert fitted == goal.settings
    assert not notes


def test_snippet_gives_the_numbers_on_screen():
    program = tour_steps.program("relu-rules").replace("shown.figure.show()", "")
    names = {}
    exec(program, names)
    for name, values in found("relu-rules").arrays.items():
        np.testing.assert_array_equal(names["shown"].arrays[name], values)


def test_page_goes_from_step_to_step_and_on_with_the_state_of_the_step():
    at = opened("tour")
    assert at.subheader[0].value == "1. Three rules for one ReLU"
    assert all(chart.proto.alt for chart in at.get("plotly_chart"))
    run(at.button[1].click())
    assert at.query_params == {"step": "switches"}
    (link,) = at.get("page_link")
    assert link.proto.page == "deconvnet"
    query = dict(pair.split("=") for pair in link.proto.query_string.split("&"))
    assert query["neuron"] == "4.3.3"
    linked = opened("deconvnet", **query)
    assert not linked.warning
    wanted = tour_steps.STEPS["switches"].settings.to_query(next(p.uses for p in PAGES if p.path == "deconvnet"))
    # The step shows another network than the visitor's, which stays on all other pages.
    assert linked.query_params == wanted | {"alone": "1"}
    assert maps(linked)
    run(widget(at, "selectbox", "step").set_value("relu-rules"))
    assert at.query_params == {}
    run(at.button[1].click())
    run(at.button[0].click())
    assert at.subheader[0].value.startswith("1.")


def test_unknown_step_gets_a_sentence():
    at = opened("tour", step="<script>")
    assert at.warning[0].value.startswith("The link's step")
    assert at.subheader[0].value.startswith("1.")


def test_tour_leaves_what_the_other_pages_show():
    at = opened("attribute", target="5", image="coffee")
    at._page_hash = opened("tour")._page_hash
    at.query_params.clear()
    run(at)
    assert at.query_params == {"image": "coffee"}
    turn_to(at, "attribute")
    at.query_params.clear()
    run(at)
    assert at.query_params == {"target": "5", "image": "coffee"}
    assert Settings().step == TOUR[0]
