"""Checkpoints as people have them: each opens, or one sentence names the file and the remedy; nothing in one is run."""

import collections
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from support.checkpoint_files import NETWORK, REFUSED, WRAPPED, Command, lightning, network, older_program, rewritten
from torch import nn
from torchvision.models import get_model

from plugin import models
from plugin.attr import LRPTranspose
from plugin.models.state_dicts import guess, state_dicts
from plugin.models.tensor_files import read_tensors


@pytest.mark.parametrize("kind", WRAPPED)
def test_a_checkpoint_opens(kind: str, tmp_path: Path) -> None:
    name, write = WRAPPED[kind]
    write(tmp_path / name)
    sys.modules.pop("users_training", None)
    loaded = models.load(NETWORK, checkpoint=tmp_path / name).network.state_dict()
    tolerance = 1e-3 if kind == "half precision" else 0.0
    for key, value in network().state_dict().items():
        torch.testing.assert_close(loaded[key], value, rtol=tolerance, atol=tolerance)


def test_another_number_of_classes(tmp_path: Path) -> None:
    torch.save(
        {"state_dict": {f"net.{key}": value for key, value in network(7).state_dict().items()}}, tmp_path / "7.pt"
    )
    loaded = models.load(NETWORK, checkpoint=tmp_path / "7.pt")
    assert loaded.network(torch.zeros(1, 3, 64, 64)).shape == (1, 7)
    assert loaded.classes == ()


@pytest.mark.parametrize(("name", "classes"), [("resnet18", 7), ("mobilenet_v3_small", 1000), ("vit_b_32", 3)])
def test_an_architecture_is_recognised(name: str, classes: int, tmp_path: Path) -> None:
    state = get_model(name, weights=None, num_classes=classes).state_dict()
    assert guess({f"model.{key}": value for key, value in state.items()}) == (name, classes)
    lightning_like = {f"model.{key}": value for key, value in state.items()} | {"loss.weight": torch.ones(classes)}
    for content in (state, {"epoch": 1, "state_dict": lightning_like}):
        torch.save(content, tmp_path / "mine.pt")
        message = rf"^the checkpoint mine\.pt does not fit {NETWORK}: it holds a {name} with {classes} classes"
        with pytest.raises(models.OtherArchitecture, match=message) as caught:
            models.load(NETWORK, checkpoint=tmp_path / "mine.pt")
        assert (caught.value.architecture, caught.value.classes) == (name, classes)


