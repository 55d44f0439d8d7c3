"""Units of twin networks, drawings, jobs, own networks and checkpoints: the explorer's logic without Streamlit."""

import hashlib
import io
import threading
import time
import urllib.request
from functools import cache, partial

import numpy as np
import pytest
import torch
from torch import nn

from plugin import figures, models
from plugin.attr import DeconvNet
from plugin.explorer.choices.settings import Settings
from plugin.explorer.inputs import (
    drawn_digit,
    offered_networks,
    offered_pictures,
    own_weights,
    weight_downloads,
)
from plugin.explorer.inputs.own_weights import OwnWeights
from plugin.explorer.maps import answers, map_programs, sanity_checks, unit_pictures
from plugin.explorer.maps.answers import Answer
from plugin.explorer.maps.questions import Question
from plugin.explorer.pages.deconvnet import twin_networks, unit_squares
from plugin.explorer.server import jobs
from plugin.explorer.server.jobs import Job
from plugin.explorer.server.kept_files import sent

CAT = offered_pictures.sample("cat")
opened = cache(offered_networks.open_network)


def asked(subject, picture, method, layer, neuron, unpooling=""):
    return answers.compute(subject, picture.image, Question(method, layer=layer, neuron=neuron, unpooling=unpooling))


# Units


def test_counterparts_have_the_same_shape_where_there_is_one():
    first, second = opened("all-cnn-c").layers, opened("model-c").layers
    for layer, other in {"relu2": "relu2", "relu3": "pool2", "relu5": "relu4", "class_conv": "class_conv"}.items():
        assert twin_networks.counterpart(f"features.{layer}", first, second) == f"features.{other}"
    for layer, shape in first.items():
        assert second[twin_networks.counterpart(layer, first, second)] == shape
    assert twin_networks.counterpart("b", {"a": (3, 9, 9), "b": (3, 5, 5)}, {"c": (1, 2, 2), "d": (1, 1, 1)}) == "d"


def test_twin_shows_the_same_class_or_its_own_most_active_unit():
    first, second = opened("all-cnn-c"), opened("model-c")
    for layer, neuron in (("class_conv", (3, 1, 2)), ("relu5", (0, 1, 2))):
        other = twin_networks.counterpart(f"features.{layer}", first.layers, second.layers)
        responses = answers.responses(second, CAT.image, other)
        settings = Settings(layer=f"features.{layer}", neuron=neuron)
        expected = neuron if layer == "class_conv" else answers.largest(responses)
        assert twin_networks.twin_settings(settings, first, second, responses).neuron == expected


def test_deconvnet_is_checked_once_for_all_units_of_a_layer(monkeypatch):
    checks, check = [], DeconvNet._check
    monkeypatch.setattr(DeconvNet, "_check", lambda self: (checks.append(self.layer), check(self)))
    pooled = opened("model-c")
    assert unit_pictures.is_pooled(pooled, "features.relu4")
    for channel in range(3):
        asked(pooled, CAT, "no-image", "features.relu4", (channel, 3, 3), "center")
    assert len(checks) == 1


def test_pictures_without_a_picture_do_not_depend_on_it():
    pooled, plain = opened("model-c"), opened("all-cnn-c")
    assert unit_pictures.is_pooled(pooled, "features.relu4")
    assert not unit_pictures.is_pooled(pooled, "features.relu2")
    assert not unit_pictures.is_pooled(plain, "features.relu7")
    china = offered_pictures.sample("china")
    for subject, unpooling, conditioned in ((plain, "", "deconvnet"), (pooled, "corner", "deconvnet-corner")):
        free = asked(subject, CAT, "no-image", "features.relu4", (5, 3, 3), unpooling)
        for picture in (CAT, china):
            other = asked(subject, picture, conditioned, "features.relu4", (5, 3, 3))
            assert unit_pictures.likeness(free, other) == pytest.approx(1, abs=1e-4)
    with_switches = [asked(pooled, picture, "deconvnet", "features.relu4", (5, 3, 3)) for picture in (CAT, china)]
    assert unit_pictures.likeness(*with_switches) < 0.99


