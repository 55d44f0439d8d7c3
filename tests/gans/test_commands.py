"""Messages of the commands before the work, and files kept of work that is stopped."""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from gan.__main__ import main
from gan.maximising import Result
from gan.maximising.maximizer import ActivationMaximizer
from plugin.models import WeightsUnavailable


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
def test_runs_that_are_stopped_are_written_as_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    maximize = ActivationMaximizer.maximize

    def interrupted(self: ActivationMaximizer, *arguments: Any, callback: Any, **options: Any) -> Result:
        def press(result: Result) -> Any:
            if result.step == 2:
                os.kill(os.getpid(), signal.SIGINT)
            return callback(result)

        return maximize(self, *arguments, callback=press, **options)

    monkeypatch.setattr(ActivationMaximizer, "maximize", interrupted)
    out, film = tmp_path / "m.png", tmp_path / "m.gif"
    options = ["--target", "3", "--runs", "2", "--steps", "50", "--layer", "body.conv2"]
    assert main(["maximize", *options, "--out", str(out), "--gif", str(film)]) == 130
    shown = capsys.readouterr()
    assert shown.err.splitlines()[-1] == "stopped after 2 of 50 steps; the files show the runs there"
    for path, format_of in ((out, "PNG"), (film, "GIF")):
        with Image.open(path) as picture:
            assert picture.format == format_of


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["maximize", "--target", "3", "--gan", "dcgan-cifar10"], "and mnist-classifier knows (1, 28, 28): give --gan"),
        (
            ["score", "--gan", "dcgan-cifar10", "--data", "digits"],
            "dcgan-cifar10 makes images (3, 32, 32), and",
        ),
    ],
)
def test_networks_of_other_images_are_refused_in_the_words_of_the_command(
    command: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main([*command, "--out", str(tmp_path / "out.png")]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (WeightsUnavailable("the weights of alexnet cannot be downloaded"), "cannot be downloaded"),
        (torch.OutOfMemoryError(), "out of memory: give fewer runs"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "out of memory: give fewer runs"),
    ],
)
def test_what_only_the_work_shows_is_a_sentence(
    error: Exception, message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr("gan.commands.sample.run", fail)
    assert main(["sample"]) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("error: ")
    assert message in shown


def test_scores_that_cannot_be_are_refused_before_the_runs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, real_data: Path
) -> None:
    monkeypatch.setattr("gan.maximising.CodeSpaceAM.maximize", None)
    data = ["--data-folder", str(real_data)]
    assert main(["score", *data, "--target", "3", "--runs", "1010"]) == 2
    assert "test images of class 3 in mnist are too few for --runs 1010: 1015 are needed" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["score", *data, "--baselines", "best"])
