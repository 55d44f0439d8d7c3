"""The report of a view: one HTML file that says all that the page says, and nothing of it is rendered as markup."""

import base64
import io
import json
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from support.simulator import maps, opened, png, run, widget

from plugin import models
from plugin.datasets.network_identity import weights_sha256
from plugin.explorer.choices.offered_methods import METHODS
from plugin.explorer.choices.settings import Settings
from plugin.explorer.inputs import offered_networks, offered_pictures
from plugin.explorer.maps import answers, badges, reports
from plugin.explorer.maps.questions import Look, Question
from plugin.explorer.maps.reports import Added, ReportedView, Table
from plugin.explorer.maps.shown_maps import Shown
from plugin.explorer.server.kept_files import sent
from plugin.explorer.widgets import kept_results, map_columns

HOSTILE = "<img src=x onerror=alert(1)> &\"'{{ 7 * 7 }}"


class Page(HTMLParser):
    """The file as a browser reads it: its text, its programs, and the elements with their attributes."""

    def __init__(self, data):
        super().__init__()
        self.text, self.programs, self.elements, self._inside = "", [], [], []
        self.feed(data.decode())

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self._inside.append(tag)
        if tag == "pre":
            self.programs.append("")

    def handle_endtag(self, tag):
        while self._inside and self._inside.pop() != tag:
            pass

    def handle_data(self, data):
        if "style" in self._inside:
            return
        self.text += data
        if "pre" in self._inside:
            self.programs[-1] += data

    @property
    def addresses(self):
        """The addresses that a browser would fetch."""
        return [value for _, each in self.elements for name, value in each.items() if name in ("src", "srcset", "data")]


@pytest.fixture
def files(monkeypatch):
    """The files of the page that was drawn last, made when they are called, by their labels."""
    found = {}
    button = map_columns.download_button

    def noted(label, make, name, key, slim=False):
        found[label] = make, name
        button(label, make, name, key)

    monkeypatch.setattr(map_columns, "download_button", noted)
    return found


def report(files):
    make, name = files["Report of this view"]
    assert name.endswith(".html")
    return Page(make())


def executed(program):
    namespace = {}
    exec(program.replace("figure.show()", ""), namespace)
    return namespace


def written(value):
    """How a number may be printed: with six digits, or as the columns of the ledger."""
    return [format(value, form) for form in (".6g", ".4f", ".1e")] if isinstance(value, float) else [str(value)]


QUERIES = [
    ("attribute", {"methods": "gradient,guided-grad-cam,lrp-epsilon-gamma-box", "contrast": "5", "randomise": "1"}),
    ("attribute", {"explain": "neuron", "layer": "features.relu3", "neuron": "5.3.3", "methods": "deconvnet"}),
    ("deconvnet", {"network": "model-c", "layer": "features.relu4", "view": "colour"}),
    ("lrp", {"image": "rocket", "target": "0", "rules": "features.conv1:flat"}),
    ("compare", {"differs": "network", "b.network": "model-c"}),
]


@pytest.mark.parametrize(("page", "query"), QUERIES, ids=[f"{page}-{len(query)}" for page, query in QUERIES])
def test_report_has_every_number_of_the_page_and_programs_that_give_them(page, query, files):
    at = opened(page, **query)
    found = report(files)
    for table in at.dataframe:
        for value in table.value.to_numpy().ravel():
            assert any(form in found.text for form in written(value)), value
    for caption in at.caption:
        if " ms" in caption.value or "xcites" in caption.value:
            assert caption.value in found.text
    titles = [text.value.strip("*") for text in at.markdown if re.fullmatch(r"\*\*[^*]+\*\*", text.value)]
    assert titles
    assert all(title in found.text for title in titles)
    # The link, the names of the files and the programs are those of the page.
    blocks = [block.value for block in at.code]
    assert blocks[0] in found.text
    assert [program.strip() for program in found.programs] == [block for block in blocks if "explain = " in block]
    assert all(name.removesuffix(".npz") in found.text for _, name in files.values() if name.endswith(".npz"))


def test_program_of_a_report_gives_its_numbers(files):
    opened("lrp", image="rocket", target="0", rules="features.conv1:flat")
    found = report(files)
    (program,) = found.programs
    given = executed(program)
    data = files["NPZ of LRP epsilon, z+, flat"][0]()
    with np.load(io.BytesIO(data)) as arrays:
        np.testing.assert_allclose(given["attribution"], arrays["attribution"], atol=1e-6)
    values = given["attribution"].sum(0)
    row, column = np.unravel_index(values.argmax(), values.shape)
    assert f"{values.max():.3g} at row {row}, column {column}" in found.text
    ledger = given["ledger"]
    assert f"Logit {ledger.output:.5g} = input relevance {ledger.input:.5g}" in found.text
    for entry in ledger:
        assert f"{entry.entered:.4f}" in found.text
    network, image = models.load("all-cnn-c"), models.sample_images()["rocket"]
    with torch.no_grad():
        logits = network.network(network.preprocess(image))[0]
    for told in (f"{logits[0]:.6g}", f"{100 * logits.softmax(0)[0]:.2f}%", weights_sha256(network.network)):
        assert told in found.text
    for told in ("Flat(", "plugin.attr.LRPTranspose", "class 0, airplane", "rocket", "features.conv1"):
        assert told in found.text


