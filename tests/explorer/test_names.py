"""One link, one title, one file name, one map; and the meaning of a map's colours."""

import io
import json
import re
from dataclasses import fields

import numpy as np
import pytest
import torch
from support.browser import ROOT
from support.simulator import maps, opened, png, run, turn_to

from plugin import models
from plugin.attr.method_guides import PAPERS
from plugin.explorer.app import PAGES
from plugin.explorer.choices.fitting import alone_with
from plugin.explorer.choices.method_texts import about
from plugin.explorer.choices.offered_methods import FIRST, METHODS, OF_PICTURES
from plugin.explorer.choices.settings import INPUTS, B, Settings
from plugin.explorer.inputs import offered_networks, offered_pictures
from plugin.explorer.inputs.own_weights import OwnWeights
from plugin.explorer.maps import answers, map_names, rendering
from plugin.explorer.maps.answers import Answer
from plugin.explorer.maps.questions import Look, Question
from plugin.explorer.pages.start import live_maps
from plugin.explorer.server.kept_files import sent

EVERYTHING = Settings(
    "model-c", image="coffee", methods=("lrp-epsilon",), target=3, contrast=5, layer="features.relu4", neuron=(1, 2, 3),
    view="positive", percentile=90.0, opacity=0.5, scale="shared", randomise=1, unpooling="uniform", frame="whole",
    preset="epsilon", rules=(("features.conv1", "flat"),), measured="resnet50", batch=16, generator="pixels",
    prior="box", runs=2, seed=3, steps=4, until="steps", stop_at=0.5, data="crops", count=50, ascent=5,
    step="switches", method="deconvnet", differs="target", b=(("target", 7),),
)  # fmt: skip


# Links


@pytest.mark.parametrize("page", PAGES, ids=[page.title for page in PAGES])
def test_link_of_a_page_has_what_the_page_uses_and_nothing_else(page):
    at = opened(page.path, **EVERYTHING.to_query())
    own = {name.partition(B)[0] or "b" for name in at.query_params}
    assert own - {"results"} <= {*INPUTS, *page.uses}
    assert at.query_params == EVERYTHING.to_query(page.uses) | {
        name: value for name, value in at.query_params.items() if name in ("layer", "neuron", "generator", "results")
    }
    # A setting that one page does not use is kept for the others.
    turn_to(at, "lrp")
    at.query_params.clear()
    run(at)
    assert "rules" in at.query_params
    assert at.query_params["preset"] == "epsilon"


def test_pages_list_settings_that_exist():
    names = {field.name for field in fields(Settings)}
    assert {*INPUTS}.union(*(page.uses for page in PAGES)) == names


def test_settings_that_say_nothing_are_not_used():
    assert "picture" not in Settings(picture="0123456789ab").used(())
    assert "picture" in Settings(image="upload", picture="0123456789ab").used(())
    attribute = next(page.uses for page in PAGES if page.path == "attribute")
    assert "layer" not in Settings(layer="x", neuron=(1,)).used(attribute)
    assert "layer" in Settings(layer="x", methods=("guided-grad-cam",)).used(attribute)
    assert {"layer", "neuron"} <= Settings(layer="x", neuron=(1,), explain="neuron").used(attribute)


def test_page_alone_starts_with_nothing_of_the_other_network():
    own = Settings("resnet18", checkpoint="0123456789ab", target=5, layer="x", rules=(("x", "flat"),))
    alone = alone_with(own, offered_networks.DIGITS)
    assert (alone.checkpoint, alone.target, alone.layer, alone.rules) == ("", None, "", ())
    assert alone.image == "digit-3"


# Titles and files


def titles(at):
    return [text.value for text in at.markdown if re.fullmatch(r"\*\*[^*]+\*\*", text.value)]


