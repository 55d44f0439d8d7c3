"""A folder of pictures: labels, predictions, filters, the confusion table, broken files; and its page."""

import csv
import io
import os
import shlex
import threading
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import confusion_matrix
from support.picture_folders import CLASSES, arrays, fill, network
from support.simulator import finish, follow, go_to, opened, png, press, programs, run, turn_to, widget
from support.tasks import Told
from torch import nn

from plugin import models
from plugin.__main__ import main
from plugin.datasets import attribute_folder
from plugin.datasets.labels import labels_where_known
from plugin.datasets.records import Record, UnreadablePicture
from plugin.explorer.choices.links import interval
from plugin.explorer.choices.settings import Settings
from plugin.explorer.inputs import folder_predictions, offered_networks, picture_collections
from plugin.explorer.inputs.folder_predictions import FolderPredictions, KnownPictures, predict_all
from plugin.explorer.inputs.subject import Subject
from plugin.explorer.maps import answers
from plugin.explorer.pages.folder import (
    confusion_table,
    folder_maps,
    folder_programs,
    folder_reports,
    picture_choice,
)
from plugin.explorer.pages.folder.folder_maps import FolderMaps
from plugin.explorer.server import connection, own_paths
from plugin.explorer.server.jobs import Stopped
from plugin.explorer.server.kept_files import digest, sent

