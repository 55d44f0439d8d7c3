"""Users' files on the pages: checkpoints, pictures and class names, uploaded or by a path."""

import os
import sys

import numpy as np
import pytest
import torch
from support.checkpoint_files import NETWORK, REFUSED, WRAPPED, network, program
from support.simulator import go_to, maps, opened, png, programs, run, widget
from torchvision.models import get_model

from plugin import models
from plugin.explorer.inputs import offered_networks, own_weights
from plugin.explorer.server import connection, meter, own_paths

PHOTOGRAPH = png(models.sample_images()["astronaut"])
MAP = {"methods": "gradient", "target": "3"}


@pytest.fixture(autouse=True)
def no_folders(monkeypatch):
    monkeypatch.setattr(own_paths, "_folders", [])


@pytest.fixture
def doubled(tmp_path):
    """A checkpoint of the user's own in a folder of the user's own."""
    state = models.load("all-cnn-c").network.state_dict()
    path = tmp_path / "mine.ckpt"
    torch.save({"state_dict": {f"net.{name}": 2 * value for name, value in state.items()}}, path)
    return path


def send(at, name, file, data):
    return run(widget(at, "file_uploader", name).set_value((file, data, "application/octet-stream")))


def open_path(at, name, path):
    widget(at, "text_input", f"{name}.path").set_value(str(path))
    return run(widget(at, "button", f"{name}.path.open").click())


def strip(at):
    (line,) = [caption.value for caption in at.caption if caption.value.startswith("Open: ")]
    return line


def errors(at):
    return " ".join(error.value for error in at.error)


def outcome(program_text):
    """The map that a program computes."""
    space: dict = {}
    exec(program_text.replace("figure.show()", ""), space)
    return space["attribution"]


# By a path


def test_checkpoint_by_its_path(doubled):
    at = open_path(opened(**MAP), "weights.all-cnn-c", doubled)
    assert not at.error
    assert strip(at).startswith("Open: network all-cnn-c, weights `mine.ckpt`")
    assert f"models.load('all-cnn-c', checkpoint={str(doubled)!r})" in programs(at)[0]
    assert at.query_params["checkpoint_name"] == "mine.ckpt"
    assert len(at.query_params["checkpoint"]) == 12
    assert str(doubled.parent) not in str(dict(at.query_params))
    ours = outcome(programs(opened(**MAP))[0])
    with pytest.raises(AssertionError):
        np.testing.assert_array_equal(outcome(programs(at)[0]), ours)
    again = opened(**at.query_params)
    assert programs(again) == programs(at)


def test_file_that_changes_is_not_taken_for_the_one_that_was_opened(doubled):
    at = open_path(opened(**MAP), "weights.all-cnn-c", doubled)
    before = dict(at.query_params)
    torch.save(models.load("all-cnn-c").network.state_dict(), doubled)
    open_path(at, "weights.all-cnn-c", doubled)
    assert at.query_params["checkpoint"] != before["checkpoint"]
    assert not at.error
    go_to(at, **before, network="model-c")  # not kept as that network
    assert "mine.ckpt was changed after it had been opened" in errors(at).replace("\\", "")
    doubled.unlink()
    open_path(at, "weights.model-c", doubled)
    assert "cannot be opened: no such file" in errors(at).replace("\\", "")


def test_path_that_cannot_be_opened_gets_a_sentence_and_changes_nothing(doubled):
    at = opened(**MAP)
    for path in ("", doubled.parent, doubled.parent / "none.pt", "/dev/zero"):
        open_path(at, "weights.all-cnn-c", path)
        assert len(at.error) == 1
        assert len(maps(at)) == 1
    (doubled.parent / "empty.pt").touch()
    open_path(at, "file", doubled.parent / "empty.pt")
    assert "empty.pt is empty" in errors(at).replace("\\", "")
    os.truncate(doubled.parent / "empty.pt", 2**40)  # takes no room on the disk
    open_path(at, "file", doubled.parent / "empty.pt")
    assert "at most 10 MB are read" in errors(at)
    open_path(at, "weights.all-cnn-c", doubled)
    assert not [error for error in at.error if "weights" in error.value]
    assert "mine.ckpt" in strip(at)


