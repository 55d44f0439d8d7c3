"""Names of classes, as files have them."""

import json
from pathlib import Path
from typing import Any

import pytest

from plugin import models

PETS = ("cat", "dog", "red fox")
AS_JSON: dict[str, Any] = {
    "list": list(PETS),
    "numbers to names": {"0": "cat", "2": "red fox", "1": "dog"},
    "names to numbers": {"red fox": 2, "cat": 0, "dog": 1},
    "with WordNet's numbers": {"0": ["n1", "cat"], "1": ["n2", "dog"], "2": ["n3", "red fox"]},
    "Hugging Face's configuration": {"model_type": "vit", "id2label": {"0": "cat", "1": "dog", "2": "red fox"}},
}
NO_NAMES = {
    "empty": b"",
    "blank": b" \n\n",
    "numbers": b"[1, 2]",
    "gap": b'{"0": "cat", "2": "dog"}',
    "no object": b"[",
    "nested": b"[" * 100_000,
    "booleans": b'{"0": true}',
    "names of nothing": b'["cat", ""]',
    "long": b"x" * 1000,
    "picture": b"\x89PNG\xff\xfe",
    "large": b"cat\n" * 300_000,
}


@pytest.mark.parametrize("kind", AS_JSON)
def test_names_in_json(kind: str, tmp_path: Path) -> None:
    (tmp_path / "names.json").write_text(json.dumps(AS_JSON[kind]))
    assert models.class_names(tmp_path / "names.json") == PETS


@pytest.mark.parametrize("text", ["cat\ndog\nred fox", "\ufeffcat\r\ndog\r\n\r\n red \t fox \r\n"])
def test_a_name_a_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_bytes(text.encode())
    assert models.class_names(tmp_path / "names.txt") == PETS


@pytest.mark.parametrize("kind", NO_NAMES)
def test_file_without_names_gets_a_sentence(kind: str, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_bytes(NO_NAMES[kind])
    with pytest.raises(ValueError, match=r"^names\.txt is no list of class names: ") as caught:
        models.class_names(tmp_path / "names.txt")
    assert "\n" not in str(caught.value)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        models.class_names(tmp_path / "none.txt")
