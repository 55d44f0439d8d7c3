"""Networks that Hugging Face's libraries have saved: opened from a folder, without running anything in it."""

import json

import pytest
import torch
from PIL import Image
from support.simulator import maps, opened, programs, run, widget

from plugin import models
from plugin.attr import LRPTranspose
from plugin.datasets.explain import load_model
from plugin.errors import MissingExtraError
from plugin.explorer.choices.settings import Settings, from_query
from plugin.explorer.inputs import offered_networks, saved_networks, weight_downloads
from plugin.explorer.server import connection, own_paths
from plugin.models import hugging_face

STEPS = {
    "do_center_crop": True, "size": {"shortest_edge": 36}, "crop_size": {"height": 32, "width": 32},
    "image_mean": [0.5, 0.5, 0.5], "image_std": [0.2, 0.2, 0.2], "resample": 3,
}  # fmt: skip
NAMES = {0: "cat", 1: "dog", 2: "fox"}


@pytest.fixture
def transformers():
    return pytest.importorskip("transformers", reason="transformers is not installed: pip install transformers")


@pytest.fixture(params=["resnet", "vit"])
def saved(request, transformers, tmp_path):
    """A network, and the folder that it was saved in."""
    if request.param == "resnet":
        configuration = transformers.ResNetConfig(
            embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", id2label=NAMES
        )
    else:
        configuration = transformers.ViTConfig(
            hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=32,
            patch_size=8, id2label=NAMES,
        )  # fmt: skip
    torch.manual_seed(0)
    network = transformers.AutoModelForImageClassification.from_config(configuration).eval()
    network.save_pretrained(tmp_path / "mine")
    (tmp_path / "mine" / "preprocessor_config.json").write_text(json.dumps(STEPS))
    return network, tmp_path / "mine"


@pytest.fixture
def closed(monkeypatch):
    """No folder is open from another test."""
    monkeypatch.setattr(saved_networks, "_folders", type(saved_networks._folders)())


def test_folder_opens_as_the_network_that_was_saved(saved):
    network, folder = saved
    model = models.load(f"local-dir:{folder}")
    assert model.classes == ("cat", "dog", "fox")
    assert model.preprocessing == models.Preprocessing(
        36, 32, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2), Image.Resampling.BICUBIC
    )
    inputs = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(model.network(inputs), network(inputs).logits)
    relevance = LRPTranspose(model.network).attribute(inputs, target=1)
    assert relevance.shape == inputs.shape
    assert load_model(f"local-dir:{folder}").name == f"local-dir:{folder}"  # of the command line
    with pytest.raises(ValueError, match="weights of its own"):
        models.load(f"local-dir:{folder}", checkpoint=folder / "model.safetensors")


def test_folder_of_timm(tmp_path):
    timm = pytest.importorskip("timm")
    from safetensors.torch import save_file

    torch.manual_seed(0)
    network = timm.create_model("test_resnet", num_classes=3).eval()
    save_file(network.state_dict(), tmp_path / "model.safetensors")
    facts = {"architecture": "test_resnet", "num_classes": 3, "label_names": ["cat", "dog", "fox"]}
    facts["pretrained_cfg"] = {"input_size": [3, 96, 96], "crop_pct": 0.75, "mean": [0, 0, 0], "std": [1, 1, 1]}
    (tmp_path / "config.json").write_text(json.dumps(facts))
    model = models.load(f"local-dir:{tmp_path}")
    assert (model.preprocessing.resize, model.preprocessing.crop, model.classes) == (128, 96, ("cat", "dog", "fox"))
    inputs = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        torch.testing.assert_close(model.network(inputs), network(inputs))


def test_nothing_but_json_and_safetensors_is_read(saved):
    network, folder = saved
    before = json.loads((folder / "config.json").read_text())
    (folder / "evil.py").write_text("raise SystemExit('the code of the folder was run')")
    code = {"auto_map": {"AutoConfig": "evil.Evil", "AutoModelForImageClassification": "evil.Evil"}}
    (folder / "config.json").write_text(json.dumps(before | code))
    assert models.load(f"local-dir:{folder}").classes
    (folder / "config.json").write_text(json.dumps(before | code | {"model_type": "evil"}))
    with pytest.raises(ValueError, match="of no type that transformers knows"):
        models.load(f"local-dir:{folder}")
    (folder / "config.json").write_text(json.dumps(before))
    (folder / "model.safetensors").unlink()
    torch.save(network.state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"has no model.safetensors: save the network with save_pretrained"):
        models.load(f"local-dir:{folder}")


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        (
            {"hidden_sizes": [2**15, 2**16], "hidden_size": 2**17, "num_attention_heads": 2},
            "describes a larger network",
        ),
        ({"depths": [10**9, 1], "num_hidden_layers": 10**9}, "describes a larger network"),
        ({"num_labels": 10**9}, "of no type"),
        ({"id2label": {"0": "cat", "1": "dog"}}, "does not fit its model.safetensors"),
        ({"id2label": [["cat"]]}, "cannot be made from its config.json|does not fit"),
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, "is quantised"),
        ({"model_type": "bert"}, "not for the classification of images"),
        ({"model_type": ["x"]}, "of no type"),
    ],
)
def test_configuration_of_another_network_is_refused_before_memory_is_used(saved, facts, reason):
    _, folder = saved
    before = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(before | facts))
    with pytest.raises(ValueError, match=reason):
        models.load(f"local-dir:{folder}")


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (STEPS, (36, 32, (0.5, 0.5, 0.5))),
        ({"size": {"height": 224, "width": 224}, "image_mean": [0.1, 0.2, 0.3]}, (224, 224, (0.1, 0.2, 0.3))),
        ({"size": {"shortest_edge": 224}, "crop_pct": 0.875, "do_normalize": False}, (256, 224, (0.0, 0.0, 0.0))),
        ({"size": 384, "crop_pct": 0.875, "image_mean": [0.5]}, None),  # one mean and three deviations
        ({"size": "large"}, None),
        ({"size": 10**9}, None),
        ({"size": 224, "do_flip_channel_order": True}, None),
        ({"size": 224, "image_std": [0, 1, 1]}, None),
        ({}, None),
    ],
)
def test_steps_of_image_processors(steps, expected, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").touch()
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(steps))
    if expected is None:
        with pytest.raises(ValueError, match=r"preprocessor_config.json in .* describes inputs that are not"):
            hugging_face.read_folder(tmp_path)
        return
    found = hugging_face.read_folder(tmp_path).preprocessing
    assert (found.resize, found.crop, found.mean) == expected


