"""The examples that need MNIST, and that the tests of all pages therefore leave out, run where MNIST is."""

import re
import warnings
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "code-space-am.md"
# One continues the other.
BLOCKS = re.findall(r"^<!-- not run: [^\n]*MNIST -->\n```python\n(.*?)^```", PAGE.read_text("utf-8"), re.M | re.S)


@pytest.mark.slow
@pytest.mark.timeout(900)  # half a minute where nothing else runs
def test_the_examples_with_real_digits(
    real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("gan.data.CACHE", real_data)  # where MNIST lies already
    monkeypatch.chdir(tmp_path)
    assert len(BLOCKS) == 2
    names: dict[str, Any] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for number, block in enumerate(BLOCKS, start=1):
            exec(compile(block, f"{PAGE.name}, example {number}", "exec"), names)
    assert "judge's first choice is the target" in capsys.readouterr().out
    assert (tmp_path / "zeros.pt").exists()