def test_box_is_the_smallest_square_with_a_margin():
    first, second = np.zeros((2, 3, 20, 30), np.float32)
    first[0, 4, 7] = second[2, 9, 8] = 1
    assert unit_pictures.box([first, second], margin=0) == ((4, 10), (5, 11))
    assert unit_pictures.box([first, second]) == ((3, 11), (4, 12))
    corner = np.zeros((1, 20, 30), np.float32)
    corner[0, 0, 29] = 1
    assert unit_pictures.box([corner], margin=2) == ((0, 5), (25, 30))
    assert unit_pictures.box([np.zeros((3, 20, 30))]) == ((0, 20), (0, 30))
    assert unit_pictures.box([np.ones((3, 20, 30))]) == ((0, 20), (0, 30))


def test_excitation_is_one_for_the_picture_itself_and_grows_with_its_contrast():
    subject = opened("all-cnn-c")
    inputs = subject.model.preprocess(CAT.image)[0].numpy()
    responses = answers.responses(subject, CAT.image, "features.relu5")
    neuron = answers.largest(responses)
    excitations = partial(unit_pictures.excitations, subject, CAT.image, "features.relu5")
    same, more, zero = (Answer(inputs * np.float32(factor), 0.0, None) for factor in (1, 7, 0))
    assert excitations(neuron, [same, more, zero]) == [pytest.approx(1, rel=1e-3), pytest.approx(1, rel=1e-3), None]
    silent = tuple(int(i) for i in np.argwhere(responses == 0)[0])
    assert excitations(silent, [same]) == [None]


@pytest.mark.parametrize("shape", [(6, 5, 5), (6,), (40, 40, 6), (7, 12), (3, 90, 90)])
def test_squares_stand_for_units_of_the_layer(shape):
    responses = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    neuron = answers.largest(responses)
    figure, squares = unit_squares.channels_figure(responses, neuron)
    assert list(figure.data[0].marker.color) == pytest.approx([responses[square] for square in squares])
    assert neuron in squares
    assert responses[squares[figure.data[0].customdata[0]]] == pytest.approx(figure.data[0].marker.color[0])
    found = unit_squares.positions_figure(responses, neuron)
    assert (found is None) == (shape not in [(6, 5, 5), (3, 90, 90)])
    if found:
        figure, squares = found
        assert neuron in squares
        assert {square[0] for square in squares} == {neuron[0]}
        assert len(squares) == len(figure.data[0].x) <= 32 * 32
        chosen = figure.data[1]
        where = list(zip(figure.data[0].x, figure.data[0].y, strict=True)).index((chosen.x[0], chosen.y[0]))
        assert squares[where] == neuron


# Sanity


def test_check_randomises_a_copy_and_reports_by_method():
    subject = opened("all-cnn-c")
    before = answers.compute(subject, CAT.image, Question("gradient", target=3)).attribution
    found = {
        method: sanity_checks.check(subject, CAT.image, Question(method, target=3, contrast=contrast), layers=2)
        for method, contrast in (("gradient", None), ("guided-backprop", None), ("lrp-epsilon", 5))
    }
    assert not found["gradient"].hardly_changes
    assert found["guided-backprop"].hardly_changes
    assert sanity_checks.warning(found).startswith("Guided backprop: ")
    assert sanity_checks.row("gradient", found["gradient"])["The map"] == "changes"
    np.testing.assert_array_equal(
        answers.compute(subject, CAT.image, Question("gradient", target=3)).attribution, before
    )
    with pytest.raises(ValueError, match="layers with weights"):
        sanity_checks.check(subject, CAT.image, Question("gradient", target=3), layers=99)


# Drawings


def test_drawing_survives_a_link_and_becomes_white_ink_on_black():
    ink = drawn_digit.with_stroke(drawn_digit.blank(), [4, 20, 20], [4, 4, 22])
    assert 60 < ink.sum() < 120
    np.testing.assert_array_equal(drawn_digit.decode(drawn_digit.encode(ink)), ink)
    assert drawn_digit.encode(drawn_digit.blank()) == ""
    grey = np.asarray(drawn_digit.picture(drawn_digit.encode(ink)))
    assert grey.shape == (28, 28, 3)
    assert grey[4, 12, 0] > 240
    assert grey[14, 8].max() == 0
    for text in ("x", "A" * 130, "A" * 132, "é" * 131, "A" * 130 + "!"):
        with pytest.raises(ValueError, match="drawing"):
            drawn_digit.decode(text)