@pytest.mark.filterwarnings("ignore:.*TypedStorage is deprecated", "ignore:torch.jit", "ignore:.*torch.ao.quantization")
@pytest.mark.parametrize("kind", REFUSED)
def test_a_file_that_cannot_be_opened_gets_a_sentence(kind: str, tmp_path: Path) -> None:
    name, write, message = REFUSED[kind]
    write(tmp_path / name)
    with pytest.raises(ValueError, match=message) as caught:
        models.load(NETWORK, checkpoint=tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("zipped", [True, False])
def test_nothing_in_a_file_is_run(zipped: bool, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    torch.save(
        {"state_dict": network().state_dict(), "callbacks": Command(trace)}, tmp_path / "evil.pt",
        _use_new_zipfile_serialization=zipped,
    )  # fmt: skip
    with pytest.raises(ValueError, match=r"evil\.pt is not a checkpoint that can be read safely"):
        models.load(NETWORK, checkpoint=tmp_path / "evil.pt")
    assert not trace.exists()


def test_nothing_in_the_weights_of_an_older_program_is_run(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    older_program("evil/data/weights/model.pt", tmp_path / "evil.pt2", more=Command(trace))
    with pytest.raises(ValueError, match=r"evil\.pt2 is not a checkpoint that can be read safely"):
        models.load(NETWORK, checkpoint=tmp_path / "evil.pt2")
    assert not trace.exists()


def test_expression_in_a_program_is_not_evaluated(tmp_path: Path) -> None:
    """`torch.export.load` would run it."""
    trace, path = tmp_path / "trace", tmp_path / "evil.pt2"
    batch = {0: torch.export.Dim("batch", min=1)}
    linear = nn.Sequential(nn.Linear(2, 2))
    torch.export.save(torch.export.export(linear, (torch.zeros(3, 2),), dynamic_shapes={"input": batch}), path)
    command = f"__import__('os').system('touch {trace}')".encode()
    rewritten(path, "model.json", lambda text: re.sub(b'"expr_str": "[^"]*"', b'"expr_str": "%b"' % command, text))
    loaded = models.load(nn.Sequential(nn.Linear(2, 2)), checkpoint=path)
    assert torch.equal(loaded.network.state_dict()["0.weight"], linear[0].weight)
    assert not trace.exists()


def test_a_program_opens_and_is_explained_as_its_network(tmp_path: Path) -> None:
    own = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(), nn.Flatten(), nn.Linear(144, 5))
    images = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.export.save(torch.export.export(own.eval(), (images,)), tmp_path / "own.pt2")
    loaded = models.load(tmp_path / "own.pt2", classes="abcde")
    assert (loaded.name, loaded.classes) == ("own.pt2", tuple("abcde"))
    expected = LRPTranspose(own).attribute(images, target=1)
    assert [name for name, _ in loaded.network.named_children()] == [name for name, _ in own.named_children()]
    torch.testing.assert_close(LRPTranspose(models.load(str(tmp_path / "own.pt2")).network).attribute(images, target=1),
                               expected)  # fmt: skip


def test_a_program_of_training_and_a_damaged_one_get_a_sentence(tmp_path: Path) -> None:
    images = (torch.randn(2, 4),)
    training = nn.Sequential(nn.Linear(4, 4), nn.Dropout()).train()
    torch.export.save(torch.export.export(training, images), tmp_path / "training.pt2")
    with pytest.raises(ValueError, match=r"training\.pt2 was exported while training.*model\.eval"):
        models.load(tmp_path / "training.pt2")
    (tmp_path / "text.pt2").write_text("hello")
    with pytest.raises(ValueError, match=r"text\.pt2 is not a program"):
        models.load(tmp_path / "text.pt2")
    with pytest.raises(FileNotFoundError, match=r"none\.pt2"):
        models.load(tmp_path / "none.pt2")


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        (
            {"model": "all-cnn-c", "checkpoint": "none.pt"},
            r"none\.pt cannot be read \(No such .*: give a \.safe",
        ),
        ({"model": "resnet18", "checkpoint": "."}, r"checkpoint \. cannot be read \(Is a directory\): give a \.safet"),
        ({"model": "none.pt2"}, r"no file none\.pt2: give one of torch\.export\.save.* weights as checkpoint="),
        ({"model": Path("none.pt")}, r"no file none\.pt: give one of torch\.export\.save.* weights as checkpoint="),
        ({"model": "none.pt"}, r"unknown network 'none\.pt': give .*; the file of its weights is checkpoint="),
    ],
)
def test_a_file_that_is_not_there_is_named_with_the_remedy(arguments: dict[str, Any], remedy: str) -> None:
    with pytest.raises((OSError, ValueError), match=remedy):
        models.load(**arguments)


def test_of_several_state_dicts_the_usual_one_comes_first() -> None:
    first, second = {"weight": torch.zeros(2)}, {"weight": torch.ones(2), "bias": torch.ones(2)}
    content = {"teacher": second, "optimizer": {"state": {0: {"step": torch.ones(1)}}}, "model": first}
    assert [len(found) for found in state_dicts(content)] == [1, 2]


def test_classes_taken_for_safe_are_forgotten(tmp_path: Path) -> None:
    before = list(torch.serialization.get_safe_globals())
    lightning(tmp_path / "a.ckpt")
    read_tensors(tmp_path / "a.ckpt")
    assert torch.serialization.get_safe_globals() == before


def test_nested_containers_are_no_bomb(tmp_path: Path) -> None:
    """Lists of lists of the same lists take no memory, but a walk through all of them takes for ever."""
    content: Any = [torch.zeros(1)]
    for _ in range(60):
        content = [content, content]
    torch.save({"nested": content, "weights": collections.OrderedDict(weight=torch.ones(2))}, tmp_path / "nested.pt")
    assert torch.equal(state_dicts(read_tensors(tmp_path / "nested.pt"))[0]["weight"], torch.ones(2))
