"""Badges: right about maps whose worth is known, unasked, and never in the way of the map."""

import copy
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.simulator import maps, opened, run, turn_to, widget

from plugin.experiments.sanity import NEARLY_THE_SAME, Similarity, untrained
from plugin.explorer.inputs import offered_networks, offered_pictures
from plugin.explorer.maps import answers, badges
from plugin.explorer.maps.badges import CHANGED, MARGIN, Level
from plugin.explorer.maps.questions import Look, Question
from plugin.explorer.widgets import kept_results, map_badges

DIGITS, HEAD = offered_networks.open_network("mnist-classifier"), "head"
DIGIT = offered_pictures.sample("digit-3")


def look(change=None):
    """The classifier of digits that looks at a three; with other weights if they are changed."""
    if change is None:
        return Look(DIGITS, DIGIT)
    model = replace(DIGITS.model, network=change(DIGITS.model.network))
    return Look(replace(DIGITS, model=model, identity="changed"), DIGIT)


def random_head(network):
    network = copy.deepcopy(network)
    weight = network.get_submodule(HEAD).weight
    weight.normal_(float(weight.mean()), float(weight.std()), generator=torch.Generator().manual_seed(3))
    return network


def badge(method, beheld, sign=1.0, **question):
    asked = beheld.ask(Question(method, **({"target": 3} | question)))
    result = answers.compute(asked.subject, asked.picture.image, asked.question)
    return badges.measure(asked, replace(result, attribution=np.float32(sign) * result.attribution))


def levels(found):
    return [verdict.level for verdict in badges.verdicts(found)]


# The sentence of a badge


def test_of_a_trained_network():
    assert levels(badge("gradient", look())) == [Level.GOOD] * 3
    # The pattern shows where the strokes are, so that removal is predicted, but neither the weights nor the class.
    assert levels(badge("guided-backprop", look())) == [Level.BAD, Level.BAD, Level.GOOD]


@pytest.mark.parametrize("change", [untrained, random_head])
def test_of_random_weights(change):
    """Guided backprop draws the same picture without training: the badge says so of it, and not of the gradient."""
    assert levels(badge("guided-backprop", look(change)))[:2] == [Level.BAD, Level.BAD]
    assert Level.BAD not in levels(badge("gradient", look(change)))[:2]


def test_of_flipped_signs():
    good, flipped = (badge("lrp-epsilon-plus-flat", look(), sign) for sign in (1, -1))
    assert levels(good)[2] is Level.GOOD
    assert levels(flipped)[2] is Level.BAD
    assert "worse" in badges.short_text(flipped)
    assert float(flipped.removal.deletion_area) > float(good.removal.random_area) > float(good.removal.deletion_area)
    # The map of the other class has not been flipped: one that turned into its negative has changed.
    assert flipped.other_class[1].magnitude == pytest.approx(good.other_class[1].magnitude)
    assert flipped.other_class[1].signed == pytest.approx(-good.other_class[1].signed)


def test_that_turned_into_its_negative_has_changed():
    negative = badges.Badge(None, ("dog", Similarity(-0.9, 0.95)), None, {})
    assert levels(negative) == [Level.GOOD]
    assert badges.short_text(negative) == "on the class: yes (with signs -.90)"


@pytest.mark.parametrize(
    ("correlation", "level", "words"),
    [(CHANGED, Level.GOOD, "yes (.50)"), (NEARLY_THE_SAME, Level.MEDIUM, "partly (.70)"),
     (1.0, Level.BAD, "hardly (1.00)")],
)  # fmt: skip
def test_thresholds(correlation, level, words):
    found = badges.Badge(None, ("dog", Similarity(correlation, correlation)), None, {})
    assert levels(found) == [level]
    assert badges.short_text(found) == f"on the class: {words}"


def test_of_a_score_that_does_not_fall_with_removal():
    """Where the picture has no higher score than an empty one, the order of removal says nothing."""
    found = badge("gradient", look(), target=int(answers.outputs(DIGITS, DIGIT.image).argmin()))
    assert float(found.removal.fall) < 0 or float(found.removal.spread) > MARGIN
    assert levels(found)[2] is Level.UNKNOWN
    assert "cannot be told" in badges.short_text(found)


def test_class_that_is_compared_is_the_most_probable_other_one():
    order = answers.outputs(DIGITS, DIGIT.image).argsort()[::-1]
    names = [DIGITS.model.classes[index] for index in order]
    assert badge("gradient", look(), target=int(order[0])).other_class[0] == names[1]
    assert badge("gradient", look(), target=int(order[4])).other_class[0] == names[0]
    contrast = {"target": int(order[0]), "contrast": int(order[1])}
    assert badge("gradient", look(), **contrast).other_class[0] == names[2]


def test_of_a_neuron_without_picture_and_of_zeros_says_what_is_missing():
    layer = next(name for name, shape in DIGITS.layers.items() if len(shape) == 3)
    neuron = answers.largest(answers.responses(DIGITS, DIGIT.image, layer))
    found = badge("gradient", look(), target=None, layer=layer, neuron=neuron)
    assert found.weights is None
    assert found.other_class is None
    assert found.removal.deletion[0, 0] == pytest.approx(answers.responses(DIGITS, DIGIT.image, layer)[neuron])
    assert badges.short_text(found).endswith("not checked: weights, class")
    assert "the layers after a neuron" in badges.sentences(found)[-1]
    alone = badge("no-image", look(), target=None, layer=layer, neuron=neuron, unpooling="center")
    assert badges.short_text(alone).startswith("Not checked: a reconstruction without a picture")
    assert "zeros" in badges.short_text(badge("gradient", look(), 0.0))