def test_cells_of_a_drawing_are_filled_and_emptied():
    ink = drawn_digit.with_cells(drawn_digit.blank(), [(0, 0, True), (13, 13, True), (0, 0, False)])
    assert ink.sum() == 4
    assert drawn_digit.to_cells(ink)[13, 13]
    assert drawn_digit.to_cells(ink).sum() == 1


def test_strokes_beyond_the_sheet_are_cut():
    assert not drawn_digit.with_stroke(drawn_digit.blank(), [-50, -40], [-50, -40]).any()
    assert drawn_digit.with_stroke(drawn_digit.blank(), [-50, 80], [14, 14]).sum() == 2 * 28


def test_bundled_digits_are_classified_right():
    subject = opened(offered_networks.DIGITS)
    seen = [
        int(answers.outputs(subject, offered_pictures.sample(name).image).argmax()) for name in offered_pictures.DIGITS
    ]
    assert sum(label == index for index, label in enumerate(seen)) >= 9
    assert subject.channels == 1
    attribution = answers.compute(
        subject, offered_pictures.sample("digit-3").image, Question("gradient", target=3)
    ).attribution
    assert attribution.shape == subject.input_shape == (1, 28, 28)


# Jobs


def test_job_reports_shows_and_returns():
    go_on = threading.Event()

    def work(task):
        task.report(0.25, "a quarter", partial="sketch")
        go_on.wait(30)
        task.report(2.0)
        return 42

    job = Job(work)
    while job.look().progress == 0:
        time.sleep(0.001)
    assert (job.look().message, job.look().partial, job.look().running) == ("a quarter", "sketch", True)
    go_on.set()
    view = job.wait(30)
    assert (view.result, view.completed, view.progress, view.partial) == (42, True, 1.0, "sketch")


def test_job_stops_when_told_and_when_abandoned():
    cleaned = []

    def work(task):
        try:
            while True:
                task.report(0.5)
                time.sleep(0.001)
        finally:
            cleaned.append(True)

    told = Job(work)
    told.stop()
    assert not told.wait(30).completed
    abandoned = Job(work, patience_seconds=0.05)
    abandoned._thread.join(30)
    assert not abandoned.look().running
    assert cleaned == [True, True]


def test_job_ends_when_its_page_was_closed_but_not_for_a_short_break(monkeypatch):
    monkeypatch.setattr(jobs, "_ABSENCE_SECONDS", 0.2)
    connected = iter([True, False, False, True])  # a short break, then the page is closed
    times = []

    def present():
        times.append(time.monotonic())
        return next(connected, False)

    def work(task):
        while True:
            task.report(0.5)
            time.sleep(0.01)

    job = Job(work, present)
    assert not job.wait(30).completed
    assert not job.look().error
    # From the first report without a browser after the break, it went on for as long as a break may be.
    assert 0.2 < times[-1] - times[4] < 10


def test_job_that_fails_says_why():
    def work(task):
        raise RuntimeError("the disk is full")

    view = Job(work).wait(30)
    assert (view.error, view.completed, view.running) == ("the disk is full", False, False)


class Response(io.BytesIO):
    """Stands in for the response of `urlopen`."""

    def __init__(self, data, length=None):
        super().__init__(data)
        self.headers = {"Content-Length": str(length or len(data))}