def test_changed_rule_changes_title_file_name_and_digest():
    rules = ("", "features.conv1:flat", "features.conv1:gamma", "features.conv1:flat,features.conv2:flat")
    seen = []
    for changed in rules:
        at = opened("lrp", target="3", **({"rules": changed} if changed else {}))
        title = titles(at)[0]
        assert [button.label for button in at.get("download_button")] == [
            *(f"{kind} of LRP epsilon, z+, flat" for kind in ("PNG", "SVG", "Bare PNG", "NPZ")),
            "Report of this view",
        ]
        seen.append(title)
    assert seen[0] == "**LRP epsilon, z+, flat**"
    assert seen[1] == seen[2] == "**LRP epsilon, z+, flat, 1 rule changed**"
    assert seen[3] == "**LRP epsilon, z+, flat, 2 rules changed**"


SUBJECT, CAT = offered_networks.open_network("all-cnn-c"), offered_pictures.sample("cat")


def named(question, settings=None, picture=CAT, limit=0.5, subject=SUBJECT):
    return map_names.map_file(Look(subject, picture).ask(question), settings or Settings(), limit)


def test_two_maps_with_one_name_are_one_map():
    flat, gamma = (("features.conv1", rule) for rule in ("flat", "gamma"))
    question = Question("lrp-epsilon", target=3)
    doubled = io.BytesIO()
    torch.save({k: 2 * v for k, v in SUBJECT.model.network.state_dict().items()}, doubled)
    other = offered_networks.open_network("all-cnn-c", OwnWeights(sent("all-cnn-c.pt", doubled.getvalue())))
    first, second = (
        offered_pictures.own(sent("same name.png", png(models.sample_images()[name]))) for name in ("coffee", "rocket")
    )
    uploaded = Settings(image="upload", picture_name="same name.png")
    names = [
        named(question),
        named(Question("lrp-epsilon", target=4)),
        named(Question("lrp-epsilon", target=3, contrast=4)),
        named(Question("lrp-epsilon", target=3, rules=(flat,))),
        named(Question("lrp-epsilon", target=3, rules=(gamma,))),
        named(Question("lrp-epsilon", target=3, rules=(flat, gamma))),
        named(Question("gradient", layer="features.conv2", neuron=(1, 2, 3))),
        named(Question("gradient", layer="features.conv2", neuron=(1, 2, 4))),
        named(question, uploaded, first),
        named(question, uploaded, second),
        named(question, subject=other),
        named(question, Settings(view="red")),
        named(question, Settings(opacity=0.5)),
        named(question, limit=0.25),
    ]
    assert len({*names}) == len(names)
    assert named(question) == names[0]
    assert names[0].startswith("all-cnn-c-cat-3-cat-lrp-epsilon-")
    assert names[3].startswith("all-cnn-c-cat-3-cat-lrp-epsilon-1-rule-changed-")
    assert names[8].startswith("all-cnn-c-same-name-3-cat-lrp-epsilon-")
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]{10,200}", name) for name in names)


def test_file_of_the_numbers_has_a_digest_of_what_the_map_depends_on():
    result = Answer(np.ones((3, 4, 4), np.float32), 0.0, None)

    def digest(question, picture=CAT, identity="all-cnn-c"):
        data = rendering.npz(result, Settings(), question, picture, 0.5, identity=identity)
        with np.load(io.BytesIO(data)) as arrays:
            return json.loads(str(arrays["settings"]))["digest"]

    plain = Question("lrp-epsilon", target=3)
    changed = Question("lrp-epsilon", target=3, rules=(("features.conv1", "flat"),))
    found = [digest(plain), digest(changed), digest(plain, offered_pictures.sample("china")), digest(plain, CAT, "x")]
    assert len({*found}) == len(found)
    assert digest(plain) == found[0]


@pytest.mark.parametrize(
    ("page", "query"),
    [("attribute", {"methods": "gradient,lrp-epsilon"}), ("deconvnet", {"network": "model-c"}), ("lrp", {}),
     ("tour", {}), ("benchmarks", {})],
)  # fmt: skip
def test_buttons_name_what_they_download(page, query):
    at = opened(page, **query)
    labels = [button.label for button in at.get("download_button")]
    assert len({*labels}) == len(labels) >= len(maps(at))
    assert all(" of " in label for label in labels)