def test_other_servers_open_paths_in_named_folders_only(doubled, monkeypatch):
    monkeypatch.setattr(connection, "serves_this_machine_only", lambda: False)
    at = opened(**MAP)
    assert not at.text_input
    own_paths.add_folder(doubled.parent)
    at = open_path(opened(**MAP), "weights.all-cnn-c", "mine.ckpt")
    assert "mine.ckpt" in strip(at)
    open_path(at, "file", "/etc/passwd")
    assert "is not inside of the folders" in errors(at)


def test_picture_by_its_path(tmp_path):
    (tmp_path / "koala bear.png").write_bytes(PHOTOGRAPH)
    at = open_path(opened(**MAP), "file", tmp_path / "koala bear.png")
    assert strip(at) == "Open: network all-cnn-c, picture `koala bear.png`"
    assert str(tmp_path) not in str(dict(at.query_params))
    sent = send(opened(**MAP), "file", "koala bear.png", PHOTOGRAPH)
    assert sent.query_params == at.query_params
    assert outcome(programs(at)[0]).shape == (3, 32, 32)


def test_large_checkpoint_is_refused_where_memory_is_too_small(doubled, monkeypatch):
    monkeypatch.setattr(own_weights, "available_memory", lambda: doubled.stat().st_size)
    at = open_path(opened(**MAP), "weights.all-cnn-c", doubled)
    assert "mine.ckpt takes about" in errors(at).replace("\\", "")
    free = meter.available_memory()
    assert free is None or free > 0


# Another architecture, classes and preprocessing


@pytest.fixture
def seven(tmp_path):
    """A network of seven classes, in a file of a training program."""
    torch.manual_seed(0)
    state = get_model("squeezenet1_1", num_classes=7).state_dict()
    torch.save({"state_dict": {f"model.{name}": value for name, value in state.items()}}, tmp_path / "best.ckpt")
    return tmp_path / "best.ckpt"


def test_architecture_that_the_weights_have_is_offered(seven):
    at = open_path(opened(target="3", methods="gradient"), "weights.all-cnn-c", seven)
    assert "holds a squeezenet1_1 with 7 classes" in errors(at).replace("\\", "")
    assert not maps(at)
    (button,) = [button for button in at.button if button.label == "Open as squeezenet1_1 with 7 classes"]
    run(button.click())
    assert not at.error
    assert strip(at) == "Open: network squeezenet1\\_1, weights `best.ckpt`, picture cat"
    assert len(maps(at)) == 1
    run(widget(at, "selectbox", "network").set_value("all-cnn-c"))  # which has its own weights again
    assert not at.error
    assert "best.ckpt" not in strip(at)


def test_names_and_preprocessing_are_in_the_link_and_in_the_program(seven, tmp_path):
    at = opened(network="squeezenet1_1", methods="gradient")
    open_path(at, "weights.squeezenet1_1", seven)
    plain = dict(at.query_params), outcome(programs(at)[0])
    (tmp_path / "pets.json").write_text('["ant", "bee", "**cat**", "<b>dog</b>", "eel", "`fox`", "$gnu$"]')
    open_path(at, "class_names.squeezenet1_1", tmp_path / "pets.json")
    fill(at, resize=64, crop=64, mean="0.5, 0.5, 0.5", std="0.25,0.25,0.48145466")
    assert not at.error
    assert "classes `pets.json`, preprocessing changed" in strip(at)
    extra = {name: at.query_params[name] for name in at.query_params if name not in plain[0]}
    assert len(extra.pop("class_names")) == 12
    assert extra == {
        "class_names_name": "pets.json", "resize": "64", "crop": "64", "mean": "0.5,0.5,0.5",
        "std": "0.25,0.25,0.48145466",
    }  # fmt: skip
    options = widget(at, "selectbox", "target").options
    assert [option for option in options if "**cat**" in option]
    assert outcome(programs(at)[0]).shape == (3, 64, 64)
    assert plain[1].shape == (3, 224, 224)
    assert programs(opened(**at.query_params)) == programs(at)
    fill(at, resize=256, crop=224, mean="0.485, 0.456, 0.406", std="0.229,0.224,0.225")
    assert {*at.query_params} == {*plain[0], "class_names", "class_names_name"}


