"""Logits, probabilities or log-probabilities: all pages know the kind of output that a network returns."""

import re
from dataclasses import replace

import pytest
import torch
from support import headed_networks
from support.simulator import opened

from plugin import models
from plugin.datasets import Explain
from plugin.explorer.choices.settings import Settings
from plugin.explorer.inputs import offered_networks
from plugin.explorer.inputs.folder_predictions import FolderPredictions
from plugin.explorer.inputs.offered_pictures import sample
from plugin.explorer.inputs.picture_collections import of_samples
from plugin.explorer.maps import answers, ledgers, reports
from plugin.explorer.maps.questions import Look, Question
from plugin.explorer.maps.reports import Added, ReportedView
from plugin.explorer.maps.shown_maps import Shown
from plugin.heads import HEADS, find_head, probabilities

# LRP tells that it explains the logits, or that a softmax hides them.
pytestmark = pytest.mark.filterwarnings("ignore:the model ends in a:UserWarning")
CAT = sample("cat")
# By the name of the network: its head, and the name of its output for the class cat.
HEADED = {
    "softmax": ("softmax", "probability"),
    "log_softmax": ("log-softmax", "log probability"),
    "sigmoid": ("sigmoid", "probability"),
    "one_logit": ("logits", "logit"),
}


def name_of(network):
    return f"{headed_networks.__name__}:{network}"


@pytest.fixture(autouse=True)
def offered(monkeypatch):
    monkeypatch.setattr(offered_networks, "_own", {})
    for network in HEADED:
        offered_networks.add(name_of(network))


@pytest.fixture(scope="module")
def logits():
    model = models.load(headed_networks.LOGITS)
    with torch.no_grad():
        return model.network(model.preprocess(CAT.image))[0]


@pytest.fixture(params=HEADED)
def headed(request, logits):
    """A network, its class cat, and the probability that it gives it."""
    head, called = HEADED[request.param]
    spread = logits.softmax(0) if "softmax" in head else logits.sigmoid()
    target = 0 if request.param == "one_logit" else 3
    return offered_networks.open_network(name_of(request.param)), head, called, target, float(spread[3])


def test_the_head_is_read_when_a_network_is_opened(headed):
    subject, head, *_ = headed
    assert subject.head == head
    assert offered_networks.open_network(headed_networks.LOGITS).head == "logits"


def test_a_picture_has_the_probability_that_the_head_defines(headed):
    subject, head, _, target, expected = headed
    found = answers.probabilities(head, answers.outputs(subject, CAT.image))
    assert found[target] == pytest.approx(expected, rel=1e-5)


def test_pictures_of_a_folder_have_it_too(headed):
    subject, _, _, target, expected = headed
    collection = of_samples(grey=False)
    predictions = FolderPredictions(subject, collection)
    row = [record.id for record in collection.records].index("cat")
    predictions.predict({row: pixels for row, pixels in predictions.read([row]) if pixels is not None})
    found = predictions.findings()
    assert found.predicted[row] == target
    assert found.confidence[row] == pytest.approx(expected, rel=1e-4)


def test_maps_of_a_data_set_have_it_too(headed):
    subject, _, _, target, expected = headed
    for method in ("gradient", "lrp-epsilon"):
        explain = Explain(subject.model, method, target, device="cpu")
        (found,) = explain.explain_pixels(subject.model.preprocessing.pixels(CAT.image)[None], None)["probability"]
        assert found == pytest.approx(expected, rel=1e-4)


def test_a_report_calls_the_output_what_it_is(headed):
    subject, _, called, target, expected = headed
    settings = Settings(network=subject.name, target=target)
    asked = Look(subject, CAT).ask(Question("gradient", target))
    shown = Shown(settings, asked, answers.compute(subject, CAT.image, asked.question), 1.0)
    text = reports.html(ReportedView("Attribute", "http://127.0.0.1", (shown,), Added()), lambda _: ()).decode()
    output = float(answers.outputs(subject, CAT.image)[target])
    assert f'<th scope="row">{called.capitalize()}</th><td>{output:.6g}</td>' in text
    assert f">{100 * expected:.2f}%</td>" in text
    assert ("Logit" in text) == (called == "logit")


@pytest.mark.parametrize("network", HEADED)
@pytest.mark.parametrize("page", ["attribute", "lrp", "compare"])
def test_pages_show_it(page, network, logits):
    head, called = HEADED[network]
    at = opened(page, network=name_of(network), target="0" if network == "one_logit" else "3")
    share = float((logits.softmax(0) if "softmax" in head else logits.sigmoid())[3])
    said = [caption.value for caption in at.caption]
    if page == "compare":
        (side, *_) = [text for text in said if "probability" in text and "class" in text and "%" in text]
        assert f"probability {share:.2%}" in side.replace("\\", "")
        returned = "" if called == "probability" else rf"{called} -?[0-9.]+, "
        assert re.search(rf"cat: {returned}probability {share:.2%}", side.replace("\\", ""))
        return
    bars = next(chart for chart in at.get("plotly_chart") if "attribute.bars" in chart.proto.id)
    assert f"cat {share:.0%}" in bars.proto.alt
    assert any(text.startswith("The network ends in a") for text in said) == (head != "logits")
    assert any(box.label == f"Minus the {called} of" for box in at.selectbox)


def test_the_ledger_of_a_log_softmax_begins_at_the_logit(logits):
    subject = offered_networks.open_network(name_of("log_softmax"))
    asked = Look(subject, CAT).ask(Question("lrp-epsilon", 3))
    ledger = ledgers.compute(subject, CAT.image, asked.question)
    assert ledgers.balance(ledger, asked).startswith(f"Logit {float(logits[3]):.5g} = ")
    softmax = replace(asked, look=Look(offered_networks.open_network(name_of("softmax")), CAT))
    ledger = ledgers.compute(softmax.subject, CAT.image, softmax.question)
    assert re.match(r"Probability [0-9.]+ = ", ledgers.balance(ledger, softmax))


def test_outputs_between_0_and_1_of_no_known_operation_are_in_doubt():
    assert find_head(torch.tensor([[0.2, 0.9]])) is None
    assert find_head(torch.tensor([[0.2, 0.8]])) == "softmax"
    assert find_head(torch.tensor([[0.2, 1.8]])) == "logits"


@pytest.mark.parametrize("head", HEADS)
def test_probabilities_are_those_below_the_head(head):
    torch.manual_seed(0)
    values = torch.randn(5, 3)
    made = {"logits": values, "softmax": values.softmax(1), "log-softmax": values.log_softmax(1)}
    outputs = made.get(head, values.sigmoid())
    expected = values.sigmoid() if head == "sigmoid" else values.softmax(1)
    torch.testing.assert_close(probabilities(head, outputs), expected)
