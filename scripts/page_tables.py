"""Tables of the documentation, each between two marks of its page."""

import re
from collections.abc import Iterable, Sequence


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of cells."""
    lines = [f"| {' | '.join(line)} |" for line in (head, *rows)]
    return "\n".join([lines[0], "|---" * len(head) + "|", *lines[1:]])


def with_table(page: str, mark: str, table: str) -> str:
    """The text of a page with this table between its marks, if it has them."""
    begin, end = f"<!-- {mark}: begin -->", f"<!-- {mark}: end -->"
    return re.sub(f"{begin}.*?{end}", f"{begin}\n\n{table}\n\n{end}", page, flags=re.S)
