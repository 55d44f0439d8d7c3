"""The classes of pictures as numbers of a network's outputs, from their source or from the names of their folders."""

import re
import warnings
from collections.abc import Iterable, Mapping, Sequence

from ..models.pictures import EXTENSIONS, TESTING, TRAINING
from .records import Record

# The number of a class, also as spreadsheets write it.
_NUMBER = re.compile(r"\d+(\.0+)?", re.ASCII)


class Labels:
    """The number of each picture's class; -1 where it is not known.

    The source gives the class, by name or number; if it gives none, the picture's folder does. That is the innermost
    folder that is called like a class, else the one that the picture lies in. Folders have the names or the numbers of
    the classes, or there are as many folders as classes, in the same order (the convention of torchvision's
    `ImageFolder`). A file whose name is no picture's needs no class folder.
    """

    def __init__(self, records: Iterable[Record], classes: Sequence[str], outputs: int) -> None:
        """
        Args:
            records: every picture; only the names of classes and folders are kept.
            classes: names of the network's outputs; empty if they are not known.
            outputs: how many outputs the network has.

        Raises:
            ValueError: folders are named otherwise, or a picture lies in no folder.

        Warns:
            UserWarning: the numbers of the folders are not their places in torchvision's `ImageFolder`, or the folders
                above them may be the classes.
        """
        named: set[str] = set()
        self._by_name = _by_name(classes)
        folders: dict[str, dict[str, str]] = {}  # with a picture in each folder of this name, by the folder above
        for record in records:
            if record.label is not None:
                named.add(str(record.label))
            elif not named and is_picture(record.id):
                folder, above = _class_folder(record.id, self._by_name)
                folders.setdefault(folder, {}).setdefault(above, record.id)
        self._of_name = _numbers(named, classes, outputs, "label")
        if named:
            return
        if "" in folders or not folders:
            loose = next(iter(folders.get("", {}).values()), "every file")
            raise ValueError(f"{loose} lies in no class folder, so its label is not known: choose target='predicted'")
        self._of_folder = _numbers(folders, classes, outputs, "folder")
        _warn_of_numbers(folders, self._of_folder, self._by_name, outputs)

    def __call__(self, record: Record) -> int:
        """The number of a picture's class."""
        if self._of_name:
            return self._of_name.get(str(record.label), -1)
        return self._of_folder.get(_class_folder(record.id, self._by_name)[0], -1)


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
        names = (
            _class_folder(record.id, by_name)[0] if record.label is None else str(record.label) for record in records
        )
        return [by_name.get(_plain(name), -1) for name in names]
    return [known(record) for record in records]


def is_picture(name: str) -> bool:
    """Whether a file says that it is a picture; one without an ending may be."""
    last = name.rpartition("/")[2]
    return "." not in last or last.rpartition(".")[2].lower() in EXTENSIONS


def _class_folder(name: str, by_name: Mapping[str, int]) -> tuple[str, str]:
    """The name of a picture's class folder, empty without one, and the path above it."""
    folders = name.split("/")[:-1]
    place = next((at for at in reversed(range(len(folders))) if _plain(folders[at]) in by_name), len(folders) - 1)
    return (folders[place], "/".join(folders[:place])) if folders else ("", "")


def _warn_of_numbers(
    folders: Mapping[str, Mapping[str, str]], numbers: Mapping[str, int], by_name: Mapping[str, int], outputs: int
) -> None:
    """Warn where the numbers of folders that are not called like classes may be meant otherwise."""
    if all(_plain(name) in by_name for name in folders):
        return
    for name, pictures in folders.items():
        outer = [above for above in pictures if above.rpartition("/")[2].casefold() not in (*TRAINING, *TESTING)]
        if len(outer) > 1:
            warnings.warn(
                f"{pictures[outer[0]]} and {pictures[outer[1]]} are taken as class {numbers[name]}, after their folder "
                f"{name}: if the folders above it are the classes, give a list (.csv) with the column label",
                stacklevel=5,
            )
            break
    places = {name: place for place, name in enumerate(sorted(folders))}
    moved = next((name for name in sorted(folders) if numbers[name] != places[name]), None)
    if moved is not None and len(folders) == outputs:
        warnings.warn(
            f"folders are taken as the numbers of classes: {moved} as {numbers[moved]}. torchvision's ImageFolder "
            f"takes them in the order of their names, {moved} as {places[moved]}: after a training with it, give a "
            "list (.csv) with the column label",
            stacklevel=5,
        )


def _numbers(names: Iterable[str], classes: Sequence[str], outputs: int, what: str) -> dict[str, int]:
    distinct = sorted(names)
    by_name = _by_name(classes)
    in_order = {name: index for index, name in enumerate(distinct)}
    if all(_plain(name) in by_name for name in distinct):
        return {name: by_name[_plain(name)] for name in distinct}
    numbers = {name: int(name.partition(".")[0]) for name in distinct if _NUMBER.fullmatch(name)}
    if len(numbers) == len(distinct) and max(numbers.values()) < outputs:
        return numbers
    # Where some folders have the names of classes, the order must say the same of them.
    contradicts = any(by_name.get(_plain(name), place) != place for name, place in in_order.items())
    if len(distinct) == outputs and what == "folder" and not contradicts:
        return in_order
    unknown = next(name for name in distinct if _plain(name) not in by_name)
    raise ValueError(
        f"the {what} {unknown} is called like none of the {outputs} classes, nor by a number, and there are "
        f"{len(distinct)} class {what}s: rename it, or choose target='predicted'"
    )


def _by_name(classes: Sequence[str]) -> dict[str, int]:
    return {_plain(name): index for index, name in enumerate(classes)}


def _plain(name: str) -> str:
    return name.replace("_", " ").casefold()
