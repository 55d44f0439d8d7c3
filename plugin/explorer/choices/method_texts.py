"""The methods in words: the formula, the use, the limits and the paper of each."""

from plugin.attr.method_guides import PAPERS

from .offered_methods import METHODS


def about(method: str) -> str:
    """One method, by its key, as a paragraph in Markdown."""
    label, guide = METHODS[method].label, METHODS[method].guide
    parts = [f"*{label}*"]
    if guide.formula:
        parts.append(f"`{guide.formula}`")
    if guide.use:
        parts.append(f"Take it {guide.use}; not {guide.avoid}.")
    if guide.paper:
        parts.append(f"[{guide.paper}]({PAPERS[guide.paper]})")
    return "  \n".join(parts)