pytestmark = pytest.mark.usefixtures("no_paths_of_others")
BROKEN = {
    "cat/broken.jpg": "not a picture",
    "cat/empty.png": "empty",
    "frog/cut.png": "truncated",
    "frog/gone.png": "a link that leads to nothing",
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Thirty squares of photographs in three folders, of which two are called as classes are, and bad files."""
    folder = tmp_path_factory.mktemp("own") / "photos"
    samples = list(models.sample_images().values())
    for number in range(30):
        path = folder / ("cat", "frog", "holiday")[number % 3] / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        photograph, left = samples[number % 6], 3 * number
        photograph.crop((left, left, left + 90, left + 80)).save(path)
    data = (folder / "cat" / "00.png").read_bytes()
    (folder / "cat" / "empty.png").touch()
    (folder / "cat" / "broken.jpg").write_text("no picture")
    (folder / "frog" / "cut.png").write_bytes(data[: len(data) // 2])
    (folder / "frog" / "gone.png").symlink_to(folder / "nothing.png")
    (folder / "notes.txt").write_text("no picture either")
    return folder


# Labels


def of(*names):
    return [Record(name, None) for name in names]


def test_folders_that_are_called_as_classes_give_labels_and_others_none():
    found = labels_where_known(of("Dog/a.png", "x/tabby_cat/b.png", "holiday/c.png", "d.png"), CLASSES)
    assert found == [1, 0, -1, -1]


def test_labels_are_those_of_the_command_line_where_it_has_any():
    assert labels_where_known(of("3/a.png", "0/b.png"), CLASSES) == [3, 0]
    assert labels_where_known(of(*(f"n{number}/a.png" for number in range(5))), CLASSES) == [0, 1, 2, 3, 4]
    said = [Record("a", None, label="ship"), Record("b", None, label="sea")]
    assert labels_where_known(said, CLASSES) == [3, -1]


# The content of a collection


def test_folder_lists_pictures_and_says_what_it_passes_over(photos):
    found = picture_collections.of_folder(photos)
    assert [record.id for record in found.records] == sorted(
        path.relative_to(photos).as_posix() for path in photos.glob("*/*")
    )
    assert list(found.skipped) == ["notes.txt"]
    assert found.name == "photos"
    assert not found.cut


def test_digest_of_a_folder_changes_with_its_files(tmp_path):
    folder = fill(tmp_path / "pictures", 4)
    first = picture_collections.of_folder(folder)
    os.utime(folder / "cat" / "001.png", ns=(1, 1))
    touched = picture_collections.of_folder(folder)
    assert (touched.short, touched.state == first.state) == (first.short, False)
    (folder / "cat" / "empty.jpg").write_bytes(b"more")
    assert picture_collections.of_folder(folder).short != first.short


def test_folder_of_too_many_files_is_cut_and_says_so(photos, monkeypatch):
    monkeypatch.setattr(picture_collections, "MOST_FILES", 5)
    found = picture_collections.of_folder(photos)
    assert (len(found.files), found.cut) == (5, True)


def test_links_out_of_the_folders_that_were_named_lead_nowhere(tmp_path, monkeypatch):
    inside, outside = tmp_path / "open", tmp_path / "secret"
    for folder in (inside, outside):
        folder.mkdir()
        Image.new("RGB", (8, 8)).save(folder / "a.png")
    (inside / "linked").symlink_to(outside)
    (inside / "b.png").symlink_to(outside / "a.png")
    (inside / "c.png").symlink_to(inside / "a.png")
    (inside / "d.png").symlink_to("/dev/zero")
    monkeypatch.setattr(connection, "serves_this_machine_only", lambda: False)
    own_paths.add_folder(inside)
    found = picture_collections.of_folder(own_paths.resolved_folder(str(inside)))
    assert [record.id for record in found.records] == ["a.png", "b.png", "c.png", "d.png"]
    assert found.source.read(found.records[2]) == (inside / "a.png").read_bytes()
    for refused in (found.records[1], found.records[3]):
        with pytest.raises(UnreadablePicture, match="may open"):
            found.source.read(refused)
    monkeypatch.setattr(own_paths, "_folders", [])
    monkeypatch.setattr(connection, "serves_this_machine_only", lambda: True)
    with pytest.raises(UnreadablePicture, match="may open"):
        found.source.read(found.records[3])
    names = [record.id for record in picture_collections.of_folder(inside).records]
    assert "linked/a.png" in names  # any path may be opened on one's own machine


def test_uploads_are_bounded_and_told_apart(monkeypatch):
    files = [sent("a.png", bytes([number])) for number in range(4)]
    assert picture_collections.accepted(files) == (tuple(files), "")
    found = picture_collections.of_uploads(files[:3])
    assert [record.id for record in found.records] == ["a.png", "a (2).png", "a (3).png"]
    assert found.source.read(found.records[2]) == b"\2"
    monkeypatch.setattr(picture_collections, "MOST_UPLOADS", 3)
    kept, note = picture_collections.accepted(files)
    assert kept == tuple(files[:3])
    assert "the last 1 were not" in note
    monkeypatch.setattr(picture_collections, "MOST_UPLOADED_BYTES", 2)
    assert picture_collections.accepted(files)[0] == tuple(files[:2])


def test_samples_are_compressed_once():
    sources = [picture_collections.SampleSource(grey=False) for _ in range(2)]
    first, second = (source.read(next(iter(source.records()))) for source in sources)
    assert first is second


def test_samples_are_those_that_the_network_is_for():
    digits, photographs = picture_collections.of_samples(grey=True), picture_collections.of_samples(grey=False)
    assert [record.label for record in digits.records] == [str(digit) for digit in range(10)]
    assert [record.id for record in photographs.records] == list(models.sample_images())
    seen = Image.open(io.BytesIO(photographs.source.read(photographs.records[0])))
    assert np.array_equal(np.asarray(seen), np.asarray(models.sample_images()["cat"]))


# Predictions


def test_predictions_are_those_of_each_picture_alone_and_broken_files_do_not_stop_them(predictions, photos, subject):
    assert predict_all(Told(), predictions) is predictions
    found = predictions.findings()
    for row, record in enumerate(predictions.collection.records):
        if record.id in BROKEN:
            assert BROKEN[record.id] in found.broken[row]
            assert (found.predicted[row], predictions.thumbnail(row)) == (-1, None)
            continue
        if row % 3:  # one at a time takes its time
            continue
        expected = answers.probabilities("logits", answers.outputs(subject, Image.open(photos / record.id)))
        assert found.predicted[row] == expected.argmax()
        assert found.confidence[row] == pytest.approx(expected.max(), rel=1e-4)
        thumbnail = Image.open(io.BytesIO(predictions.thumbnail(row)))
        assert max(thumbnail.size) <= 144
    assert len(found.broken) == len(BROKEN)
    assert predictions.left() == []


def test_stopped_predictions_stay_and_go_on_without_asking_again(predictions):
    reads = []
    read = predictions._read
    predictions._read = lambda row: (reads.append(row), read(row))[1]
    with pytest.raises(Stopped):
        predict_all(Told(stop_at=2), predictions)
    assert sorted(reads) == list(range(folder_predictions.BATCH))
    assert predictions.findings().known.sum() + len(predictions.findings().broken) == folder_predictions.BATCH
    going_on = Told()
    predict_all(going_on, predictions)
    assert sorted(reads) == list(range(len(predictions)))
    assert going_on.reports[0] == (16 / 34, "16 of 34 pictures")


class OneAtATime(nn.Module):
    """Fails on several pictures, and on a black one."""

    def forward(self, inputs):
        if not inputs.ne(inputs.flatten()[0]).any():
            raise ValueError("nothing to see")
        return inputs.mean((2, 3)).view(1, 3)


def test_network_that_takes_one_picture_at_a_time_or_fails_on_one_is_asked_about_all(tmp_path):
    for name, level in (("a", 200), ("b", 0), ("c", 90)):
        picture = Image.new("RGB", (9, 9), (0, 0, 0))
        picture.paste((level, 0, 0), (0, 0, 4, 9))
        picture.save(tmp_path / f"{name}.png")
    model = models.LoadedModel("one", OneAtATime(), models.Preprocessing(9, 9, (0.0,) * 3, (1.0,) * 3), CLASSES[:3])
    found = FolderPredictions(Subject("one", model, {}, ""), picture_collections.of_folder(tmp_path))
    findings = predict_all(Told(), found).findings()
    assert findings.predicted.tolist() == [0, -1, 0]
    assert findings.broken == {1: "The network fails on it: nothing to see."}


def test_thumbnails_of_large_pictures_are_small_and_bounded_in_number(tmp_path, subject, monkeypatch):
    Image.effect_noise((3000, 2000), 90).save(tmp_path / "large.jpg")
    Image.new("RGB", (10, 40), "red").save(tmp_path / "small.png")
    found = FolderPredictions(subject, picture_collections.of_folder(tmp_path))
    monkeypatch.setattr(folder_predictions, "_MOST_THUMBNAILS", 1)
    seen = dict(found.read([0, 1]))
    assert [pixels.shape for pixels in seen.values()] == [(32, 32, 3)] * 2
    (kept,) = [found.thumbnail(row) for row in (0, 1) if found.thumbnail(row)]
    assert len(kept) < 20_000
    monkeypatch.setattr(folder_predictions, "_MOST_THUMBNAILS", 2)
    assert len(dict(found.read([0, 1]))) == 2
    sizes = [Image.open(io.BytesIO(found.thumbnail(row))).size for row in (0, 1)]
    assert sizes == [(144, 96), (30, 120)]  # small ones are enlarged by a whole number


# Filters, order, pages


def random_findings(seed, count=200, classes=5):
    random = np.random.default_rng(seed)
    predicted = random.integers(-1, classes, count)
    confidence = np.where(predicted < 0, np.nan, random.integers(0, 101, count) / 100).astype(np.float32)
    return KnownPictures(random.integers(-1, classes, count), predicted, confidence, {})


def slowly(settings, findings):
    """The rows that the settings choose, one at a time."""
    rows = []
    for row in range(len(findings.labels)):
        label, predicted = findings.labels[row], findings.predicted[row]
        confidence = round(float(findings.confidence[row]), 6)
        if settings.correctness == "wrong" and (label < 0 or predicted < 0 or label == predicted):
            continue
        if settings.labelled not in (None, label) or settings.predicted not in (None, predicted):
            continue
        low, high = settings.confidence
        if (low, high) != (0, 1) and (predicted < 0 or not low <= confidence <= high):
            continue
        if settings.order != "name" and predicted < 0:
            continue
        rows.append(row)
    sign = {"name": 0, "least": 1, "most": -1}[settings.order]
    return sorted(rows, key=lambda row: (sign * float(findings.confidence[row]) if sign else 0, row))


@pytest.mark.parametrize("seed", range(20))
def test_filters_and_order_choose_what_a_loop_chooses(seed):
    random = np.random.default_rng(1000 + seed)
    settings = Settings(
        correctness=str(random.choice(["all", "wrong"])),
        labelled=[None, 2][random.integers(2)],
        predicted=[None, 3][random.integers(2)],
        confidence=[(0.0, 1.0), (0.35, 0.8), (0.0, 0.35)][random.integers(3)],
        order=str(random.choice(["name", "least", "most"])),
    )
    findings = random_findings(seed)
    assert picture_choice.chosen_rows(settings, findings).tolist() == slowly(settings, findings)


def test_pages_of_the_grid_hold_every_row_once():
    rows = np.arange(100)[::-1]
    pages = [picture_choice.rows_on(sheet, rows) for sheet in range(1, picture_choice.sheets(len(rows)) + 1)]
    assert [row for each in pages for row in each] == rows.tolist()
    assert {len(page) for page in pages[:-1]} == {picture_choice.PER_SHEET}
    assert (picture_choice.sheets(0), picture_choice.rows_on(1, rows[:0])) == (1, [])


def test_interval_in_a_link():
    form = interval(0, 1)
    assert form.read(form.write((0.25, 1.0))) == (0.25, 1.0)
    for text in ("0.5", "0.5,0.2", "0,2", "a,b", "-1,1", "0.1,0.2,0.3"):
        with pytest.raises(ValueError, match="number"):
            form.read(text)


# Confusion


def test_confusion_counts_are_those_of_scikit_learn():
    findings = random_findings(7)
    judged = (findings.labels >= 0) & (findings.predicted >= 0)
    found = picture_choice.confusion(findings)
    assert found.classes == (0, 1, 2, 3, 4)
    expected = confusion_matrix(findings.labels[judged], findings.predicted[judged], labels=found.classes)
    assert np.array_equal(found.counts, expected)


def test_confusion_of_many_classes_keeps_those_of_most_errors():
    labels = np.array([0, 0, 1, 2, 3, 3, 9], np.int64)
    predicted = np.array([5, 5, 1, 2, 3, 5, 9], np.int64)
    found = picture_choice.confusion(KnownPictures(labels, predicted, np.ones(7, np.float32), {}), most=3)
    assert (found.classes, found.left_out) == ((0, 3, 5), 3)
    assert found.counts.tolist() == [[0, 0, 2], [0, 1, 1], [0, 0, 0]]
    nothing = picture_choice.confusion(KnownPictures(labels, np.full(7, -1), np.ones(7, np.float32), {}))
    assert (nothing.classes, nothing.counts.shape) == ((), (0, 0))


def test_confusion_figure_has_a_mark_to_click_for_every_cell_and_frames_the_chosen():
    found = picture_choice.confusion(random_findings(3))
    names = [f"class <{number}>" for number in range(5)]
    figure = confusion_table.figure(found, names, Settings(labelled=1, predicted=4))
    marks = figure.data[1]
    for place, (column, row) in enumerate(zip(marks.x, marks.y, strict=True)):
        assert marks.customdata[place] == place == row * 5 + column
        assert f"<b>{found.counts[row, column]}</b>" in marks.hovertext[place]
    assert figure.layout.xaxis.ticktext[0] == "class &lt;0&gt;"
    (frame,) = figure.layout.shapes
    assert (frame.x0, frame.x1, frame.y0, frame.y1) == (3.5, 4.5, 0.5, 1.5)
    listed = confusion_table.pairs(found, names)
    assert sum(pair["Pictures"] for pair in listed) == found.counts.sum()
    assert listed[0]["Pictures"] == (found.counts - np.diag(found.counts.diagonal())).max()
    assert "Most often" in confusion_table.spoken(found, names)


# Words and files


def test_csv_says_what_was_found_and_holds_no_formula(tmp_path, subject):
    Image.new("RGB", (8, 8)).save(tmp_path / "=1+1.png")
    (tmp_path / "b.png").touch()
    found = predict_all(Told(), FolderPredictions(subject, picture_collections.of_folder(tmp_path)))
    first, second = csv.DictReader(io.StringIO(folder_reports.csv(found, found.findings()).decode()))
    assert first["file"] == "'=1+1.png"
    assert first["prediction"] in subject.model.classes
    assert float(first["confidence"]) == pytest.approx(found.findings().confidence[0], abs=1e-6)
    assert second == {"file": "b.png", "label": "", "prediction": "", "confidence": "", "error": "The file is empty."}


@pytest.mark.parametrize(
    "settings",
    [
        Settings(),
        Settings(correctness="wrong", order="most"),
        Settings(labelled=3, predicted=3, order="least"),
        Settings(confidence=(0.2, 0.9), order="most"),
    ],
)
def test_program_gives_the_predictions_of_the_page_and_chooses_the_same_pictures(predictions, settings, capsys):
    predict_all(Told(), predictions)
    findings = predictions.findings()
    program: dict = {}
    exec(folder_programs.program(settings, predictions), program)
    found = program["found"]
    assert [*found] == np.flatnonzero(findings.known).tolist()
    for row, (label, predicted, confidence) in found.items():
        assert (label, predicted) == (findings.labels[row], findings.predicted[row])
        assert confidence == pytest.approx(findings.confidence[row], rel=1e-4)
    expected = [row for row in picture_choice.chosen_rows(settings, findings).tolist() if row in found]
    assert program["shown"] == expected
    said = capsys.readouterr().out.splitlines()
    assert said[0] in folder_reports.tally(findings)
    assert len(said) == 1 + len(expected)


def test_program_of_uploads_names_the_folder_that_they_are_to_lie_in():
    collection = picture_collections.of_uploads((sent("a.png", png(models.sample_images()["cat"])),))
    uploads = FolderPredictions(offered_networks.open_network("all-cnn-c"), collection)
    assert "collection = of_folder(Path('folder of the uploads'))" in folder_programs.program(Settings(), uploads)


def test_summary_counts_right_and_broken(predictions):
    predict_all(Told(), predictions)
    text = folder_reports.summary(predictions, predictions.findings())
    assert text.startswith("**34 pictures** in `photos`; 30 predicted; ")
    assert "of the 20 with a label are right" in text
    assert "5 files without a prediction" in text
    reasons = {row["File"]: row["Reason"] for row in folder_reports.broken(predictions, predictions.findings())}
    assert {*reasons} == {*BROKEN, "notes.txt"}


# Maps of the whole folder


def maps_of(folder, out, subject, method="gradient"):
    return FolderMaps("support.picture_folders:network", subject.identity, "", str(folder), method, "", str(out))


@pytest.fixture
def tiny():
    return Subject("support.picture_folders:network", network(), {}, "network()", identity="tiny")


def test_maps_are_stopped_and_go_on_as_on_the_command_line(tmp_path, tiny, capsys):
    folder, out = fill(tmp_path / "pictures", 20), tmp_path / "maps.zarr"
    maps = maps_of(folder, out, tiny)
    with pytest.raises(Stopped):  # preparing, none finished, eight finished
        folder_maps.attribute_all(Told(stop_at=3), maps, tiny)
    assert (arrays(out)["finished"].sum(), len(arrays(out)["finished"])) == (8, 24)
    told = Told()
    report = folder_maps.attribute_all(told, maps, tiny)
    assert (report.maps, len(report.skipped), report.found, report.left) == (20, 4, 8, 0)
    assert [message for _, message in told.reports[1:]] == ["0 of 16 files", "8 of 16 files", "16 of 16 files"]
    attribute_folder(network(), folder, tmp_path / "whole.zarr", "gradient", progress=False)
    np.testing.assert_allclose(arrays(out)["maps"], arrays(tmp_path / "whole.zarr")["maps"], rtol=1e-4, atol=1e-6)
    command = shlex.split(maps.command)
    assert command[:3] == ["python", "-m", "plugin"]
    assert main(command[3:]) == 0
    assert "was finished before" in capsys.readouterr().out


def test_maps_with_other_settings_are_refused(tmp_path, tiny):
    folder, out = fill(tmp_path / "pictures", 2), tmp_path / "maps.zarr"
    folder_maps.attribute_all(Told(), maps_of(folder, out, tiny), tiny)
    with pytest.raises(ValueError, match="begun with other settings"):
        folder_maps.attribute_all(Told(), maps_of(folder, out, tiny, "deconvnet"), tiny)


def test_command_line_names_everything_and_quotes_it(tiny):
    maps = replace(maps_of("/my photos", "/o'ut", tiny), checkpoint="mine.pt", layer="conv1", method="guided-grad-cam")
    words = shlex.split(maps.command)[4:]
    assert dict(zip(words[::2], words[1::2], strict=True)) == {
        "--model": "support.picture_folders:network", "--checkpoint": "mine.pt", "--data": "/my photos",
        "--method": "guided-grad-cam", "--layer": "conv1", "--out": "/o'ut", "--batch-size": "8",
    }  # fmt: skip
    digits = offered_networks.open_network(offered_networks.DIGITS)
    assert folder_maps.named_for_command_line(digits).endswith("offered_networks:digit_classifier")


def test_output_lies_where_the_server_may_write(tmp_path, monkeypatch):
    real = own_paths.resolved_folder(str(tmp_path))
    assert folder_maps.output(f"{real}/maps.zarr") == real / "maps.zarr"
    for text in ("", "  ", f"{real}/x/..", f"{real}/nothing/maps.zarr"):
        with pytest.raises(ValueError, match=r"give a path|no such file"):
            folder_maps.output(text)
    (real / "open").mkdir()
    (real / "open" / "way-out").symlink_to(real)
    assert folder_maps.proposed(real / "open") == real / "open-maps.zarr"
    own_paths.add_folder(real / "open")
    assert folder_maps.proposed(real / "open") == real / "open" / "maps.zarr"
    for text in (f"{real}/maps.zarr", f"{real}/open/way-out", f"{real}/open/way-out/maps.zarr"):
        with pytest.raises(ValueError, match="not inside"):
            folder_maps.output(text)


# The page


def typed(at, folder):
    return run(widget(at, "text_input", "folder_path").set_value(str(folder)))


def of_folder(folder, **query):
    return typed(opened("folder", pictures="folder", **query), folder)


def shown(at):
    """The names of the pictures on the page that are not broken."""
    return [link.proto.label for link in at.get("page_link")]


def texts(at):
    return [element.value for element in [*at.markdown, *at.caption]]


def test_page_shows_the_samples_at_first():
    at = opened("folder")
    assert shown(at) == list(models.sample_images())
    assert "**6 pictures** in `samples`; 6 predicted" in at.markdown[0].value
    assert at.query_params == {}
    assert not [*at.error, *at.warning, *at.info]
    follow(at, "coffee")
    assert (at.header[0].value, at.query_params) == ("Which pixels led to this prediction?", {"image": "coffee"})


def test_digits_are_shown_to_the_classifier_of_digits():
    at = opened("folder", network=offered_networks.DIGITS, image="digit-3")
    assert "10 of the 10 with a label are right" in at.markdown[0].value


def test_folder_by_its_path_is_predicted_page_by_page_and_as_a_whole_on_request(photos):
    at = of_folder(photos)
    assert len(shown(at)) == 20
    assert "20 predicted" in at.markdown[0].value  # four of the first page are broken
    assert str(photos) not in "".join(at.query_params.values())
    assert at.query_params["folder_name"] == "photos"
    assert not [*at.error, *at.info]
    assert len(at.warning) == len(BROKEN)
    link = dict(at.query_params)
    press(at, "Predict the other 10 pictures")
    assert not finish(at, "folder-predictions").error
    assert "30 predicted; " in at.markdown[0].value
    assert not [button for button in at.button if button.label.startswith("Predict")]
    run(widget(at, "number_input", "sheet").set_value(2))
    assert len(shown(at)) == 10
    assert at.query_params == link | {"sheet": "2"}
    again = opened("folder", **at.query_params)  # on one's own machine the server knows where the folder lies
    assert shown(again) == shown(at)
    assert widget(again, "text_input", "folder_path").value == str(photos)
    listed = [frame.value for frame in at.dataframe if "Reason" in frame.value.columns]
    assert {*listed[0]["File"]} == {*BROKEN, "notes.txt"}


def test_filters_are_in_the_link_and_begin_at_the_first_page(photos):
    at = of_folder(photos)
    press(at, "Predict the other")
    finish(at, "folder-predictions")
    run(widget(at, "number_input", "sheet").set_value(2))
    run(widget(at, "segmented_control", "correctness").set_value("wrong"))
    wrong = shown(at)
    assert "sheet" not in at.query_params
    assert 0 < len(wrong) < 24
    run(widget(at, "selectbox", "labelled").set_value(6))  # frog
    run(widget(at, "selectbox", "order").set_value("least"))
    shares = [float(text.rpartition(" ")[2].rstrip("%*")) for text in said(at)]
    assert shares == sorted(shares)
    assert all("labelled frog" in text for text in texts(at) if text.startswith("**✗"))
    run(widget(at, "slider", "confidence").set_value((0.3, 0.9)))
    assert {name: at.query_params[name] for name in ("correctness", "labelled", "order", "confidence")} == {
        "correctness": "wrong", "labelled": "6", "order": "least", "confidence": "0.3,0.9",
    }  # fmt: skip
    again = opened("folder", **at.query_params)  # as a reload does
    assert not [button for button in again.button if button.label.startswith("Predict")]
    assert shown(again) == shown(at)
    press(at, "Show all pictures")
    assert len(shown(at)) == 24  # in the order of confidence, which broken files have none of
    run(widget(at, "selectbox", "network").set_value("resnet18"))
    assert "labelled" not in at.query_params


def said(at):
    """Prediction and confidence of the network for each picture with a mark before it."""
    return [text.split("**")[1] for text in texts(at) if text.startswith(("**✗", "**✓"))]


def test_filters_without_predictions_say_how_many_pictures_were_not_asked_about(photos):
    at = of_folder(photos, correctness="wrong")
    assert any("34 pictures have no prediction yet" in info.value for info in at.info)
    assert shown(at) == []


def test_stop_keeps_what_was_found_and_the_button_goes_on(photos, monkeypatch):
    at = of_folder(photos)
    monkeypatch.setattr(folder_predictions, "BATCH", 4)
    asked, stopped = threading.Event(), threading.Event()
    ask = FolderPredictions.predict

    def ask_once(predictions, pixels):
        ask(predictions, pixels)
        asked.set()
        assert stopped.wait(240)

    monkeypatch.setattr(FolderPredictions, "predict", ask_once)
    press(at, "Predict the other 10")
    assert asked.wait(240)
    press(at, "Stop")
    stopped.set()
    view = finish(at, "folder-predictions")
    assert (view.completed, view.error) == (False, "")
    assert "24 predicted; " in at.markdown[0].value
    press(at, "Predict the other 6")
    assert finish(at, "folder-predictions").completed
    assert "30 predicted; " in at.markdown[0].value


def test_click_opens_the_picture_on_the_attribute_page_and_back_returns(photos):
    at = of_folder(photos)
    before = dict(at.query_params)
    follow(at, "03.png")
    content = (photos / "cat" / "03.png").read_bytes()
    assert at.header[0].value == "Which pixels led to this prediction?"
    assert at.query_params == {"image": "upload", "picture": digest(content)[:12], "picture_name": "03.png"}
    assert any("picture `03.png`" in caption.value for caption in at.caption)
    assert f"decode(Path({str(photos / 'cat' / '03.png')!r}).read_bytes())" in programs(at)[0]
    turn_to(at, "folder")
    go_to(at, **before)
    assert len(shown(at)) == 20
    assert at.query_params == before


def test_maps_of_the_folder_are_made_on_request_and_the_page_says_where(photos, tmp_path):
    at = of_folder(photos)
    (field,) = [field for field in at.text_input if "attribute.folder.out" in field.key]
    run(widget(at, "selectbox", "whole").set_value("gradient"))
    out = tmp_path / "my maps.zarr"
    run(field.set_value(str(out)))
    (command,) = [code.value for code in at.code if code.value.startswith("python -m plugin attribute")]
    assert f"--data {photos} --method gradient --out '{out}'" in command
    assert not out.exists()
    press(at, "Make the maps")
    assert not finish(at, "folder-maps").error
    assert f"30 maps in {out}; 5 files have none" in at.success[0].value.replace("\\", "")
    assert arrays(out)["finished"].all()
    run(widget(at, "selectbox", "whole").set_value("guided-grad-cam"))
    assert at.query_params["layer"] == widget(at, "selectbox", "layer").value
    run(widget(at, "selectbox", "layer").set_value("features.relu5"))
    assert any("--layer features.relu5" in code.value for code in at.code)
    press(at, "Go on with the maps")
    finish(at, "folder-maps")
    assert "begun with other settings" in at.error[0].value


def test_folder_that_cannot_be_opened_is_told_in_a_sentence(photos, tmp_path):
    at = opened("folder", pictures="folder")
    assert [info.value for info in at.info] == ["Type the path of a folder in the sidebar."]
    typed(at, tmp_path / "nothing")
    assert "cannot be opened\\: no such file or directory" in at.error[0].value
    typed(at, photos / "notes.txt")
    assert "is a file" in at.error[0].value
    (tmp_path / "hollow").mkdir()
    typed(at, tmp_path / "hollow")
    assert "holds no files" in at.error[0].value
    typed(at, photos)
    assert not at.error
    assert len(shown(at)) == 20


def test_link_asks_for_a_folder_that_is_not_known_and_warns_of_another(photos):
    at = opened("folder", pictures="folder", folder="0123456789ab", folder_name="mine")
    assert [info.value for info in at.info] == [
        "This link needs the folder `mine`: type its path in the sidebar."
    ]  # fmt: skip
    assert at.query_params["folder"] == "0123456789ab"


def test_folder_that_has_changed_is_told_and_read_again(tmp_path):
    folder = fill(tmp_path / "pictures", 4)
    at = of_folder(folder)
    link = dict(at.query_params)
    (folder / "cat" / "text.jpg").unlink()
    again = opened("folder", **link)
    assert is_another(again)
    press(at, "Read the folder again")
    assert at.query_params["folder"] != link["folder"]
    assert not is_another(at)


def is_another(at):
    return any("is not as it was when this link was made" in warning.value for warning in at.warning)


def test_server_that_opens_no_paths_takes_uploads(photos, monkeypatch):
    monkeypatch.setattr(own_paths, "allowed", lambda: False)
    at = opened("folder")
    assert widget(at, "segmented_control", "pictures").options == ["Samples", "Uploads"]
    linked = opened("folder", pictures="folder", folder="0123456789ab", folder_name="mine")
    assert "opens no folders" in linked.info[0].value
    assert not linked.text_input
    run(widget(at, "segmented_control", "pictures").set_value("upload"))
    assert at.info[0].value == "Upload pictures in the sidebar."
    files = [(f"{name}.png", png(models.sample_images()[name]), "image/png") for name in ("cat", "rocket")]
    run(widget(at, "file_uploader", "folder_files").set_value(files))
    assert shown(at) == ["cat.png", "rocket.png"]
    turn_to(at, "attribute")
    run(at)
    turn_to(at, "folder")
    assert shown(run(at)) == ["cat.png", "rocket.png"]
    follow(at, "rocket.png")
    assert at.query_params["picture"] == digest(files[1][1])[:12]
