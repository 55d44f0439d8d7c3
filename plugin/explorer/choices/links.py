"""The form of values in a link. A link is untrusted input: every text is checked before it becomes a value."""

import math
import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any

from plugin import devices
from plugin.models import hugging_face
from plugin.models.timm_networks import PREFIX as TIMM
from plugin.models.timm_networks import timm_names

from ..inputs import drawn_digit, saved_networks

_MOST_AXES = 3
_LAYER = r"[A-Za-z0-9_.]{1,120}"


@dataclass(frozen=True)
class Form:
    """Values of one kind in a link.

    Attributes:
        read: from a text to a value. Its `ValueError` names the fault of the text, as the end of a sentence.
        write: from a value to a text.
    """

    read: Callable[[str], Any]
    write: Callable[[Any], str] = str


def one_of(choices: Collection[str]) -> Form:
    """One of these texts."""

    def read(text: str) -> str:
        if text not in choices:
            raise ValueError("is unknown")
        return text

    return Form(read)


def network(choices: Collection[str]) -> Form:
    """One of these names of networks."""
    known = one_of(choices)

    def read(text: str) -> str:
        if hugging_face.is_named(text) and text not in choices:
            saved_networks.check(text)
            return text
        if text.startswith(TIMM) and not timm_names():
            raise ValueError("needs the package timm, which is not installed: pip install 'captum-simplicity[zoo]'")
        return str(known.read(text))

    return Form(read)


def matching(pattern: str, kind: str) -> Form:
    """A text that the pattern matches; `kind` names it in the error, such as "the name of a file"."""

    def read(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(f"is not {kind}")
        return text

    return Form(read)


def whole_number(most: int | None = None, least: int = 0) -> Form:
    """A whole number, of six digits at most."""

    def read(text: str) -> int:
        number = _index(text)
        if most is not None and number > most:
            raise ValueError(f"is more than {most}")
        if number < least:
            raise ValueError(f"is less than {least}")
        return number

    return Form(read)


def _device(text: str) -> str:
    there = devices.available()
    if text not in there:
        raise ValueError(f"is no device of this machine, which has {', '.join(there)}")
    return "" if text == str(devices.choose_device()) else text


# A device of this machine; empty stands for the best.
DEVICE = Form(_device)


def number(lowest: float, highest: float) -> Form:
    """A number in these bounds."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not lowest <= value <= highest:
            raise ValueError(f"is not a number from {lowest:g} to {highest:g}")
        return value

    return Form(read, "{:g}".format)


def exact_number(lowest: float, highest: float) -> Form:
    """The same with all its digits in a link: another number is another map."""
    return Form(number(lowest, highest).read, _all_digits)


def _all_digits(value: float) -> str:
    return repr(value).removesuffix(".0")


def numbers(count: int, lowest: float, highest: float) -> Form:
    """So many numbers in these bounds, with commas between."""
    form = number(lowest, highest)

    def read(text: str) -> tuple[float, ...]:
        parts = text.split(",")
        if len(parts) != count:
            raise ValueError(f"is not {count} numbers with commas between")
        return tuple(form.read(part) for part in parts)

    # All digits: another mean is another map.
    return Form(read, lambda values: ",".join(map(_all_digits, values)))


def interval(lowest: float, highest: float) -> Form:
    """Two numbers in these bounds, the smaller one first."""
    both = numbers(2, lowest, highest)

    def read(text: str) -> tuple[float, ...]:
        values: tuple[float, ...] = both.read(text)
        if values[0] > values[1]:
            raise ValueError("has the larger number first")
        return values

    return Form(read, both.write)


def some_of(known: Collection[str], kind: str) -> Form:
    """Different names, each a `kind`, with commas between; no text is none of them."""

    def read(text: str) -> tuple[str, ...]:
        names = tuple(dict.fromkeys(text.split(",") if text else ()))
        if unknown := [name for name in names if name not in known]:
            raise ValueError(f"names {len(unknown)} unknown {kind}{'s' if len(unknown) > 1 else ''}")
        return names

    return Form(read, ",".join)


def by_layer(known: Collection[str], kind: str) -> Form:
    """Pairs of a layer and a name that is known as a `kind`: `layer:name,layer:name`."""

    def read(text: str) -> tuple[tuple[str, str], ...]:
        chosen: dict[str, str] = {}
        for part in text.split(","):
            layer, _, name = part.partition(":")
            if not re.fullmatch(_LAYER, layer) or name not in known:
                raise ValueError(f"is not a list of layer:{kind}")
            chosen[layer] = name
        return tuple(chosen.items())

    def write(pairs: Iterable[tuple[str, str]]) -> str:
        return ",".join(f"{layer}:{name}" for layer, name in pairs)

    return Form(read, write)


def _index(text: str) -> int:
    # int() alone would take "1_0", " 1" and the digits of every script.
    if not re.fullmatch(r"[0-9]{1,6}", text):
        raise ValueError("is not a whole number from 0 on")
    return int(text)


def _neuron(text: str) -> tuple[int, ...]:
    parts = text.split(".")
    if len(parts) > _MOST_AXES:
        raise ValueError(f"has more than {_MOST_AXES} parts")
    return tuple(_index(part) for part in parts)


LAYER = matching(_LAYER, "the name of a layer")
NEURON = Form(_neuron, lambda neuron: ".".join(map(str, neuron)))
DIGEST = matching(r"[0-9a-f]{12}", "a SHA-256 prefix")
# Read and written again, so that a drawing has one text.
DRAWING = Form(lambda text: drawn_digit.encode(drawn_digit.decode(text)))