def test_download_leaves_complete_files_only(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    data = b"weights" * 100_000
    target = tmp_path / "hub" / "checkpoints" / f"network-{hashlib.sha256(data).hexdigest()[:8]}.pth"
    monkeypatch.setattr(weight_downloads, "_target", lambda name: target)
    for arrived, length in ((data[:-1], len(data)), (b"x" * len(data), None)):
        monkeypatch.setattr(urllib.request, "urlopen", lambda url, timeout, a=arrived, n=length: Response(a, n))
        view = Job(lambda task: weight_downloads.download(task, "resnet18")).wait(30)
        assert "arrived damaged" in view.error
        assert list(target.parent.iterdir()) == []
    monkeypatch.setattr(urllib.request, "urlopen", lambda url, timeout: Response(data))
    view = Job(lambda task: weight_downloads.download(task, "resnet18")).wait(30)
    assert view.completed
    assert view.progress == 1
    assert target.read_bytes() == data


# Networks of the user's own


class Own(nn.Module):
    """A network with three outputs and no names for them."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 7, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(4, 3)

    def forward(self, images):
        return self.head(self.body(images))


def own_network():
    torch.manual_seed(0)
    return models.load(
        Own(), classes=["a", "b", "c"], preprocessing=models.Preprocessing(16, 16, (0.5,) * 3, (1.0,) * 3)
    )


def broken_network():
    raise RuntimeError("no weights today")


@pytest.fixture
def added(monkeypatch):
    monkeypatch.setattr(offered_networks, "_own", {})
    return offered_networks.add


def test_own_network_by_factory_and_its_snippet(added):
    for factory, classes in (("own_network", ("a", "b", "c")), ("Own", ("class 0", "class 1", "class 2"))):
        name = f"{__name__}:{factory}"
        added(name)
        assert name in offered_networks.choices()
        assert name not in offered_networks.architectures()
        subject = offered_networks.open_network(name)
        assert subject.model.classes == classes
    subject = offered_networks.open_network(f"{__name__}:own_network")
    question = Question("guided-backprop", target=2)
    result = answers.compute(subject, CAT.image, question)
    program: dict = {}
    code = map_programs.program(Settings(network=subject.name), question, CAT, 1.0, subject).replace(
        "figure.show()", ""
    )
    exec(code, program)
    np.testing.assert_array_equal(program["attribution"], result.attribution)


def test_own_network_that_is_none(added):
    for name in ("nothing", "no.such.module:factory", "torch:no_such_thing", ":x", "torch:__version__"):
        with pytest.raises(ValueError, match=r"package\.module:factory|not callable"):
            added(name)
    added(f"{__name__}:broken_network")
    with pytest.raises(ValueError, match="no weights today"):
        offered_networks.open_network(f"{__name__}:broken_network")


# Checkpoints


def saved(state):
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


def test_checkpoint_of_another_number_of_classes_gives_the_same_logits(tmp_path, monkeypatch):
    from torchvision.models import squeezenet1_1

    torch.manual_seed(0)
    network = squeezenet1_1(num_classes=4).eval()
    data = saved(network.state_dict())
    subject = offered_networks.open_network("squeezenet1_1", OwnWeights(sent("it's mine.pt", data)))
    inputs = subject.model.preprocess(CAT.image)
    with torch.no_grad():
        torch.testing.assert_close(subject.model.network(inputs), network(inputs))
    assert subject.identity.endswith(hashlib.sha256(data).hexdigest())
    (tmp_path / "it's mine.pt").write_bytes(data)
    monkeypatch.chdir(tmp_path)
    program: dict = {}
    question = Question("gradient", target=1)
    exec(map_programs.program(Settings(), question, CAT, 1.0, subject).replace("figure.show()", ""), program)
    np.testing.assert_array_equal(program["attribution"], answers.compute(subject, CAT.image, question).attribution)


def test_checkpoint_of_a_bundled_network():
    state = opened("all-cnn-c").model.network.state_dict()
    doubled = {name: 2 * value for name, value in state.items()}
    loaded = own_weights.opened("all-cnn-c", OwnWeights(sent("double.pt", saved({"state_dict": doubled}))))
    torch.testing.assert_close(loaded.model.network.state_dict(), doubled)


# Figures


def test_squares_can_be_clicked_and_the_chosen_one_wears_a_dot():
    figure = figures.unit_squares(np.array([-2.0, 0.0, 1.0, 4.0, 3.0]), list("abcde"), columns=3, chosen=4)
    squares, dot = figure.data
    assert list(squares.customdata) == [0, 1, 2, 3, 4]
    assert (list(squares.x), list(squares.y)) == ([0, 1, 2, 0, 1], [0, 0, 0, 1, 1])
    assert squares.marker.cmin == -squares.marker.cmax == -4
    assert squares.marker.cmid == 0
    assert (dot.x[0], dot.y[0]) == (1, 1)
    assert len(figures.unit_squares(np.zeros(2), ["a", "b"], columns=1).data) == 1
    with pytest.raises(ValueError, match="2 units"):
        figures.unit_squares(np.zeros(3), ["a", "b"], columns=1)


def test_focus_moves_the_axes_only():
    figure = figures.signed_map(np.ones((9, 12)))
    focused = figures.focused(figures.signed_map(np.ones((9, 12))), (2, 5), (4, 9))
    assert tuple(focused.layout.xaxis.range) == (3.5, 8.5)
    assert tuple(focused.layout.yaxis.range) == (4.5, 1.5)
    np.testing.assert_array_equal(focused.data[0].z, figure.data[0].z)
