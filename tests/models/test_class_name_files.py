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


AS_TEXT: dict[str, bytes] = {
    "a name a line": b"cat\ndog\nred fox",
    "of Windows": "\ufeffcat\r\ndog\r\n\r\n red \t fox \r\n".encode(),
    "UTF-16": "cat\r\ndog\r\nred fox".encode("utf-16"),
    "numbered": b"2 red fox\n0 cat\n1 dog\n",
    "numbered from 1": b"1. cat\n2. dog\n3. red fox\n",
    "numbers at the end": b"red fox  2\ncat  0\ndog  1\n",
    "table": b"2,red fox\n0,cat\n1,dog\n",
    "table with a header": b'"name";"index"\n"red fox";"2"\n"cat";"0"\n"dog";"1"\n',
    "tabs": b"red fox\t2\ncat\t0\ndog\t1\n",
}
# Names that only look as if they were numbered, or are a part of the numbers.
AS_THEY_ARE = {
    "coins": ("1 cent", "2 cents", "5 cents"),
    "breeds": ("breed 1", "breed 2"),
    "lists": ("cat, tabby", "dog, hound"),
    "digits": ("0", "1"),
}


@pytest.mark.parametrize("kind", AS_TEXT)
def test_names_in_text(kind: str, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_bytes(AS_TEXT[kind])
    assert models.class_names(tmp_path / "names.txt") == PETS


@pytest.mark.parametrize("kind", AS_THEY_ARE)
def test_names_with_numbers_or_commas_are_names(kind: str, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("\n".join(AS_THEY_ARE[kind]))
    assert models.class_names(tmp_path / "names.txt") == AS_THEY_ARE[kind]


def test_other_encoding_gets_its_remedy(tmp_path: Path) -> None:
    (tmp_path / "names.csv").write_bytes("chèvre\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"no text in UTF-8, so save it as that$"):
        models.class_names(tmp_path / "names.csv")


@pytest.mark.parametrize("kind", NO_NAMES)
def test_file_without_names_gets_a_sentence(kind: str, tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_bytes(NO_NAMES[kind])
    with pytest.raises(ValueError, match=r"^names\.txt is no list of class names: ") as caught:
        models.class_names(tmp_path / "names.txt")
    assert "\n" not in str(caught.value)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        models.class_names(tmp_path / "none.txt")
