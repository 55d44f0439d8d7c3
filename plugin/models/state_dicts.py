"""The weights of a network in other people's files: wrapped, nested, prefixed, beside an optimiser's state.

Training programs differ in the place of a state dict and in the prefix of its keys. A state dict is found by its
contents, and its prefix by the network that it is for.
"""

import hashlib
import json
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from .tensor_files import attributes_of

Weights = dict[str, Tensor]
Shapes = Mapping[str, tuple[int, ...]]

# Keys under which training programs store them, the likeliest first: the first state dict that fits is taken.
_USUAL = ("state_dict", "model_state_dict", "model", "network", "net", "module", "weights", "params")
_DEEPEST = 4
# Insertions of wrappers between the names of modules, and tensors that others add beside a network's own.
_WRAPPERS = ("_orig_mod.", "_checkpoint_wrapped_module.", "_fsdp_wrapped_module.")
_ADDED = ("num_batches_tracked", "n_averaged", "total_ops", "total_params", "_extra_state")


NO_STATE_DICT = "holds no state dict: save it with torch.save(model.state_dict(), path)"


def state_dicts(content: Any) -> list[Weights]:
    """Every state dict in the content of a file, the likeliest first."""
    found = list(_found(content, ()))

    def rank(entry: tuple[tuple[str, ...], Weights]) -> tuple[int, int, int]:
        place, weights = entry
        last = place[-1] if place else ""
        usual = 0 if not place else 1 + (_USUAL.index(last) if last in _USUAL else len(_USUAL))
        return len(place) > 1, usual, -len(weights)

    return [weights for _, weights in sorted(found, key=rank)]


def _found(content: Any, place: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Weights]]:
    parts = attributes_of(content)
    if "_parameters" in parts:
        yield place, _of_module(content)
        return
    if isinstance(content, Mapping):
        tensors = {key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, Tensor)}
        if tensors and 2 * len(tensors) >= len(content):
            yield place, {_unwrapped(key): value for key, value in tensors.items()}
            return
        parts |= {key: value for key, value in content.items() if isinstance(key, str)}
    if len(place) < _DEEPEST:
        for key, value in parts.items():
            yield from _found(value, (*place, key))


def _of_module(module: Any, prefix: str = "") -> Weights:
    """The state dict of a module that was pickled as a whole."""
    own = attributes_of(module)
    found: Weights = {}
    for table in ("_parameters", "_buffers"):
        skipped = own.get("_non_persistent_buffers_set") or ()
        for name, value in (own.get(table) or {}).items():
            if isinstance(value, Tensor) and name not in skipped:
                found[_unwrapped(f"{prefix}{name}")] = value
    for name, child in (own.get("_modules") or {}).items():
        found |= _of_module(child, f"{prefix}{name}.")
    return found


def _unwrapped(key: str) -> str:
    for wrapper in _WRAPPERS:
        key = key.replace(wrapper, "")
    return key


def shapes_of(weights: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor."""
    return {name: tuple(value.shape) for name, value in weights.items()}


def fitted(candidates: list[Weights], network: nn.Module) -> Weights | None:
    """The first state dict that has all of a network's tensors, without prefix; None if none has."""
    own = network.state_dict()
    needed = {name for name in own if not name.endswith(_ADDED)}
    probe = max(needed, key=len, default="")
    for weights in candidates:
        for prefix in sorted({key.removesuffix(probe) for key in weights if f".{key}".endswith(f".{probe}")}, key=len):
            inside = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
            others = [key for key in inside if key not in own and not key.endswith(_ADDED)]
            # Beside a prefix there may be other tensors, such as those of a loss or of a teacher.
            if needed <= inside.keys() and not others:
                counters = {name: value for name, value in own.items() if name not in needed}
                return counters | {name: value for name, value in inside.items() if name in own}
    return None


def of_version(weights: Weights, network: nn.Module) -> Weights:
    """Weights that say of which version of a network's modules they are: of those that are installed.

    Some modules, such as MNASNet, load no others.
    """
    found = OrderedDict(weights)
    found._metadata = network.state_dict()._metadata  # type: ignore[attr-defined]
    return found


def differing_classes(weights: Weights, network: nn.Module) -> int | None:
    """The number of classes of weights that fit a network except for that number; else None."""
    own, found = shapes_of(network.state_dict()), shapes_of(weights)
    differing = [(found[name], shape) for name, shape in own.items() if found[name] != shape]
    counts = {other[:1] for other, _ in differing}
    # Only the first dimension of the last layers' weights counts classes.
    if len(counts) != 1 or counts == {()} or any(other[1:] != shape[1:] for other, shape in differing):
        return None
    return int(next(iter(counts))[0]) or None


@dataclass(frozen=True)
class Architecture:
    """A classification network of torchvision's, by its state dict.

    Attributes:
        name: torchvision's name.
        head: the keys whose first dimension is the number of classes.
        digest: digest of the keys and shapes of the others.
    """

    name: str
    head: tuple[str, ...]
    digest: str


def digest_of(shapes: Shapes, head: tuple[str, ...]) -> str:
    """A digest of keys and shapes, without those of the head."""
    listed = sorted(
        f"{name}{shape}" for name, shape in shapes.items() if name not in head and not name.endswith(_ADDED)
    )
    return hashlib.sha256("\n".join(listed).encode()).hexdigest()[:16]


@cache
def architectures() -> tuple[Architecture, ...]:
    """The rows for torchvision's networks, written by `scripts/architectures.py`."""
    rows = json.loads((Path(__file__).parent / "architectures.json").read_text(encoding="utf-8"))
    return tuple(Architecture(row["name"], tuple(row["head"]), row["digest"]) for row in rows)


def guess(weights: Weights) -> tuple[str, int] | None:
    """The network of torchvision's that weights belong to, and its number of classes; None if there is none."""
    shapes = shapes_of(weights)
    digests: dict[tuple[str, tuple[str, ...]], str] = {}
    for row in architectures():
        for key in (key for key in shapes if row.head and f".{key}".endswith(f".{row.head[0]}")):
            prefix = key.removesuffix(row.head[0])
            if (prefix, row.head) not in digests:
                # Beside a prefix there may be other tensors, such as those of a loss.
                inside = {name.removeprefix(prefix): shape for name, shape in shapes.items() if name.startswith(prefix)}
                digests[prefix, row.head] = digest_of(inside, row.head)
            if digests[prefix, row.head] == row.digest and shapes[key]:
                return row.name, shapes[key][0]
    return None
