"""Networks of timm's, by name, with the weights of a file."""

import numpy as np
import pytest
import torch

from plugin import models
from plugin.errors import MissingExtraError
from plugin.explorer.choices.settings import Settings, from_query
from plugin.explorer.inputs import offered_networks
from plugin.explorer.inputs.offered_pictures import sample
from plugin.explorer.inputs.own_weights import OwnWeights
from plugin.explorer.inputs.weight_downloads import missing
from plugin.explorer.maps import answers, map_programs
from plugin.explorer.maps.questions import Question
from plugin.explorer.server.kept_files import local
from plugin.models import WeightsUnavailable, timm_networks


@pytest.fixture
def timm():
    return pytest.importorskip("timm")


@pytest.fixture
def absent(monkeypatch):
    """As where timm is not installed."""
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    monkeypatch.setattr(timm_networks, "find_spec", lambda name: None)
    timm_networks.timm_names.cache_clear()
    yield
    timm_networks.timm_names.cache_clear()


@pytest.fixture
def checkpoint(timm, tmp_path):
    """Weights for seven classes, as timm's training program saves them."""
    torch.manual_seed(0)
    network = timm.create_model("test_resnet", num_classes=7).eval()
    torch.save({"arch": "test_resnet", "epoch": 3, "state_dict": network.state_dict()}, tmp_path / "best.pth.tar")
    return network, tmp_path / "best.pth.tar"


@pytest.mark.usefixtures("absent")
def test_without_timm_a_sentence_says_how_to_install_it():
    assert not any(name.startswith("timm/") for name in offered_networks.choices())
    with pytest.raises(MissingExtraError, match=r"network timm/resnet18 needs the package timm: pip install .*\[zoo\]"):
        models.load("timm/resnet18", checkpoint="mine.pt")
    settings, (note,) = from_query({"network": "timm/resnet18"}, offered_networks.choices(), [])
    assert settings.network == Settings.network
    assert "timm/resnet18` needs the package timm, which is not installed" in note


def test_weights_of_a_file_are_opened_with_its_number_of_classes(checkpoint):
    network, path = checkpoint
    for name in ("timm/test_resnet", "timm/test_resnet.r160_in1k"):
        model = models.load(name, checkpoint=path)
        inputs = torch.randn(2, 3, model.preprocessing.crop, model.preprocessing.crop)
        with torch.no_grad():
            torch.testing.assert_close(model.network(inputs), network(inputs))
        assert not model.classes


def test_values_that_no_file_holds_are_those_of_the_network(timm, tmp_path):
    torch.manual_seed(1)
    name = "swin_tiny_patch4_window7_224"
    network = timm.create_model(name).eval()
    torch.save(network.state_dict(), tmp_path / "mine.pt")
    model = models.load(f"timm/{name}", checkpoint=tmp_path / "mine.pt")
    inputs = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(model.network(inputs), network(inputs))
    assert len(model.classes) == 1000


def test_pictures_become_inputs_as_in_the_training(timm):
    found = models.preprocessing_of("timm/vit_tiny_patch16_224")
    assert (found.resize, found.crop, found.mean) == (248, 224, (0.5, 0.5, 0.5))


@pytest.mark.usefixtures("timm")
def test_nothing_is_downloaded_and_mistakes_get_a_sentence(tmp_path):
    with pytest.raises(WeightsUnavailable, match="none are downloaded: pass checkpoint="):
        models.load("timm/test_resnet")
    with pytest.raises(ValueError, match="unknown network 'timm/nothing'"):
        models.load("timm/nothing")
    assert missing("timm/test_resnet") == ""  # no button offers a download
    assert models.load("timm/test_resnet", weights=None).network(torch.zeros(1, 3, 160, 160)).shape == (1, 1000)


def test_the_explorer_offers_them_and_its_program_gives_the_same_map(checkpoint):
    _, path = checkpoint
    assert "timm/test_resnet" in offered_networks.architectures()
    assert offered_networks.family("timm/test_resnet") != offered_networks.family("resnet18")
    subject = offered_networks.open_network("timm/test_resnet", OwnWeights(local(path)))
    question, picture = Question("lrp-epsilon-plus-flat", 2), sample("cat")
    found: dict = {}
    settings = Settings(network="timm/test_resnet")
    exec(map_programs.program(settings, question, picture, 1.0, subject).replace("figure.show()", ""), found)
    result = answers.compute(subject, picture.image, question)
    np.testing.assert_array_equal(found["attribution"], result.attribution)
