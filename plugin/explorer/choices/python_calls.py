"""Calls as values, which run and print as Python, so that a map and its program cannot disagree."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any


@dataclass(frozen=True)
class PythonCall:
    """A call that can be made and, by `repr`, printed. Calls may be arguments of calls.

    Attributes:
        module: where the function or class is imported from.
        name: its name.
        arguments: positional ones: values, calls, or mappings to calls.
        keywords: the others.
    """

    module: str
    name: str
    arguments: Sequence[Any] = ()
    keywords: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        positional = [_lines(value) if isinstance(value, Mapping) else repr(value) for value in self.arguments]
        return f"{self.name}({', '.join([*positional, *(f'{key}={value!r}' for key, value in self.keywords.items())])})"

    def __call__(self) -> Any:
        function = getattr(import_module(self.module), self.name)
        keywords = {key: evaluate(value) for key, value in self.keywords.items()}
        return function(*map(evaluate, self.arguments), **keywords)

    @property
    def imports(self) -> set[str]:
        """The import statements that the printed call needs."""
        nested: list[Any] = []
        for value in [*self.arguments, *self.keywords.values()]:
            nested += value.values() if isinstance(value, Mapping) else [value]
        inner = (value.imports for value in nested if isinstance(value, PythonCall))
        return {f"from {self.module} import {self.name}"}.union(*inner)


def evaluate(value: Any) -> Any:
    """The value that a call returns, also inside a mapping; other values as they are."""
    if isinstance(value, Mapping):
        return {key: evaluate(item) for key, item in value.items()}
    return value() if isinstance(value, PythonCall) else value


def _lines(items: Mapping[str, Any]) -> str:
    """A dictionary with one line for each entry."""
    return "{\n" + "".join(f"    {key!r}: {value!r},\n" for key, value in items.items()) + "}"