def fill(at, **values):
    """Fill the form of the preprocessing."""
    form = "attribute.preprocessing."
    for field in [*at.number_input, *at.text_input]:
        name = field.key.rpartition(".")[2] if field.key.startswith(form) else ""
        if name in values:
            field.set_value(values[name])
    (use,) = [button for button in at.button if button.label == "Use for its pictures"]
    return run(use.click())


def test_wrong_names_and_wrong_preprocessing_get_a_sentence(seven, tmp_path):
    at = opened(network="squeezenet1_1", methods="gradient")
    open_path(at, "weights.squeezenet1_1", seven)
    fill(at, mean="123.675, 116.28, 103.53")
    assert "`123.675, 116.28, 103.53` is not a number from 0 to 1" in errors(at)
    assert "mean" not in at.query_params
    fill(at, mean="0.5")
    assert "is not 3 numbers" in errors(at)
    (tmp_path / "two.txt").write_text("cat\ndog")
    send(at, "class_names.squeezenet1_1", "two.txt", b"cat\ndog")
    assert "two.txt has 2 names, and the network in best.ckpt 7 classes" in errors(at).replace("\\", "")
    (again,) = [button for button in at.button if button.label == "Number the classes again"]
    run(again.click())
    assert not at.error
    link = {**at.query_params, "class_names": "0123456789ab", "class_names_name": "pets.txt"}
    at = opened(**link)
    assert "needs the file of class names `pets.txt`" in at.info[0].value
    assert len(maps(at)) == 1


# The files of training programs


@pytest.fixture(scope="module")
def page():
    return opened(network=NETWORK, checkpoint="0123456789ab", methods="gradient", image="coffee")


@pytest.mark.parametrize("kind", WRAPPED)
def test_checkpoint_opens_on_the_page(kind, page, tmp_path):
    name, write = WRAPPED[kind]
    write(tmp_path / name)
    sys.modules.pop("users_training", None)
    send(page, f"weights.{NETWORK}", name, (tmp_path / name).read_bytes())
    assert not page.error
    assert f"weights `{name}`" in strip(page)
    assert len(maps(page)) == 1


@pytest.mark.filterwarnings("ignore:.*TypedStorage is deprecated", "ignore:torch.jit", "ignore:.*torch.ao.quantization")
@pytest.mark.parametrize("kind", REFUSED)
def test_file_that_cannot_be_opened_gets_a_sentence_on_the_page(kind, page, tmp_path):
    name, write, _ = REFUSED[kind]
    write(tmp_path / name)
    send(page, f"weights.{NETWORK}", name, (tmp_path / name).read_bytes())
    assert len(page.error) == 1
    assert name in errors(page).replace("\\", "")
    assert not maps(page)


def test_program_of_the_person_at_the_command_line(tmp_path, monkeypatch):
    monkeypatch.setattr(offered_networks, "_own", {})
    with pytest.raises(ValueError, match=r"none\.pt2 is no file"):
        offered_networks.add("none.pt2")
    own, fixed = str(tmp_path / "own.pt2"), str(tmp_path / "fixed.pt2")
    program(tmp_path / "own.pt2", side=224, batch=torch.export.Dim.DYNAMIC)
    program(tmp_path / "fixed.pt2", side=224)
    offered_networks.add(own)
    offered_networks.add(fixed)
    assert "fixed.pt2 cannot process a picture" in errors(opened(network=fixed, **MAP)).replace("\\", "")
    assert not opened("deconvnet", network=own).error
    at = opened(network=own, **MAP)
    assert not at.error
    layers = widget(opened(network=own, **MAP, explain="neuron"), "selectbox", "layer").options
    assert "features.12.expand3x3  (256 x 13 x 13)" in layers
    torch.testing.assert_close(torch.from_numpy(outcome(programs(at)[0])), gradient_of(network()), rtol=1e-4, atol=1e-6)


def gradient_of(own):
    image = models.load(own.eval()).preprocess(models.sample_images()["cat"]).requires_grad_()
    return torch.autograd.grad(own(image)[0, 3], image)[0][0]
