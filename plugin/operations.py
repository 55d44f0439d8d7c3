"""Operations of your own: descriptions of operations that cannot be inspected.

An operator of `torch.library`, a function that launches a kernel, and a module that calls a `torch.autograd.Function`
are opaque: the methods of `plugin.attr` warn of them, or refuse them. `register` describes such an operation, for this
process, until `unregister` removes the description.

* `Kind.ACTIVATION`: a pointwise function of one tensor. It gets the method's rule for activations.
* `Kind.LINEAR`, `Kind.MOVEMENT`, `Kind.SELECTION`: it sums, moves or chooses. Its own gradient is right.
* `Kind.COMPOSITE`: `parts` computes the same in PyTorch's operations, which are then seen one by one. For a class of
  modules, `parts` receives the module first.
"""

from .propagation.kinds import Kind
from .propagation.operations import OPERATIONS
from .propagation.registering import register, unregister

__all__ = ["Kind", "as_markdown", "register", "unregister"]

_INTRODUCTION = """# Supported operations

One table holds all that the engine knows of an operation (`plugin/propagation/operations.py`); this page is printed
from it by `python -m plugin.operations`. An operation counts in each of its spellings: as a function, a method, an
operator, in place and with `out=`.

* **Guided backprop and deconvnet** have a rule for activations and, in the deconvnet, for pooling. Every other
  operation of this page keeps its gradient, and so does a function that has no meaning by itself, such as `1 / x`. An
  operation of PyTorch's that is not here may be an activation, as losses and `torch._foreach_*` may: it is refused if
  the signal reaches it.
* **LRP** has a rule for each kind, given below in one sentence. An operation that is not here has no rule: LRP raises
  if relevance reaches it, and names the layer. `LRPTranspose(model).check(inputs)` lists all such operations.
* **A chain of pointwise operations on one tensor is one activation**: `x * sigmoid(x)`, `where(x > 0, x, 0)`,
  `x[x < 0] = 0` and `(x + abs(x)) / 2` have the rule of the whole function.
* **Weights** are the proportion of a signal that passes: outputs of sigmoids, hard sigmoids and softmaxes,
  exponentials, statistics, and tensors computed from weights and constants alone. In a product, all relevance goes to
  the signal.
* **Batch norm in eval mode**: PyTorch's own gradient of it is wrong on a CPU for one example, or for images one pixel
  high or wide, if input and signal lie in memory in different orders, as behind `flatten(2).transpose(1, 2)` (seen in
  2.14). The methods here, "gradient" among them, are right; `captum.attr.Saliency` is not.
* **An operation of your own** gets a row by `plugin.operations.register` ([lrp.md](lrp.md#operations-of-your-own)).
"""


def as_markdown() -> str:
    """The table, as it stands in `docs/operations.md`.

    >>> from plugin import operations
    >>> operations.as_markdown().splitlines()[0]
    '# Supported operations'
    """
    lines = [_INTRODUCTION]
    for kind in Kind:
        rows = [row for row in OPERATIONS if row.kind is kind]
        if kind in (Kind.QUESTION, Kind.STATE, Kind.CREATION) or not rows:
            continue
        names = dict.fromkeys(f"`{row.name.strip('_')}`" for row in rows)
        title, says = kind.name.replace("_", " ").capitalize(), f"{kind.value[0].upper()}{kind.value[1:]}."
        lines += [f"## {title}", "", says, "", ", ".join(names), ""]
        remedies = [f"| `{row.name}` | {row.remedy} |" for row in rows if row.remedy]
        if remedies:
            lines += ["| by itself it is refused by LRP | remedy |", "|---|---|", *remedies, ""]
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    print(as_markdown(), end="")
