"""The Units page, and the way to it from a map: real pictures that excite the units of a layer."""

import contextlib
import io
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from support.simulator import finish, follow, opened, press, run, widget
from support.tasks import Told
from torch import nn

from plugin import models
from plugin.experiments.unit_survey import receptive_fields
from plugin.explorer.choices.settings import Settings
from plugin.explorer.inputs import image_sets, offered_networks, offered_pictures, picture_collections
from plugin.explorer.inputs.folder_predictions import FolderPredictions
from plugin.explorer.inputs.layer_outputs import unit_axis
from plugin.explorer.inputs.subject import Subject
from plugin.explorer.maps import answers, ledgers, unit_relevance
from plugin.explorer.maps.questions import Question
from plugin.explorer.pages.units import layer_surveys, unit_crops
from plugin.explorer.server.jobs import Stopped
from plugin.observing import outputs_of

pytestmark = pytest.mark.usefixtures("no_paths_of_others")
LAYER = "features.relu4"


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Twenty squares of photographs in folders that are called as classes, and a file that is no picture."""
    folder = tmp_path_factory.mktemp("own") / "photos"
    samples = list(models.sample_images().values())
    for number in range(20):
        path = folder / ("cat", "frog")[number % 2] / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        left = 3 * number
        samples[number % 6].crop((left, left, left + 90, left + 80)).save(path)
    (folder / "cat" / "00a.png").write_text("no picture")
    return folder


# The pictures found


def test_survey_finds_the_strongest_of_pictures_that_are_looked_at_one_by_one(predictions, photos, subject):
    task = Told()
    found = layer_surveys.survey_all(task, predictions, LAYER)
    records = predictions.collection.records
    rows = [row for row, record in enumerate(records) if record.id != "cat/00a.png"]
    maps = {row: answers.responses(subject, Image.open(photos / records[row].id), LAYER) for row in rows}
    strongest = {row: values.max((1, 2)) for row, values in maps.items()}
    shape = subject.layers[LAYER]
    for unit in (0, 7, 150):
        expected = sorted(rows, key=lambda row: -strongest[row][unit])
        for place in range(4):
            row, position = unit_crops.spot(found, unit, place)
            if strongest[expected[place]][unit] == 0:
                break
            assert row == expected[place]
            assert layer_surveys.neuron_at(found, shape, unit, place) == (unit, *position)
            assert maps[row][(unit, *position)] == pytest.approx(float(found.values[unit, place]), abs=1e-5)
    assert (task.reports[0][0], task.reports[-1][1]) == (0, "20 of 21 pictures")
    cats = [records[row].id.startswith("cat") for row in rows]
    means = [
        np.mean([strongest[row] for row, cat in zip(rows, cats, strict=True) if cat == kind], 0) for kind in (1, 0)
    ]
    index = (means[0] - means[1]) / np.maximum(means[0] + means[1], 1e-30)
    np.testing.assert_allclose(found.selectivity[3], index, atol=1e-4)
    order = layer_surveys.ordered(found, Settings(unit_order="selective", selective_for=3))
    np.testing.assert_allclose(index[list(order)], np.sort(index)[::-1], atol=1e-4)
    assert sorted(order) == list(range(len(found.values)))
    loud = layer_surveys.ordered(found, Settings(unit_order="response"))
    assert found.values[loud[0], 0] == found.values.max()


def test_crop_is_the_part_of_the_picture_in_the_receptive_field(predictions, photos, subject):
    row = 3
    (file,) = unit_crops.crops(predictions, LAYER, ((row, (8, 8)),))
    ((rows, columns),) = receptive_fields(subject.model.network, LAYER, subject.input_shape, [(8, 8)])
    picture = Image.open(photos / predictions.collection.records[row].id)
    part = subject.model.preprocessing.pixels(picture)[rows, columns]
    crop = Image.open(io.BytesIO(file))
    factor = crop.width // part.shape[1]
    assert crop.size == (part.shape[1] * factor, part.shape[0] * factor)
    centres = np.asarray(crop, int)[factor // 2 :: factor, factor // 2 :: factor]
    assert np.abs(centres - part).mean() < 6  # a JPEG file
    assert 4 < part.shape[0] < 32


def test_broken_picture_has_no_crop(predictions):
    names = [record.id for record in predictions.collection.records]
    assert unit_crops.crops(predictions, LAYER, ((names.index("cat/00a.png"), (8, 8)),)) == [None]


def test_network_that_fails_is_a_sentence(photos):
    class Failing(torch.nn.Module):
        def forward(self, images):
            raise RuntimeError("no room\nfor it")

    model = replace(models.load("all-cnn-c"), network=Failing())
    found = FolderPredictions(Subject("mine", model, {"": (3, 1, 1)}, ""), picture_collections.of_folder(photos))
    with pytest.raises(ValueError, match=r"of mine cannot be looked at: no room\.$"):
        layer_surveys.survey(found, "")
    with pytest.raises(ValueError, match=r"of mine cannot be looked at: no room\.$"):
        unit_crops.FieldsOfLayer(found.subject, "").of([(0, 0)])


def test_stopped_survey_keeps_what_it_found(predictions):
    task = Told(stop_at=2)
    with pytest.raises(Stopped):
        layer_surveys.survey_all(task, predictions, LAYER)
    assert task.partials[-1].seen == 15  # of a batch of 16 with a broken one


@pytest.mark.parametrize(("shape", "axis"), [((6, 5, 5), 0), ((5, 5, 6), 2), ((6,), 0), ((197, 768), 1)])
def test_units_lie_along_the_axis_of_channels_or_features(shape, axis):
    assert unit_axis(shape) == axis


def test_images_of_a_set_are_a_collection_with_labels_where_they_are_the_classes():
    digits = offered_networks.open_network(offered_networks.DIGITS)
    collection = picture_collections.of_image_set("digits", image_sets.labelled("digits", digits.model))
    assert len(collection.records) == 1797
    found = FolderPredictions(digits, collection)
    pixels, labels = image_sets.pixels_of("digits", 5)
    assert found.findings().labels[:5].tolist() == labels.tolist()
    for row, seen in found.read([0, 4]):
        np.testing.assert_array_equal(seen[..., 0], pixels[row, 0])
    assert collection.source.file(collection.records[4]).digest.startswith(found.digest(4))
    assert picture_collections.of_image_set("digits", labelled=False).records[0].label is None


# From a map


def test_relevance_of_units_is_what_the_ledger_says_of_the_layer_above(subject):
    image = offered_pictures.sample("cat").image
    question = Question("lrp-epsilon-plus-flat", target=3, contrast=5)
    relevance = unit_relevance.compute(subject, image, question, "features.relu5")
    (above,) = [entry for entry in ledgers.compute(subject, image, question) if entry.layer == "features.conv6"]
    assert float(relevance.sum()) == pytest.approx(above.left, rel=1e-3)
    found = unit_relevance.strongest(relevance, 5)
    sums = relevance.sum((1, 2))
    assert [value for _, value in found] == pytest.approx(sorted(sums, reverse=True)[:5])
    for (unit, row, column), value in found:
        assert sums[unit] == pytest.approx(value)
        assert relevance[unit, row, column] == relevance[unit].max()
    assert unit_relevance.strongest(-np.ones((2, 3, 3), np.float32), 5) == []


def test_lrp_page_leads_to_the_units_of_a_layer():
    at = opened("lrp", target="3", layer="features.relu5")
    labels = [link.proto.label for link in at.get("page_link") if link.proto.label.startswith("Channel ")]
    assert len(labels) == 8
    follow(at, labels[0])
    assert at.header[0].value == "Which pictures excite a unit?"
    assert at.subheader[0].value == f"features.relu5, {labels[0].lower()}"


# The page


def images(at):
    return [image for element in at.get("imgs") for image in element.proto.imgs]


def test_samples_are_looked_at_unasked_and_a_unit_is_chosen_by_its_button(subject):
    at = opened("units", layer=LAYER, unit_order="response")
    assert "192 units; 6 of 6 pictures were looked at, 1 of them with a label." in [text.value for text in at.caption]
    assert not [*at.error, *at.warning, *at.info]
    loudest = next(button.label for button in at.button if button.label.startswith("Unit "))
    press(at, loudest)
    assert at.subheader[0].value == f"{LAYER}, channel {loudest.removeprefix('Unit ')}"
    again = opened("units", **at.query_params)
    assert [text.value for text in again.caption] == [text.value for text in at.caption]
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(at.code[1].value, {})
    lines = [line.split() for line in printed.getvalue().splitlines()]
    loud = [line for line in lines if float(line[1]) > 0]
    names = [link.proto.label for link in at.get("page_link") if link.proto.page == "attribute"][:-1]
    assert [line[0] for line in loud] == names
    values = [text.value for text in at.caption if text.value.replace(".", "").isdecimal()][: len(loud)]
    assert values == [f"{float(line[1]):.3g}" for line in loud]
    follow(at, names[1])
    assert at.query_params["image"] == names[1]
    assert (at.query_params["explain"], at.query_params["layer"]) == ("neuron", LAYER)
    neuron = tuple(map(int, at.query_params["neuron"].split(".")))
    responses = answers.responses(subject, models.sample_images()[names[1]], LAYER)
    assert responses[neuron] == responses[neuron[0]].max()


def test_unit_is_found_by_its_number_and_another_choice_begins_at_the_first_page():
    at = opened("units", layer=LAYER, unit_sheet="3")
    assert "Unit 48" in [button.label for button in at.button]
    run(widget(at, "number_input", "neuron.0").set_value(77))
    assert at.subheader[0].value == f"{LAYER}, channel 77"
    assert at.query_params["unit_sheet"] == "3"
    run(widget(at, "selectbox", "unit_order").set_value("selective"))
    assert any("Selectivity needs pictures of two classes" in info.value for info in at.info)
    assert "unit_sheet" not in at.query_params


def test_a_set_is_looked_at_on_a_click_and_sorts_units_by_class(monkeypatch):
    monkeypatch.setitem(picture_collections.MOST_IMAGES, "digits", 120)
    picture_collections.of_image_set.cache_clear()
    at = opened("units", network=offered_networks.DIGITS, image="digit-3", pictures="digits", layer="body.relu2")
    assert not images(at)
    press(at, "Look at all 120 pictures")
    view = finish(at, "unit-survey")
    run(widget(at, "selectbox", "unit_order").set_value("selective"))
    run(widget(at, "selectbox", "selective_for").set_value(7))
    picture_collections.of_image_set.cache_clear()
    index = view.result.selectivity[7].nan_to_num(nan=-torch.inf)
    first = next(button.label for button in at.button if button.label.startswith("Unit "))
    assert first == f"Unit {int(index.argmax())}"
    assert at.query_params["selective_for"] == "7"
    assert "120 of 120 pictures were looked at, 120 of them with a label" in at.caption[1].value


def test_folder_is_looked_at_on_a_click_and_its_pictures_open_on_the_attribute_page(photos):
    at = opened("units", pictures="folder", layer=LAYER)
    run(widget(at, "text_input", "folder_path").set_value(str(photos)))
    press(at, "Look at all 21 pictures")
    assert finish(at, "unit-survey").completed
    assert not [*at.error, *at.warning]
    name = next(link.proto.label for link in at.get("page_link"))
    assert name.endswith(".png")
    follow(at, name)
    assert (at.query_params["picture_name"], at.query_params["explain"]) == (name, "neuron")
    assert not [*at.error, *at.warning]


class Turned(nn.Module):
    """Its rows are seen in columns."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, (5, 3), stride=(2, 1))
        self.end = nn.Identity()

    def forward(self, images):
        return self.end(self.conv(images).transpose(2, 3))


@pytest.mark.parametrize(
    ("network", "layer", "is_crossed"),
    [
        (nn.Sequential(nn.Conv2d(3, 4, (5, 3), stride=(2, 1)), nn.ReLU(), nn.MaxPool2d(2)), "2", True),
        (Turned(), "end", False),
    ],
)
def test_fields_of_rows_and_columns_are_those_of_each_position(network, layer, is_crossed):
    network, shape = network.eval(), (3, 16, 16)
    sides = outputs_of(network, [layer], torch.zeros(1, *shape))[layer].shape[1:]
    model = SimpleNamespace(network=network)
    subject = SimpleNamespace(layers={layer: tuple(sides)}, model=model, input_shape=shape, name="mine")
    fields = unit_crops.FieldsOfLayer(subject, layer)
    positions = [(row, column) for row in range(0, sides[1], 2) for column in range(0, sides[2], 3)]
    for some in (positions[:2], positions):
        assert fields.of(some) == receptive_fields(network, layer, shape, some)
    assert fields._is_crossed == is_crossed
