"""Networks of other number types, outputs and modes, and options that nothing would heed."""

import copy
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from plugin.datasets import attribute_dataset
from plugin.datasets.explain import Explain, load_model
from plugin.datasets.network_identity import weights_sha256
from plugin.models import LoadedModel, Preprocessing


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (40, 30), "olive").save(tmp_path / "photos" / "a.png")
    return tmp_path / "photos"


def small(function: Callable[[Tensor], Any] | None = None) -> nn.Module:
    class Small(nn.Sequential):
        def forward(self, input: Tensor) -> Any:
            logits = super().forward(input)
            return logits if function is None else function(logits)

    torch.manual_seed(0)
    return Small(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))


def explain(network: nn.Module) -> Explain:
    return Explain(network, "gradient", device="cpu")


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_inputs_have_the_number_type_of_the_weights(dtype: torch.dtype, folder: Path) -> None:
    batch = {"id": ["a.png"], "bytes": [(folder / "a.png").read_bytes()]}
    expected, found = explain(small())(batch), explain(small().to(dtype))(batch)
    assert found["error"].tolist() == [""]
    torch.testing.assert_close(*(torch.from_numpy(rows["map"]) for rows in (found, expected)), rtol=0.05, atol=1e-6)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda logits: (logits, None), r"its output is a tuple, and must be a tensor \(N, classes\)"),
        (lambda logits: {"logits": logits}, "its output is a dict"),
        (lambda logits: logits / 0, "its outputs for a grey picture are NaN or infinite: check its weights"),
    ],
)
def test_outputs_that_nothing_can_be_said_of_are_refused(function: Callable[[Tensor], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        explain(small(function))


def test_a_picture_whose_output_is_no_number_leaves_the_others_of_its_batch_alone(tmp_path: Path) -> None:
    """The brightness of a black picture is 0."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, colour in (("a", "olive"), ("black", "black"), ("c", "teal")):
        Image.new("RGB", (40, 30), colour).save(folder / f"{name}.png")

    class Normalised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = small()

        def forward(self, images: Tensor) -> Tensor:
            logits: Tensor = self.network(images / images.mean((1, 2, 3), keepdim=True).detach())
            return logits

    plain = Preprocessing(32, 32, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    model = LoadedModel("normalised", Normalised().eval(), plain, tuple("01234"))
    for method in ("gradient", "guided-backprop", "lrp-epsilon"):
        names = ["a.png", "black.png", "c.png"]
        explain = Explain(model, method, device="cpu")
        rows = explain({"id": names, "bytes": [(folder / name).read_bytes() for name in names]})
        assert rows["error"].tolist() == ["", "The output to explain is NaN or infinite.", ""]
        assert np.isnan(rows["map"][1]).all()
        for row in (0, 2):
            alone = explain({"id": names[row : row + 1], "bytes": [(folder / names[row]).read_bytes()]})
            np.testing.assert_allclose(rows["map"][row], alone["map"][0], rtol=1e-4, atol=1e-6)
            assert np.abs(alone["map"][0]).max() > 1e-4


def test_outputs_in_doubt_are_told() -> None:
    with pytest.warns(UserWarning, match=r"the outputs of Small lie in \[0, 1\] and are taken as logits"):
        explain(small(lambda logits: (logits * logits).clamp(0.1, 0.2)))


def test_a_network_that_draws_is_told() -> None:
    with pytest.warns(UserWarning, match="draws random numbers in its forward pass: its maps differ from run to run"):
        explain(small(lambda logits: F.dropout(logits, 0.5, training=True)))


class WithState(nn.ReLU):
    """A layer whose state is more than tensors."""

    def __init__(self, state: Any) -> None:
        super().__init__()
        self.state = state

    def get_extra_state(self) -> Any:
        return self.state


def test_weights_are_told_apart_whatever_a_state_dict_holds() -> None:
    states = ({"a": 1}, {"a": 2}, [torch.ones(2)], [torch.eye(2).to_sparse()], [torch.zeros(0), "b"], object())
    hashes = [weights_sha256(WithState(state)) for state in states]
    assert len(set(hashes)) == len(states)
    assert weights_sha256(WithState(object())) == hashes[-1]


def test_a_target_may_be_a_number_of_another_library() -> None:
    assert Explain(small(), "gradient", np.int64(3), device="cpu").settings["target"] == 3  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="unknown target True"):
        Explain(small(), "gradient", True, device="cpu")


def test_a_layer_that_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match=r"has no layer '7'; near are"):
        Explain(small(), "guided-grad-cam", layer="7", device="cpu")


def test_a_factory_with_arguments_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    modules = {"mine": SimpleNamespace(build=lambda classes: small())}
    monkeypatch.setattr("plugin.datasets.explain.import_module", modules.__getitem__)
    with pytest.raises(ValueError, match=r"mine:build is no function without arguments \(missing a required argument"):
        load_model("mine:build")


def test_a_network_stays_on_its_device(monkeypatch: pytest.MonkeyPatch) -> None:
    moved = []

    def copied(network: nn.Module, device: torch.device) -> nn.Module:
        moved.append((network, device))
        return copy.deepcopy(network)

    monkeypatch.setattr("plugin.datasets.explain.on_device", copied)
    network = small()
    found = Explain(network, "gradient", device="cpu")
    assert moved == [(network, torch.device("cpu"))]
    assert found.model.network is not network


def test_a_network_goes_on_in_its_mode(folder: Path, tmp_path: Path) -> None:
    network = small().train()
    network[0].eval()  # type: ignore[index]
    attribute_dataset(network, "gradient", folder, tmp_path / "m.zarr", device="cpu", progress=False)
    assert [part.training for part in network.modules()] == [True, False, True, True, True, True]
    with pytest.raises(ValueError, match="was begun with other settings"):
        attribute_dataset(network, "deconvnet", folder, tmp_path / "m.zarr", device="cpu", progress=False)
    assert network.training


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"actors": 2}, "actors = 2 is of the engine ray: choose it, or leave actors out"),
        ({"max_errors": math.nan}, "max_errors = nan must be a number from 0 on"),
    ],
)
def test_options_that_nothing_heeds_are_refused(options: dict[str, Any], message: str, folder: Path) -> None:
    with pytest.raises(ValueError, match=message):
        attribute_dataset(small(), "gradient", folder, folder.parent / "m.zarr", device="cpu", **options)
    assert not (folder.parent / "m.zarr").exists()
