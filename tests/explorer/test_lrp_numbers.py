"""Epsilon, gamma and alpha of LRP: in the link, the title, the names of files, the digest and the program."""

import inspect
from dataclasses import replace

import numpy as np
import pytest
from support.simulator import opened, press, programs, run, widget

from plugin.attr import LRPTranspose
from plugin.explorer.app import PAGES
from plugin.explorer.choices.offered_rules import NUMBERS, numbers_of
from plugin.explorer.choices.settings import Settings, from_query
from plugin.explorer.inputs import offered_networks
from plugin.explorer.inputs.offered_pictures import sample
from plugin.explorer.maps import answers, ledgers, map_names, map_programs
from plugin.explorer.maps.questions import Look, lrp_question
from plugin.rules import presets
from plugin.rules.presets import PRESETS

CAT = sample("cat")
(LRP,) = (page for page in PAGES if page.path == "lrp")
GAMMA = Settings(preset="epsilon_gamma_box", gamma=0.4, epsilon=1 / 3, target=3)


@pytest.fixture(scope="module")
def look():
    return Look(offered_networks.open_network("all-cnn-c"), CAT)


def test_presets_have_the_numbers_that_the_page_begins_with():
    taken = {name: inspect.signature(make).parameters for name, make in PRESETS.items()}
    defaults = {(name, own): taken[name][own].default for name in taken for own in NUMBERS if own in taken[name]}
    assert {own for _, own in defaults} == {*NUMBERS}
    assert all(value == NUMBERS[own] for (_, own), value in defaults.items())


def test_a_link_has_the_numbers_that_count_with_all_their_digits():
    query = GAMMA.to_query(LRP.uses)
    assert (query["gamma"], query["epsilon"]) == ("0.4", repr(1 / 3))
    assert from_query(query, ["all-cnn-c"], ["cat"]) == (GAMMA, [])
    assert not {*NUMBERS} & {*replace(GAMMA, preset="lrp_0").to_query(LRP.uses)}
    assert "gamma" not in replace(GAMMA, preset="epsilon_plus").to_query(LRP.uses)
    assert "gamma" in replace(GAMMA, preset="lrp_0", rules=(("features.conv2", "gamma"),)).to_query(LRP.uses)


@pytest.mark.parametrize("text", ["-1", "nan", "1e9", "many"])
def test_a_link_with_another_number_falls_back_and_says_so(text):
    settings, (note,) = from_query({"alpha": text}, [], [])
    assert settings.alpha == NUMBERS["alpha"]
    assert "is not a number from 1 to 100" in note


def test_another_number_is_another_map_with_another_title_name_and_digest(look):
    asked = [look.ask(lrp_question(settings, 3)) for settings in (GAMMA, replace(GAMMA, gamma=0.5))]
    first, second = (answers.compute(look.subject, CAT.image, each.question).attribution for each in asked)
    assert not np.array_equal(first, second)
    titles = [map_names.title(each.question) for each in asked]
    assert titles[1] == f"LRP epsilon, gamma, box, epsilon = {1 / 3!r}, gamma = 0.5"
    files = [map_names.map_file(each, GAMMA, 1.0) for each in asked]
    assert "gamma-0.5" in files[1]
    digests = [map_names.map_digest("network", CAT.digest, each.question, "cpu") for each in asked]
    assert len({*titles}) == len({*files}) == len({*digests}) == 2


def test_numbers_that_do_not_count_or_are_the_defaults_change_nothing():
    plain = lrp_question(Settings(preset="epsilon_plus"), 3)
    assert lrp_question(Settings(preset="epsilon_plus", gamma=3, alpha=5, epsilon=NUMBERS["epsilon"]), 3) == plain
    assert plain.numbers == ()


def test_the_title_does_not_name_two_alphas():
    question = lrp_question(Settings(preset="epsilon_alpha2_beta1", alpha=3.0), 3)
    assert map_names.title(question) == "LRP epsilon, alpha beta, alpha = 3"


def test_the_map_is_that_of_the_library(look):
    subject = look.subject
    expected = LRPTranspose(subject.model.network, presets.epsilon_alpha2_beta1_flat(epsilon=0.1, alpha=3.0)).attribute(
        subject.preprocess(CAT.image), 3
    )
    question = lrp_question(Settings(preset="epsilon_alpha2_beta1_flat", epsilon=0.1, alpha=3.0), 3)
    np.testing.assert_array_equal(answers.compute(subject, CAT.image, question).attribution, expected[0].numpy())


@pytest.mark.parametrize(
    "settings",
    [
        GAMMA,
        replace(GAMMA, rules=(("features.conv2", "alpha2-beta1"),), alpha=1.5),
        Settings(preset="lrp_0", rules=(("features.conv1", "gamma"),), gamma=2.0, contrast=5),
    ],
)
def test_the_program_gives_the_same_numbers(look, settings):
    question = lrp_question(settings, 3)
    assert question.numbers
    code = map_programs.program(settings, question, CAT, 1.0, look.subject, ledger=True).replace("figure.show()", "")
    found: dict = {}
    exec(code, found)
    np.testing.assert_array_equal(found["attribution"], answers.compute(look.subject, CAT.image, question).attribution)
    rows = ledgers.rows(ledgers.compute(look.subject, CAT.image, question), look.ask(question))
    # Every rule has its short name, which the table can change: none is written as a call.
    assert not [row for row in rows if "(" in row.rule]


def test_rules_of_layers_have_the_numbers_of_the_page(look):
    question = lrp_question(Settings(preset="lrp_0", rules=(("features.conv2", "alpha2-beta1"),), alpha=3.0), 3)
    assert numbers_of("lrp_0", question.rules) == ("alpha",)
    rows = ledgers.rows(ledgers.compute(look.subject, CAT.image, question), look.ask(question))
    (rule,) = {row.rule for row in rows if row.layer == "features.conv2"}
    assert (rule, ledgers.rule_label(rule, question)) == ("alpha2-beta1", "alpha3-beta2")


def test_the_page_takes_a_number_and_gives_it_back():
    at = opened("lrp", preset="epsilon_gamma_box", target="3")
    assert {field.label for field in at.sidebar.number_input} == {"Epsilon", "Gamma"}
    before = programs(at)
    run(widget(at, "number_input", "gamma").set_value(0.5))
    assert at.query_params["gamma"] == "0.5"
    assert "gamma=0.5" in programs(at)[0]
    assert any("gamma = 0.5" in text.value for text in at.markdown)
    press(at, "Back to the preset")
    assert "gamma" not in at.query_params
    assert programs(at) == before
