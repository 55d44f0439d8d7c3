"""Maps of a whole folder, by the engine of `python -m plugin attribute`."""

import os
import shlex
from dataclasses import dataclass, replace
from pathlib import Path

from plugin.datasets import Report, attribute_dataset
from plugin.devices import choose_device

from ...inputs import offered_networks, saved_networks
from ...inputs.picture_collections import OwnFolder
from ...inputs.subject import Subject
from ...server import own_paths
from ...server.jobs import Task, name_of
from ...server.turns import PROCESSOR

# Pictures between two checks for a stop.
_BATCH = 8


@dataclass(frozen=True)
class FolderMaps:
    """The maps of a folder, by all options of the command line that makes them.

    Attributes:
        model: the network as the command line names it.
        identity: tells it from the same network with other weights.
        checkpoint: the file with its weights, by its path where that is known; empty if it has its own.
        folder: the folder of the pictures.
        method: a key of `plugin.attr.methods.METHODS`.
        layer: for a method that looks at one; else empty.
        out: the output for the maps.
        device: where they are made.
    """

    model: str
    identity: str
    checkpoint: str
    folder: str
    method: str
    layer: str
    out: str
    device: str = PROCESSOR

    @property
    def name(self) -> str:
        """A name that tells runs apart."""
        return name_of(self)

    @property
    def command(self) -> str:
        """The command line that makes the same maps, and continues those that were begun here."""
        options = {"model": self.model, "checkpoint": self.checkpoint, "data": self.folder, "method": self.method}
        options |= {"layer": self.layer, "out": self.out, "batch-size": str(_BATCH)}
        # Without the option, the command line takes the best device.
        options["device"] = "" if self.device == str(choose_device()) else self.device
        words = [word for name, value in options.items() if value for word in (f"--{name}", value)]
        return f"python -m plugin attribute {shlex.join(words)}"


def named_for_command_line(subject: Subject) -> str:
    """The network's name for `--model`."""
    if subject.name == offered_networks.DIGITS:
        return f"{offered_networks.__name__}:{offered_networks.digit_classifier.__name__}"
    return saved_networks.place(subject.name)


def proposed(folder: Path) -> Path:
    """An output beside the folder, or where the server may not write there, in it."""
    beside = folder.with_name(f"{folder.name}-maps.zarr")
    roots = own_paths.folders()
    is_inside = not roots or any(beside.is_relative_to(root) for root in roots)
    return beside if is_inside and folder.name and os.access(folder.parent, os.W_OK) else folder / "maps.zarr"


def output(text: str) -> Path:
    """The path that was typed for the maps: of an existing store, or of a new one in an existing folder.

    Raises:
        ValueError: see `own_paths.resolved_folder`; or the path does not end in a name.
    """
    path = Path(os.path.expanduser(text.strip()))
    if path.name in ("", ".."):
        raise ValueError(f"{text.strip() or 'This'} names no output: give a path such as {Path.home() / 'maps.zarr'}")
    out = own_paths.resolved_folder(str(path.parent)) / path.name
    return own_paths.resolved_folder(str(out)) if os.path.lexists(out) else out


def attribute_all(task: Task, maps: FolderMaps, subject: Subject) -> Report:
    """Make or continue the maps, for a `jobs.Job`; the page shows the numbers of finished files and of all files.

    Raises:
        ValueError: the output was begun with other settings or pictures, or the method has no answer.
        OSError: the folder cannot be read or the output not written; finished maps are kept.
    """
    task.report(0.0, "Preparing …")

    def told(done: int, total: int | None) -> None:
        whole = done if total is None else total
        task.report(done / max(1, whole), f"{done} of {whole} files", (done, whole))

    model = replace(subject.model, name=maps.model)
    return attribute_dataset(
        model, maps.method, OwnFolder(maps.folder), maps.out, layer=maps.layer or None, batch_size=_BATCH, workers=2,
        device=subject.device, progress=told,
    )  # fmt: skip
