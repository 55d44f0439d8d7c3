"""An extension of griffe: lines of a docstring that begin with `>>>` become a block of code on the site."""

import re
from typing import Any

import griffe

_EXAMPLE = re.compile(r"^( *)>>> .*(?:\n\1(?:>>> |\.\.\. ).*)*", re.MULTILINE)


def fenced(text: str) -> str:
    """The text with a fence around each run of examples."""
    return _EXAMPLE.sub(lambda found: f"{found[1]}```python\n{found[0]}\n{found[1]}```", text)


class DoctestFences(griffe.Extension):
    """Applies `fenced` to every docstring."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Called for each object that griffe has read."""
        if obj.docstring is not None:
            obj.docstring.value = fenced(obj.docstring.value)
