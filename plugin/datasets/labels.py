"""The classes of pictures as numbers of a network's outputs, from their source or from the names of their folders."""

from collections.abc import Iterable, Sequence

from ..models.pictures import EXTENSIONS
from .records import Record


class Labels:
    """The number of each picture's class; -1 where it is not known.

    The source gives the class, by name or number; if it gives none, the picture's folder does. Folders have the names
    or the numbers of the classes, or there are as many folders as classes, in the same order (the convention of
    torchvision's `ImageFolder`). A file whose name is no picture's needs no class folder.
    """

    def __init__(self, records: Iterable[Record], classes: Sequence[str], outputs: int) -> None:
        """
        Args:
            records: every picture; only the names of classes and folders are kept.
            classes: names of the network's outputs; empty if they are not known.
            outputs: how many outputs the network has.

        Raises:
            ValueError: folders are named otherwise, or a picture lies in no folder.
        """
        named: set[str] = set()
        folders: dict[str, str] = {}  # with the name of a picture in each
        for record in records:
            if record.label is not None:
                named.add(str(record.label))
            elif not named and is_picture(record.id):
                folders.setdefault(_folder(record.id), record.id)
        self._of_name = _numbers(named, classes, outputs, "label")
        if named:
            return
        if "" in folders or not folders:
            loose = folders.get("", "every file")
            raise ValueError(f"{loose} lies in no class folder, so its label is not known: choose target='predicted'")
        self._of_folder = _numbers(folders, classes, outputs, "folder")

    def __call__(self, record: Record) -> int:
        """The number of a picture's class."""
        if self._of_name:
            return self._of_name.get(str(record.label), -1)
        return self._of_folder.get(_folder(record.id), -1)


def labels_of(names: Sequence[str], classes: Sequence[str], outputs: int) -> list[int]:
    """The class of each file, from the folder that it lies in; see `Labels`."""
    records = [Record(name, None) for name in names]
    labels = Labels(records, classes, outputs)
    return [labels(record) for record in records]


def labels_where_known(records: Sequence[Record], classes: Sequence[str]) -> list[int]:
    """The class of each picture as far as it is known, -1 where it is not: as `Labels` says, and where `Labels` has no
    answer, the class that is called as the picture's label or folder is.

    Args:
        records: the pictures.
        classes: names of all of the network's outputs.
    """
    try:
        known = Labels(records, classes, len(classes))
    except ValueError:
        by_name = _by_name(classes)
        names = (_folder(record.id) if record.label is None else str(record.label) for record in records)
        return [by_name.get(_plain(name), -1) for name in names]
    return [known(record) for record in records]


def is_picture(name: str) -> bool:
    """Whether a file says that it is a picture; one without an ending may be."""
    last = name.rpartition("/")[2]
    return "." not in last or last.rpartition(".")[2].lower() in EXTENSIONS


def _folder(name: str) -> str:
    return name.split("/")[-2] if "/" in name else ""


def _numbers(names: Iterable[str], classes: Sequence[str], outputs: int, what: str) -> dict[str, int]:
    distinct = sorted(names)
    by_name = _by_name(classes)
    if all(_plain(name) in by_name for name in distinct):
        return {name: by_name[_plain(name)] for name in distinct}
    if all(name.isdecimal() and int(name) < outputs for name in distinct):
        return {name: int(name) for name in distinct}
    if len(distinct) == outputs and what == "folder":
        return {name: index for index, name in enumerate(distinct)}
    unknown = next(name for name in distinct if _plain(name) not in by_name)
    raise ValueError(
        f"the {what} {unknown} is called like none of the {outputs} classes, nor by a number, and there are "
        f"{len(distinct)} class {what}s: rename it, or choose target='predicted'"
    )


def _by_name(classes: Sequence[str]) -> dict[str, int]:
    return {_plain(name): index for index, name in enumerate(classes)}


def _plain(name: str) -> str:
    return name.replace("_", " ").casefold()