@pytest.mark.parametrize(
    ("content", "reason"), [(None, "has no config.json"), ("{", "is no JSON"), ("[]", "no JSON object")]
)
def test_folder_without_a_configuration_gets_a_sentence(content, reason, tmp_path):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(ValueError, match=reason):
        hugging_face.read_folder(tmp_path)


def test_folder_that_is_called_as_a_program_is_not_opened_as_one(tmp_path):
    (tmp_path / "mine.pt2").mkdir()
    with pytest.raises(ValueError, match=r"mine\.pt2 has no config\.json"):
        models.load(f"local-dir:{tmp_path / 'mine.pt2'}")


@pytest.mark.parametrize("name", ["hf-hub:x", "hf-hub:../x/y", "hf-hub:a/b/c", "hf-hub:a/b@c d"])
def test_names_that_are_none_are_refused_without_asking_the_hub(name):
    with pytest.raises(ValueError, match="names no network of the Hub"):
        hugging_face.cached(name)


def test_without_the_libraries_a_sentence_says_how_to_install_them(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(MissingExtraError, match=r"network hf-hub:x/y needs the package huggingface_hub: .*\[zoo\]"):
        models.load("hf-hub:x/y")
    monkeypatch.setattr(hugging_face, "is_installed", lambda: False)
    settings, (note,) = from_query({"network": "hf-hub:x/y"}, offered_networks.choices(), [])
    assert settings.network == Settings.network
    assert "`hf-hub:x/y` cannot be opened here" in note


# In the explorer


@pytest.mark.usefixtures("closed")
def test_explorer_opens_a_folder_by_its_path_and_links_never_hold_it(saved):
    _, folder = saved
    at = opened("attribute", methods="gradient")
    widget(at, "text_input", "saved_network").set_value(str(folder))
    run(next(button for button in at.button if button.label == "Open the network").click())
    assert not at.error
    name = at.query_params["network"]
    assert name.startswith("local-dir:mine@")
    assert str(folder.parent) not in str(dict(at.query_params))
    assert len(maps(at)) == 1
    (program,) = programs(at)
    assert f"models.load('local-dir:{folder}')" in program
    found = {}
    exec(program.replace("figure.show()", ""), found)
    assert found["attribution"].any()
    again = opened("attribute", methods="gradient", network=name)
    assert again.query_params["network"] == name
    saved_networks._folders.clear()
    other = opened("attribute", methods="gradient", network=name)
    assert "is a folder that is not open here: open it again by its path" in other.warning[0].value
    (folder / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"open it again|of no type"):
        offered_networks.open_network(saved_networks.named(str(folder)))


@pytest.mark.usefixtures("closed")
def test_server_for_others_opens_named_folders_only_and_no_hub(saved, monkeypatch, tmp_path):
    _, folder = saved
    monkeypatch.setattr(connection, "serves_this_machine_only", lambda: False)
    with pytest.raises(ValueError, match="opens no paths"):
        saved_networks.named(str(folder))
    with pytest.raises(ValueError, match="opens no networks of the Hub"):
        saved_networks.named("hf-hub:microsoft/resnet-18")
    monkeypatch.setattr(own_paths, "_folders", [folder])
    name = saved_networks.named(str(folder))
    assert offered_networks.open_network(name).model.classes == ("cat", "dog", "fox")
    weights = folder / "model.safetensors"
    weights.rename(tmp_path / "outside")
    weights.symlink_to(tmp_path / "outside")
    with pytest.raises(ValueError, match="not inside of the folders"):
        saved_networks.named(str(folder))


@pytest.mark.parametrize("typed", ["", "resnet", "hf-hub:a", "/nowhere/at/all", "a/b/c"])
def test_what_is_no_network_gets_a_sentence(typed, monkeypatch):
    monkeypatch.setattr(connection, "serves_this_machine_only", lambda: True)
    with pytest.raises(ValueError, match=r"is no network|names no network|cannot be opened"):
        saved_networks.named(typed)


def test_network_of_the_hub_waits_for_the_button(monkeypatch):
    monkeypatch.setattr(hugging_face, "cached", lambda name: None)
    assert weight_downloads.missing("hf-hub:a/b") == "The files of hf-hub:a/b are not on this machine yet."
    with pytest.raises(RuntimeError, match="are not on this machine"):
        offered_networks.open_network("hf-hub:a/b")