def test_work_is_bounded_and_can_be_ended():
    asked = look().ask(Question("lrp-epsilon", target=3))
    result, pictures, reports = answers.compute(DIGITS, DIGIT.image, asked.question), [], []
    handle = DIGITS.model.network.register_forward_pre_hook(lambda _, arguments: pictures.append(len(arguments[0])))
    try:
        badges.measure(asked, result, lambda: reports.append(1))
    finally:
        handle.remove()
    assert sum(pictures) <= 44  # 38 for the curves and the probabilities, and those of the maps
    assert len(reports) >= 8

    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        badges.measure(asked, result, stop)


# On the pages


def shown(at):
    """The badges in words."""
    return [text.value for text in at.markdown if "-background[" in text.value]


def waiting(at):
    return sum("is being checked" in caption.value for caption in at.caption)


def drawn(at):
    """The page when all of its maps have a badge."""
    while waiting(at):
        at.session_state[map_badges._JOB].job.wait(1)
        run(at)
    return at


@pytest.fixture
def forgotten(monkeypatch):
    """No badge is kept from other tests."""
    monkeypatch.setattr(kept_results.badges, "_values", type(kept_results.badges._values)())


@pytest.mark.checks
@pytest.mark.usefixtures("forgotten")
@pytest.mark.parametrize(
    ("page", "query", "count"),
    [("", {}, 3), ("attribute", {"methods": "gradient,lrp-epsilon"}, 2), ("lrp", {}, 1)],
)
def test_badges_come_unasked_after_the_maps(page, query, count):
    at = opened(page, network="mnist-classifier", image="digit-3", **query)
    assert waiting(at) == count
    assert len(maps(at)) == (count if page else 0)
    at = drawn(at)
    assert len(shown(at)) == count
    assert all("Depends on the weights" in text and "removal" in text for text in shown(at))
    assert map_badges._JOB not in at.session_state
    # Kept: another visitor does not wait.
    assert len(shown(opened(page, network="mnist-classifier", image="digit-3", **query))) == count


@pytest.mark.usefixtures("forgotten")
def test_badges_that_are_measured_later_look_less_often(monkeypatch):
    """Twelve that look each second would leave a busy server time for nothing else."""
    seconds, fragment = [], map_badges.st.fragment

    def noted(function, run_every=None):
        if function is map_badges._draw:
            seconds.append(run_every)
        return fragment(function, run_every=run_every)

    monkeypatch.setattr(map_badges.st, "fragment", noted)
    opened(network="mnist-classifier", image="digit-3", methods="gradient,deconvnet,lrp-epsilon")
    assert seconds == [1.0, 2.0, 3.0]


@pytest.mark.checks
@pytest.mark.usefixtures("forgotten")
def test_curves_are_drawn_when_a_badge_is_opened():
    def curves():
        return [caption for caption in at.caption if "Deletion removes the most positive parts" in caption.value]

    at = drawn(opened("attribute", network="mnist-classifier", image="digit-3", methods="gradient"))
    assert not curves()
    (map_of_the_page,) = maps(at)
    at.session_state[map_of_the_page.key.replace("attribute.map.", "attribute.trust.")] = True
    run(at)
    assert len(curves()) == 1


@pytest.mark.checks
@pytest.mark.usefixtures("forgotten")
def test_maps_of_the_tour_have_theirs_with_their_titles():
    at = drawn(opened("tour", step="guided-backprop"))
    titles = [text.partition(": ")[0] for text in shown(at)]
    assert titles == [
        f"{label}, {network}"
        for network in ("model-c", "all-cnn-c")
        for label in ("Deconvnet, no switches", "Guided backprop")
    ]
    # Guided backprop hardly depends on the last layer, and says so.
    assert "hardly" in shown(at)[3]


@pytest.mark.checks
@pytest.mark.usefixtures("forgotten")
def test_page_that_is_left_and_view_that_is_changed_do_not_go_on(monkeypatch):
    reached, go_on, ended = threading.Event(), threading.Event(), []

    def measure(asked, result, report):
        reached.set()
        go_on.wait(60)
        try:
            report()
        finally:
            ended.append(asked.question.target)
        return badges.Badge(None, None, None, {})

    monkeypatch.setattr(badges, "measure", measure)
    at = opened(network="mnist-classifier", image="digit-3", methods="gradient", target="3")
    assert len(maps(at)) == 1  # while the check goes on
    assert reached.wait(60)
    first = at.session_state[map_badges._JOB].job
    run(widget(at, "selectbox", "target").set_value(4))
    second = at.session_state[map_badges._JOB].job
    assert second is not first
    turn_to(at, "benchmarks")
    run(at)
    assert map_badges._JOB not in at.session_state
    go_on.set()
    assert not first.wait(60).completed
    assert not second.wait(60).completed
    assert ended[0] == 3
    assert kept_results.badges.peek(("x",)) is None


@pytest.mark.checks
@pytest.mark.usefixtures("forgotten")
def test_check_that_fails_gets_a_sentence(monkeypatch):
    def measure(asked, result, report):
        raise RuntimeError("out of <memory>")

    monkeypatch.setattr(badges, "measure", measure)
    at = opened(network="mnist-classifier", image="digit-3", methods="gradient")
    if map_badges._JOB in at.session_state:
        at.session_state[map_badges._JOB].job.wait(60)
    run(at)
    assert "could not be checked" in at.warning[0].value
    assert "out of \\<memory\\>" in at.warning[0].value
