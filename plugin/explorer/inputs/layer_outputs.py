"""The axes of a layer's output; shapes are without the batch dimension throughout."""


def axes(shape: tuple[int, ...]) -> tuple[str, ...]:
    """Names for the axes.

    Pictures are cropped to squares, so there are as many rows as columns: the equal sizes tell channels first (C, H, W)
    from channels last (H, W, C), as in Swin transformers.
    """
    if len(shape) == 3 and shape[1] == shape[2]:
        return "channel", "row", "column"
    if len(shape) == 3 and shape[0] == shape[1]:
        return "row", "column", "channel"
    return {1: ("unit",), 2: ("position", "feature")}.get(len(shape), tuple(f"axis {i}" for i in range(len(shape))))


def unit_axis(shape: tuple[int, ...]) -> int:
    """The axis of the layer's units, each of which has a response at every position."""
    names = axes(shape)
    return next((names.index(name) for name in ("channel", "feature") if name in names), 0)


def has_channels(shape: tuple[int, ...]) -> bool:
    """Whether the first axis holds channels with positions, whose mean can be maximised."""
    return axes(shape) == ("channel", "row", "column")


def middle(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The first channel's unit in the middle of a layer."""
    sizes = zip(axes(shape), shape, strict=True)
    return tuple(size // 2 if name in ("row", "column", "position") else 0 for name, size in sizes)


def spatial(layers: dict[str, tuple[int, ...]]) -> list[str]:
    """The layers that have positions, the last of which is where Grad-CAM is usually taken; all if none has."""
    found = [name for name, shape in layers.items() if len(shape) == 3 and shape[1] * shape[2] > 1]
    return found or list(layers)


def halfway(layers: dict[str, tuple[int, ...]]) -> str:
    """The layer in the middle of those that have positions, or of all if none has: where units are looked at first."""
    found = spatial(layers)
    return found[len(found) // 2]


def place(layer: str, shape: tuple[int, ...], index: tuple[int, ...]) -> str:
    """A unit for people, such as "features.relu5, channel 3, row 1, column 2"; an index may lack its last entries."""
    return f"{layer}, " + ", ".join(f"{axis} {number}" for axis, number in zip(axes(shape), index, strict=False))
