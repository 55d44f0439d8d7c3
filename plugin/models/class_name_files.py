"""Names of classes from a file, as training programs write them."""

import json
from pathlib import Path
from typing import Any

MAX_BYTES = 2**20
EXTENSIONS = ("txt", "json")
_LONGEST = 200


def class_names(path: str | Path) -> tuple[str, ...]:
    """The names of a network's outputs, in their order.

    Args:
        path: a text file with a name a line, or a JSON file: a list of names, an object from numbers to names
            (`{"0": "cat"}`, also ImageNet's `{"0": ["n02123045", "tabby"]}`), one from names to numbers (torchvision's
            `class_to_idx`), or a Hugging Face configuration with `id2label`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is too large, or none of these; one sentence names the file and the remedy.

    >>> from pathlib import Path
    >>> from tempfile import mkdtemp
    >>> from plugin import models
    >>> path = Path(mkdtemp(), "names.json")
    >>> _ = path.write_text('{"0": "cat", "1": "dog"}')
    >>> models.class_names(path)
    ('cat', 'dog')
    """
    source = Path(path)
    with source.open("rb") as file:
        data = file.read(MAX_BYTES + 1)
    return read_class_names(source.name, data)


def read_class_names(name: str, data: bytes) -> tuple[str, ...]:
    """The names in a file, from the file's name and content; otherwise `class_names`."""
    if len(data) > MAX_BYTES:
        raise ValueError(f"{name} is no list of class names: it has more than {MAX_BYTES // 2**20} MB")
    try:
        text = data.decode("utf-8-sig")
        return _of_json(json.loads(text)) if text.lstrip()[:1] in ("[", "{") else _of_lines(text)
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(
            f"{name} is no list of class names: give a text file with a name a line, or a JSON list of names"
        ) from error


def _of_lines(text: str) -> tuple[str, ...]:
    return checked_names([line.strip() for line in text.splitlines() if line.strip()])


def _of_json(content: Any) -> tuple[str, ...]:
    if isinstance(content, list):
        return checked_names(content)
    if isinstance(content.get("id2label"), dict):
        content = content["id2label"]
    if all(isinstance(value, int) for value in content.values()):
        content = {number: name for name, number in content.items()}
    numbered = {int(number): name for number, name in content.items()}
    if sorted(numbered) != list(range(len(numbered))):
        raise ValueError("numbers are left out")
    return checked_names([numbered[number] for number in range(len(numbered))])


def checked_names(names: list[Any]) -> tuple[str, ...]:
    """The names as they may be shown.

    Raises:
        ValueError: these are no names.
    """
    # ImageNet's list has the WordNet number beside the name.
    plain = [name[-1] if isinstance(name, list) and name else name for name in names]
    if not plain or not all(isinstance(name, str) and 0 < len(name) <= _LONGEST for name in plain):
        raise ValueError("no names")
    return tuple("".join(filter(str.isprintable, " ".join(name.split()))) for name in plain)
