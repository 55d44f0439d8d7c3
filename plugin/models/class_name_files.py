"""Names of classes from a file, as training programs write them."""

import codecs
import csv
import json
import re
from pathlib import Path
from typing import Any

MAX_BYTES = 2**20
EXTENSIONS = ("txt", "csv", "tsv", "json")
_LONGEST = 200
_SEPARATORS = ",;\t"
# A line of a text with the number of an output and its name, in either order.
_NUMBERED = (r"(?P<number>\d+)[.:)]?\s+(?P<name>\S.*)", r"(?P<name>.*\S)\s+(?P<number>\d+)")


def class_names(path: str | Path) -> tuple[str, ...]:
    """The names of a network's outputs, in their order.

    Args:
        path: a text file with a name a line, or with a number and a name a line, in any order (`0 cat`; as a table
            `0,cat` or `cat,0`, which may have a header); or a JSON file: a list of names, an object from numbers to
            names (`{"0": "cat"}`, also ImageNet's `{"0": ["n02123045", "tabby"]}`), one from names to numbers
            (torchvision's `class_to_idx`), or a Hugging Face configuration with `id2label`. UTF-8, or UTF-16 with its
            mark.

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
        text = _decoded(data)
        return _of_json(json.loads(text)) if text.lstrip()[:1] in ("[", "{") else _of_lines(text)
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} is no list of class names: it is no text in UTF-8, so save it as that") from error
    except (ValueError, TypeError, RecursionError, csv.Error) as error:
        raise ValueError(
            f"{name} is no list of class names: give a text file with a name a line, or a JSON list of names"
        ) from error


def _decoded(data: bytes) -> str:
    """The text; editors of Windows write UTF-16, and begin it with a mark."""
    return data.decode("utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig")


def _of_lines(text: str) -> tuple[str, ...]:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    numbered = _of_table(lines)
    for pattern in () if numbered else _NUMBERED:
        found = [re.fullmatch(pattern, line) for line in lines]
        numbered = numbered or _in_order([match and (match["number"], match["name"]) for match in found])
    return checked_names(numbered or lines)


def _of_table(lines: list[str]) -> list[str]:
    """The names of a table with a column of numbers and one of names, below a header or not; else none."""
    for separator in _SEPARATORS:
        rows = list(csv.reader(lines, delimiter=separator, skipinitialspace=True))
        for body in (rows, rows[1:]):
            for number, name in ((0, 1), (1, 0)):
                if found := _in_order([(row[number], row[name]) if len(row) == 2 else None for row in body]):
                    return found
    return []


def _in_order(pairs: list[tuple[str, str] | None]) -> list[str]:
    """The names of pairs of a number and a name, by their numbers.

    Empty unless the numbers count from 0 or from 1 on, and all names differ: those of "breed 1", "breed 2" do not.
    """
    given = [pair for pair in pairs if pair and pair[0].strip().isdecimal() and pair[1].strip()]
    numbered = {int(number): name for number, name in given}
    counts = sorted(numbered) in (list(range(len(pairs))), list(range(1, len(pairs) + 1)))
    differ = len({*numbered.values()}) == len(pairs) == len(given)
    return [numbered[number] for number in sorted(numbered)] if counts and differ else []


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