def test_program_of_a_difference_gives_the_map_on_the_page(files):
    at = opened("compare", differs="network", **{"b.network": "mnist-classifier"})
    (chart,) = maps(at)
    drawn = json.loads(chart.proto.spec)["data"][-1]["z"]
    values = np.frombuffer(base64.b64decode(drawn["bdata"]), drawn["dtype"]).reshape(28, 28)
    difference = executed(report(files).programs[-1])["difference"]
    np.testing.assert_allclose(difference, values, atol=1e-5)


def test_report_opens_without_a_connection_and_runs_nothing(files):
    opened("lrp")
    found = report(files)
    assert found.addresses
    assert all(address.startswith("data:image/") for address in found.addresses)
    assert not [tag for tag, _ in found.elements if tag in ("script", "link", "iframe", "object", "form")]
    (policy,) = [each for tag, each in found.elements if tag == "meta" and "http-equiv" in each]
    assert policy["content"].startswith("default-src 'none'")
    for address in found.addresses:
        data = base64.b64decode(address.partition("base64,")[2])
        assert data[:4] == b"\x89PNG" or ET.fromstring(data).tag.endswith("svg")


def hostile_view():
    subject = offered_networks.open_network("all-cnn-c")
    classes = tuple(f"{HOSTILE} {index}" for index in range(10))
    named = replace(subject, model=replace(subject.model, classes=classes), identity=f"{HOSTILE}@0")
    picture = offered_pictures.own(sent(f"{HOSTILE}.png", png(models.sample_images()["coffee"])))
    asked = Look(named, picture).ask(Question("gradient", target=3))
    result = answers.compute(named, picture.image, asked.question)
    settings = Settings(
        image="upload", picture_name=f"{HOSTILE}.png", checkpoint="0123456789ab", checkpoint_name=f"{HOSTILE}.pt"
    )
    shown = Shown(settings, asked, result, 0.5)
    added = Added(tables=(Table(HOSTILE, [{HOSTILE: HOSTILE}]),), programs=((HOSTILE, HOSTILE),))
    return ReportedView(HOSTILE, f"http://127.0.0.1/?x={HOSTILE}", (shown,), added)


def test_names_of_files_and_classes_are_text():
    data = reports.html(hostile_view(), lambda shown: [(HOSTILE, HOSTILE)])
    found = Page(data)
    assert found.text.count(HOSTILE) > 15
    assert "49" not in re.findall(r"\{\{ (\d+)", found.text)
    assert {each.get("src", "data:")[:5] for tag, each in found.elements if tag == "img"} == {"data:"}
    assert not [each for _, each in found.elements if any(name.startswith("on") for name in each)]
    assert b"<img src=x" not in data
    # The name of the report has none of it.
    assert re.fullmatch(r"[A-Za-z0-9_.-]{10,200}", hostile_view().file)


def test_report_names_own_files_and_their_digests(files):
    state = {name: 2 * value for name, value in models.load("all-cnn-c").network.state_dict().items()}
    checkpoint = io.BytesIO()
    torch.save(state, checkpoint)
    picture = png(models.sample_images()["astronaut"])
    at = opened(methods="gradient")
    for name, file, data in (("weights.all-cnn-c", "mine.pt", checkpoint.getvalue()), ("file", "koala.png", picture)):
        run(widget(at, "file_uploader", name).set_value((file, data, "application/octet-stream")))
    found = report(files)
    assert files["Report of this view"][1].startswith("all-cnn-c-mine-koala-")
    for told in ("mine.pt", "koala.png", offered_pictures.digest(checkpoint.getvalue())):
        assert told in found.text
    assert offered_pictures.digest(picture) in found.text


def test_files_of_a_map_say_what_it_is(files):
    opened(methods="guided-backprop", target="5", view="colour")
    make, name = files["SVG of Guided backprop"]
    assert name.startswith("all-cnn-c-cat-5-dog-guided-backprop-")
    said = " ".join("".join(each.itertext()) for each in ET.fromstring(make()).iter("{http://www.w3.org/2000/svg}text"))
    for told in (
        "Guided backprop",
        "class 5, dog",
        "all-cnn-c; picture cat",
        METHODS["guided-backprop"].guide.quantity,
        "grey is",
    ):
        assert told in said
    assert files["PNG of Guided backprop"][0]()[:4] == files["Bare PNG of Guided backprop"][0]()[:4] == b"\x89PNG"


def test_badge_of_a_map_is_in_the_report(files):
    subject, picture = offered_networks.open_network("all-cnn-c"), offered_pictures.sample("flower")
    asked = Look(subject, picture).ask(Question("gradient", target=3))
    result = answers.compute(subject, picture.image, asked.question)
    kept = kept_results.badges.get(kept_results.of_asked(asked), lambda: badges.measure(asked, result))
    opened(methods="gradient", image="flower", target="3")
    assert badges.short_text(kept) in report(files).text
