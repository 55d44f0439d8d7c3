"""Results of runs, as objects in memory and as plain data in files."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from plugin.files import save_torch

from .targets import Unit

if TYPE_CHECKING:
    from .maximizer import ActivationMaximizer

# Names with which one means other files.
_OTHER_FORMATS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".npz", ".npy", ".json")


@dataclass(frozen=True)
class Result:
    """Runs of one call, finished or (from `iterate`) in progress.

    Attributes:
        images: `(n, C, H, W)` in [0, 1].
        codes: those of the images `(n, d)`, or `(n, ...)` as the generator takes them; for `PixelAM` the images.
        scores: the units' values at each step `(steps, n)`; a frozen run repeats its last one. The last row belongs
            to `images`.
        probabilities: of the classes, at `images` `(n,)`, NaN for other units; None if no class is maximised.
        steps_taken: steps at which each run was evaluated until it was frozen `(n,)`.
        reached: whether each run reached `stop_at` `(n,)`.
        tried: number of random codes from which the start of each run was chosen `(n,)`.
        silent: whether each run never found a slope and was given up `(n,)`.
        opened: steps at which each run found its unit silent, and followed the slope before its ReLU `(n,)`.
        targets: one per run.
        seeds: one per run.
        stop_at: the threshold of all runs, or one per run `(n,)`, NaN for runs without one; None if no run had one.
        step: number of steps made.
        maximizer: the one that made the runs; None for a result that was loaded without one.

    >>> from pathlib import Path
    >>> from tempfile import mkdtemp
    >>> from gan import CodeSpaceAM, Result, load, load_classifier
    >>> am = CodeSpaceAM(load_classifier("mnist-classifier"), load("gan-mnist").generator)
    >>> path = Path(mkdtemp(), "threes.pt")
    >>> path == am.maximize(target=3, runs=2, seed=0).save(path)
    True
    >>> Result.load(path).images.shape
    torch.Size([2, 1, 28, 28])
    """

    images: Tensor
    codes: Tensor
    scores: Tensor
    probabilities: Tensor | None
    steps_taken: Tensor
    reached: Tensor
    tried: Tensor
    silent: Tensor
    opened: Tensor
    targets: list[Unit]
    seeds: list[int]
    stop_at: float | Tensor | None
    step: int
    maximizer: "ActivationMaximizer" = field(repr=False)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def passes(self) -> Tensor:
        """Number of forward passes of each run `(n,)`: one per code it evaluated, two more per gradient.

        The last of a run's steps takes no gradient. At frozen weights a gradient costs about one pass, not two.
        """
        return self.tried + self.steps_taken + 2 * (self.steps_taken - 1)

    def to_dict(self) -> dict[str, Any]:
        """Everything but the maximizer as tensors, numbers and lists; a function as target is kept by its name only."""
        named = {name: value for name, value in vars(self).items() if name not in ("maximizer", "targets")}
        tensors = {name: value.cpu() if isinstance(value, Tensor) else value for name, value in named.items()}
        return tensors | {"targets": [_plain(target) for target in self.targets]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], maximizer: "ActivationMaximizer | None" = None) -> "Result":
        """The inverse of `to_dict`.

        Args:
            data: the dictionary.
            maximizer: the one that made the runs; `gan.scorecard` needs it.

        Raises:
            KeyError, TypeError: the dictionary lacks an entry, or has an unknown one.
        """
        targets = [_unit(target) for target in data["targets"]]
        return cls(**{**data, "targets": targets, "maximizer": maximizer})

    def save(self, path: str | Path) -> Path:
        """Write `to_dict` by `torch.save`: no class of this package is in the file, and any version reads it.

        Args:
            path: the file.

        Returns:
            The path.

        Raises:
            OSError: the file cannot be written.
            ValueError: the name ends like a file of another format.
        """
        if Path(path).suffix.lower() in _OTHER_FORMATS:
            raise ValueError(
                f"{path} ends in another format than that of results: give a name that ends in .pt; "
                "gan.export.save_grid(result.images, path) writes a picture"
            )
        return save_torch(self.to_dict(), path)

    @classmethod
    def load(cls, path: str | Path, maximizer: "ActivationMaximizer | None" = None) -> "Result":
        """Read a file of `save`. Nothing in the file is executed.

        Args:
            path: the file.
            maximizer: the one that made the runs, if they are to be judged or continued.

        Raises:
            ValueError: the file holds no result.
        """
        try:
            return cls.from_dict(torch.load(path, "cpu", weights_only=True), maximizer)
        except OSError:
            raise
        except Exception as error:  # the reader may raise anything for another kind of file
            raise ValueError(f"{path} holds no result of activation maximisation ({type(error).__name__})") from error


def _plain(target: Any) -> Any:
    """A target as ints, strings and lists; a slice is a dictionary."""
    if isinstance(target, tuple):
        return [_plain(part) for part in target]
    if isinstance(target, slice):
        return {"start": target.start, "stop": target.stop, "step": target.step}
    return target if isinstance(target, int) else getattr(target, "__name__", repr(target))


def _unit(target: Any) -> Any:
    """The inverse of `_plain`; a function's name stays a text."""
    if isinstance(target, list):
        return tuple(_unit(part) for part in target)
    return slice(target["start"], target["stop"], target["step"]) if isinstance(target, dict) else target
