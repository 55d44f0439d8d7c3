"""Units in the middle of the picture, one per channel: their responses, and the pixels they see."""

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from ..observing import ModuleTrace, find_layer

OUTPUT = ""  # the name of the network itself in `named_modules`: its units are the classes
Item = TypeVar("Item")


def layers_with_units(network: nn.Module, images: Tensor) -> list[str]:
    """Convolutions that return maps, linear layers, and the output unless one of these returns it, in running order.

    Args:
        network: any network.
        images: an example input `(1, C, H, W)`.
    """
    found, output = _layers_and_output(network, images)
    own = output is not None and all(output is not value for value in found.values())
    return [*found, OUTPUT] if own else list(found)


def output_layer(network: nn.Module, images: Tensor) -> str:
    """The name of the layer with units that returns the network's output, such as "head"; `OUTPUT` if none does.

    Args:
        network: any network.
        images: an example input `(1, C, H, W)`.
    """
    found, output = _layers_and_output(network, images)
    return next((name for name, value in found.items() if value is output), OUTPUT)


def _layers_and_output(network: nn.Module, images: Tensor) -> tuple[dict[str, Tensor], Tensor | None]:
    """The results of the layers with units, in running order, and the output if it is `(N, classes)`."""
    names = {module: name for name, module in network.named_modules()}
    found: dict[str, Tensor] = {}
    outputs: list[Tensor] = []

    def note(module: nn.Module, output: object) -> None:
        if not isinstance(output, Tensor):
            return
        if _has_maps(module, output) or (isinstance(module, nn.Linear) and output.ndim == 2):
            found.pop(names[module], None)
            found[names[module]] = output
        if module is network and output.ndim == 2:
            outputs.append(output)

    with torch.no_grad(), ModuleTrace(on_exit=note):
        network(images[:1])
    return found, outputs[-1] if outputs else None


def responses_in_the_middle(
    network: nn.Module, images: Tensor, layers: Sequence[str] = (), batch_size: int = 100
) -> dict[str, tuple[Tensor, tuple[int, ...]]]:
    """For each layer its units' responses `(N, channels)` and their position: (row, column), or () for a flat layer.

    Args:
        network: any network; if a layer is used several times, the last use counts.
        images: its inputs `(N, C, H, W)`.
        layers: names of layers that return `(N, channels, H, W)` or `(N, channels)`; all convolutions that return maps
            are included anyway.
        batch_size: the number of images processed at a time.

    Raises:
        ValueError: a layer is missing, or returns another shape.
    """
    asked = {find_layer(network, name): name for name in layers}
    names = {module: name for name, module in network.named_modules()} | asked
    parts: dict[str, list[Tensor]] = {}
    positions: dict[str, tuple[int, ...]] = {}
    batch_responses: dict[str, Tensor] = {}

    def note(module: nn.Module, output: object) -> None:
        if module in asked or (isinstance(output, Tensor) and _has_maps(module, output)):
            name = names[module]
            if not isinstance(output, Tensor) or output.ndim not in (2, 4):
                raise ValueError(f"layer {name!r} returns no (N, channels, H, W) or (N, channels): choose another")
            positions[name] = tuple(side // 2 for side in output.shape[2:])
            where: tuple[slice | int, ...] = (slice(None), slice(None), *positions[name])
            batch_responses[name] = output[where].clone()

    with torch.no_grad(), ModuleTrace(on_exit=note):
        for batch in images.split(batch_size):
            batch_responses.clear()
            network(batch.contiguous(memory_format=torch.channels_last) if batch.ndim == 4 else batch)
            for name, values in batch_responses.items():
                parts.setdefault(name, []).append(values)
    missing = [name for name in layers if name not in parts]
    if missing:
        raise ValueError(f"the network does not run its layer {missing[0]!r}: choose one that it calls")
    return {name: (torch.cat(values), positions[name]) for name, values in parts.items()}


def evenly(items: Sequence[Item], count: int) -> list[Item]:
    """`count` of the items from the first to the last, evenly spaced; all if there are fewer."""
    if len(items) <= count:
        return list(items)
    return [items[round(index * (len(items) - 1) / max(1, count - 1))] for index in range(count)]


def responding_channels(responses: Tensor, units: int | Sequence[int] | None, layer: str) -> list[int]:
    """The selected channels, of those that respond to some image.

    Args:
        responses: `(N, channels)`.
        units: the number of channels, taken evenly; a list of channels; or None for all.
        layer: its name, for the error.

    Raises:
        ValueError: a requested channel is missing, or responds to no image.
    """
    alive: list[int] = (responses.amax(0) > 0).nonzero().flatten().tolist()
    if units is None:
        return alive
    if isinstance(units, int):
        return evenly(alive, units)
    silent = [channel for channel in units if channel not in alive]
    if silent:
        where = f"layer {layer!r}" if layer else "the output"
        raise ValueError(f"unit {silent[0]} of {where} responds to none of {len(responses)} images: choose another")
    return list(units)


def seen_pixels(maps: Tensor) -> tuple[slice, slice]:
    """The rows and columns where any map `(n, C, H, W)` is not zero; everything if all are zero."""
    used = maps.ne(0).any(0).any(0)
    if not bool(used.any()):
        return slice(0, used.shape[0]), slice(0, used.shape[1])
    rows, columns = (used.any(dimension).nonzero().flatten().tolist() for dimension in (1, 0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def _has_maps(module: nn.Module, output: Tensor) -> bool:
    return isinstance(module, nn.Conv2d) and output.ndim == 4 and min(output.shape[2:]) > 1
