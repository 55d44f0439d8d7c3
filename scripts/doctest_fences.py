"""An extension of griffe: examples of docstrings become blocks of code on the site, which run as they are pasted."""

import re
from typing import Any

import griffe

# From a line that begins with `>>>` to the next empty line.
_EXAMPLE = re.compile(r"^( *)>>> .*(?:\n.+)*", re.MULTILINE)


def fenced(text: str) -> str:
    """The text with each example as a fenced block: no prompts, and results as comments."""
    return _EXAMPLE.sub(lambda found: _block(found[0], found[1]), text)


def _block(example: str, indent: str) -> str:
    lines = [_without_prompt(line.removeprefix(indent)) for line in example.splitlines()]
    return "\n".join(f"{indent}{line}".rstrip() for line in ("```python", *lines, "```"))


def _without_prompt(line: str) -> str:
    return line[4:] if line.startswith((">>>", "...")) else f"# {line}"


class DoctestFences(griffe.Extension):
    """Applies `fenced` to every docstring."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Called for each object that griffe has read."""
        if obj.docstring is not None:
            obj.docstring.value = fenced(obj.docstring.value)
