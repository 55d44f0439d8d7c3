"""The parts of a summary, one for each block, in files that are joined while the run goes on.

A block's part is written before the block itself. Each process joins the parts of its finished blocks whenever they
have become as large as its joined file: on the disk there are about two summaries for each process, not a part for
each block. A joined file names its blocks, so that parts that a killed process had not removed yet count once. Nothing
is joined after the last block, when another process may make the summary already.
"""

import io
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from . import paths
from .summaries import Part, Summary

_FOLDER = "_parts"
# Smaller parts are joined in this number.
_AT_LEAST = 16


@dataclass
class SummaryParts:
    """The files of one process, in the output's folder.

    Attributes:
        out: the output, a path or a URL.
        summary: the summary that the parts belong to.
    """

    out: str
    summary: Summary
    _own: dict[str, tuple[list[int], int]] = field(default_factory=dict)
    _joined: str = ""
    _size: int = 0

    def write(self, block: int, part: Part) -> None:
        """Write the part of a block, before the block itself."""
        self._join_if_large()
        content = as_npz(part | {"blocks": np.array([block])})
        paths.write(self._path(_name(block)), content)
        self._size = len(content)

    def count(self, block: int) -> None:
        """Say that this process, and no other, has written the block of the last part."""
        self._own[_name(block)] = ([block], self._size)

    def _join_if_large(self) -> None:
        single = [size for own, (_, size) in self._own.items() if own != self._joined]
        joined = self._own[self._joined][1] if self._joined else 0
        if len(single) >= _AT_LEAST and sum(single) >= joined:
            self._join()

    def _join(self) -> None:
        names = list(self._own)
        whole = self.summary.joined(self._read(name) for name in names)
        blocks = sorted(block for own, _ in self._own.values() for block in own)
        content = as_npz(whole | {"blocks": np.array(blocks)})
        self._joined = f"joined-{uuid.uuid4().hex}.npz"
        paths.write(self._path(self._joined), content)
        for name in names:
            paths.remove_file(self._path(name))
        self._own = {self._joined: (blocks, len(content))}

    def finish(self, blocks: Iterable[int]) -> Part:
        """The summary of these blocks, which are all that were written.

        Raises:
            ValueError: the part of a block is missing, or cannot be told from others.
        """
        wanted, found = set(blocks), []
        covering = {name: set(self._read(name)["blocks"].tolist()) for name in paths.names_in(self._path(""))}
        for name in sorted(covering, key=lambda name: -len(covering[name])):
            if covering[name] <= wanted:
                found.append(name)
                wanted -= covering[name]
        if wanted:
            raise ValueError(
                f"{self.out} lacks the part of block {min(wanted)} in the summary: remove the file of this block, "
                "and go on"
            )
        return self.summary.merge(self._read(name) for name in sorted(found))

    def remove(self) -> None:
        """Remove the files of all processes."""
        paths.remove_folder(self._path(""))

    def _read(self, name: str) -> Part:
        with np.load(io.BytesIO(paths.read(self._path(name)))) as arrays:
            return dict(arrays)

    def _path(self, name: str) -> str:
        return paths.join(paths.join(self.out, _FOLDER), name) if name else paths.join(self.out, _FOLDER)


def _name(block: int) -> str:
    return f"block-{block:08d}.npz"


def as_npz(arrays: Part) -> bytes:
    """The content of a file of `numpy.savez`."""
    target = io.BytesIO()
    np.savez(target, **arrays)  # type: ignore[arg-type]
    return target.getvalue()