# The colours


def test_every_method_says_what_its_colours_mean():
    assert all(method.reading.endswith(".") for method in METHODS.values())
    for method in METHODS.values():
        assert "speak" not in method.reading
        assert "no say" not in method.reading


def test_every_method_is_explained_with_a_paper_that_the_bibliography_has():
    bibliography = (ROOT / "docs" / "bibliography.md").read_text()
    for key, method in METHODS.items():
        guide = method.guide
        assert all((guide.reading, guide.quantity, guide.formula, guide.use, guide.avoid)), key
        assert PAPERS[guide.paper] in bibliography
        text = about(key)
        assert all(part in text for part in (method.label, guide.formula, guide.use, guide.avoid, PAPERS[guide.paper]))
    assert set(FIRST) < set(OF_PICTURES)
    assert OF_PICTURES[: len(FIRST)] == FIRST


@pytest.mark.parametrize("method", ["lrp-epsilon-plus", "lrp-epsilon-plus-flat", "lrp-excitation-backprop"])
def test_maps_that_draw_no_evidence_against_the_class_say_so(method):
    result = answers.compute(SUBJECT, CAT.image, Question(method, target=3))
    assert (result.attribution >= 0).all()
    assert "against the class is not drawn" in METHODS[method].reading


def test_map_of_fixed_amounts_may_be_mostly_blue():
    values = answers.compute(SUBJECT, CAT.image, Question("lrp-epsilon-alpha2-beta1", target=3)).attribution
    assert values.sum() < 0
    assert "may be mostly blue" in METHODS["lrp-epsilon-alpha2-beta1"].reading


def test_colour_bar_says_its_quantity():
    at = opened(methods="gradient,lrp-epsilon")
    bars = [json.loads(chart.proto.spec)["data"][-1]["colorbar"]["title"]["text"] for chart in maps(at)]
    assert bars == [METHODS[method].guide.quantity for method in ("gradient", "lrp-epsilon")]


def test_reading_stands_beneath_each_map():
    shown = {"attribute": ("gradient", "deconvnet", "guided-backprop"), "lrp": ("lrp-epsilon-plus-flat",)}
    for page, methods in shown.items():
        at = opened(page)
        captions = [caption.value for caption in at.caption]
        assert all(METHODS[method].reading in captions for method in methods)
        assert any(about(methods[0]) in text.value for text in at.markdown)


def test_maps_that_are_equal_are_said_to_be():
    at = opened(methods="lrp-0,gradient,lrp-attn-lrp")
    assert [info.value for info in at.info] == ["LRP-0 and AttnLRP give the same map here, bit by bit."]
    assert not opened(methods="gradient,lrp-epsilon").info


def test_opening_page_says_of_each_map_what_is_true_of_its_method():
    at = opened("")
    said = " ".join(text.value for text in [*at.markdown, *at.caption])
    assert "no say" not in said
    assert "speak" not in said
    for method in live_maps.SHOWN:
        assert f"**{METHODS[method].label}**: {METHODS[method].reading}" in said


def test_sentence_on_the_gradient_holds():
    """A small step along one pixel moves the score as the colour says; the sentence claims no more."""
    inputs = SUBJECT.model.preprocess(CAT.image).double()
    network = models.load("all-cnn-c").network.double()
    inputs.requires_grad_()
    score = network(inputs)[0, 3]
    (gradient,) = torch.autograd.grad(score, inputs)
    summed = gradient.sum(1)[0]
    strongest = summed.abs().flatten().topk(20).indices
    for place in strongest.tolist():
        row, column = divmod(place, summed.shape[1])
        moved = inputs.detach().clone()
        moved[0, :, row, column] += 1e-4
        change = float(network(moved)[0, 3] - score.detach())
        assert change * float(summed[row, column]) > 0
