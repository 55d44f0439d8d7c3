"""Trainings that may be interrupted at any moment: their file, and the times at which it is written.

A trainer puts all that is needed to go on, to the bit-same result, into one dictionary. `TrainingFile` stores it, and
refuses that of another training; `Checkpoints` decides when.
"""

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from ..files import remove_left_over, save_torch
from ..interrupts import InterruptLater

# In the folder of a run.
FILE_NAME = "training.pt"


def sha256_of(*tensors: Tensor) -> str:
    """SHA-256, in hexadecimal, of the first one's shape and of the values of all."""
    digest = hashlib.sha256(str(tuple(tensors[0].shape)).encode())
    for tensor in tensors:
        digest.update(tensor.cpu().contiguous().numpy().data)
    return digest.hexdigest()


def where_to_go_on(file: Path) -> str:
    """The last message of an interrupted command."""
    if file.exists():
        return f"stopped; the same command goes on from the checkpoint {file}"
    return "stopped; no step was finished, so nothing was written"


class TrainingFile:
    """The file of one training, which is known by its settings and its data.

    Args:
        path: the file.
        settings: all that decides the result beside the data, by name, as JSON values.
        sha256: of the data.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any], sha256: str) -> None:
        self.path, self.sha256 = path, sha256
        self.settings: dict[str, Any] = json.loads(json.dumps(settings))

    def read(self) -> dict[str, Any] | None:
        """The state that `write` has stored, with tensors on the processor; None if there is no file.

        Raises:
            OSError: the file cannot be read.
            ValueError: it is damaged, or of another training; the message names the remedy.
        """
        return self._checked(only_settings=False)

    def write(self, state: Mapping[str, Any]) -> None:
        """Write the file, atomically.

        Args:
            state: values that `torch.load` reads without code: tensors, numbers, texts, lists and dictionaries.

        Raises:
            OSError: the file cannot be written; the one before is kept.
            ValueError: another training has written to it meanwhile.
        """
        self._checked(only_settings=True)
        remove_left_over(self.path.parent.glob(f".{self.path.stem}.*.partial{self.path.suffix}"))
        save_torch({"settings": self.settings, "sha256": self.sha256, "state": dict(state)}, self.path)

    def _checked(self, only_settings: bool) -> dict[str, Any] | None:
        """The result of `read`; if only the settings are needed, values stay on the disk."""
        if not self.path.exists():
            return None
        try:
            found = torch.load(self.path, "cpu", weights_only=True, mmap=only_settings)
            settings, sha256, state = found["settings"], found["sha256"], dict(found["state"])
        except OSError:
            raise
        except Exception as error:  # whatever its reader meets in a file of another kind
            raise ValueError(
                f"{self.path} is damaged, or no file of a training ({type(error).__name__}): remove it to begin anew, "
                "or give another folder"
            ) from error
        self._refuse_another(settings, sha256)
        return state

    def _refuse_another(self, settings: Mapping[str, Any], sha256: str) -> None:
        other = [name for name, value in self.settings.items() if settings.get(name) != value]
        if other:
            told = ", ".join(f"{name}={settings.get(name)!r} instead of {self.settings[name]!r}" for name in other)
            raise ValueError(
                f"{self.path} is of another training, with {told}: give its settings to go on with it, or another "
                "folder"
            )
        if self.sha256 != sha256:
            raise ValueError(f"{self.path} is of a training with other images: give these, or another folder")


class Checkpoints:
    """While it is open, a training is saved now and then, and after the step in which Ctrl-C is pressed.

    Args:
        save: writes the checkpoint.
        seconds: the time from one checkpoint to the next.
        steps: a number of training steps, at each multiple of which there is a checkpoint too; None for none.
    """

    def __init__(self, save: Callable[[], None], seconds: float = 120, steps: int | None = None) -> None:
        self.save, self.seconds, self.steps = save, seconds, steps
        self._interrupt, self._saved = InterruptLater(), time.monotonic()

    def __enter__(self) -> "Checkpoints":
        self._interrupt.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._interrupt.__exit__(kind, error, at)

    def after(self, step: int, finished: bool = False) -> None:
        """Save if it is time.

        Args:
            step: the number of steps so far.
            finished: whether something ends here that is worth a checkpoint, such as the training.

        Raises:
            KeyboardInterrupt: Ctrl-C was pressed; everything is saved.
            OSError: the checkpoint cannot be written, as on a full disk.
        """
        counted = self.steps is not None and step % self.steps == 0
        late = time.monotonic() - self._saved > self.seconds
        if counted or late or finished or self._interrupt.asked:
            self.save()
            self._saved = time.monotonic()
        self._interrupt.raise_if_asked()
