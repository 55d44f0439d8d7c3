"""The examples of the pages run as they stand, one after the other, and none of them warns."""

import re
import warnings
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.timeout(900)  # half a minute where nothing else runs
@pytest.mark.parametrize("page", ["gan.md", "code-space-am.md"])
def test_the_examples_of_a_page(
    page: str, real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("gan.data.CACHE", real_data)  # where MNIST lies already
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)
    assert blocks
    names: dict[str, Any] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for number, block in enumerate(blocks, start=1):
            exec(compile(block, f"{page}, example {number}", "exec"), names)
    if page == "code-space-am.md":
        assert "judge's first choice is the target" in capsys.readouterr().out
        assert (tmp_path / "zeros.pt").exists()
