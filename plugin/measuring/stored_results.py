"""Results as JSON: `stored/<version>/<machine>-<device>.json` in this folder, one entry per row, raw times included."""

import json
import os
import platform
import re
import subprocess
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from ..files import write_text
from .cases import Row
from .timing import Spread, spread

_CHECKOUT = Path(__file__).parents[2]
# In the package, so that an installed explorer shows them too.
FOLDER = Path(__file__).with_name("stored")
_PACKAGES = ("captum-simplicity", "torch", "torchvision", "captum", "zennit")


@dataclass(frozen=True)
class Measurement:
    """The results of a row.

    Attributes:
        row: the row.
        floor_seconds: times of the floor, one per round.
        call_seconds: times of the call, one per round; each was taken directly after the floor at the same index.
        floor_peak_bytes: peak memory of the floor above the loaded network; None if it was not measured.
        peak_bytes: peak memory of the call, likewise.
        difference: difference of the map from this package's, relative to the norm of the latter; None if it was not
            compared or not finite.
        remark: a remark on the numbers.
        error: the reason for missing times; empty if there are times.
        memory_error: the reason for missing memory; empty if it is there, or if it was not measured.
        commit: commit of this package, with a plus sign behind it if files were changed since.
        date: time of the measurement, in UTC.
    """

    row: Row
    floor_seconds: tuple[float, ...] = ()
    call_seconds: tuple[float, ...] = ()
    floor_peak_bytes: int | None = None
    peak_bytes: int | None = None
    difference: float | None = None
    remark: str = ""
    error: str = ""
    memory_error: str = ""
    commit: str = ""
    date: str = ""

    @property
    def ratios(self) -> list[float]:
        """Seconds of the call over those of the floor, per round."""
        return [call / floor for call, floor in zip(self.call_seconds, self.floor_seconds, strict=True)]

    @property
    def ratio(self) -> Spread | None:
        """Median and quartiles of the ratios; None if there are none."""
        return spread(self.ratios) if self.call_seconds else None

    @property
    def memory_ratio(self) -> float | None:
        """Peak memory of the call over that of the floor; None if it was not measured."""
        return self.peak_bytes / self.floor_peak_bytes if self.peak_bytes and self.floor_peak_bytes else None


@dataclass
class Results:
    """The results of one machine and device.

    Attributes:
        machine: facts about it, see `machine_facts`.
        measurements: by row, in the order in which they were first measured.
    """

    machine: dict[str, Any]
    measurements: dict[Row, Measurement] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Measurement]:
        return iter(self.measurements.values())

    def get(self, row: Row) -> Measurement | None:
        """The results of a row; None if there are none."""
        return self.measurements.get(row)

    def put(self, row: Row, commit: str, **found: Any) -> Measurement:
        """Add results of a row. Results of another commit for that row are dropped."""
        known = self.measurements.get(row)
        if known is None or known.commit != commit:
            known = Measurement(row, commit=commit)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        self.measurements[row] = replace(known, date=now, **found)
        return self.measurements[row]

    def write(self, path: Path) -> None:
        """Replace the file atomically."""
        rows = [_as_entry(measurement) for measurement in self]
        text = json.dumps({"machine": self.machine}, indent=1, allow_nan=False)[:-2]
        text += ',\n "rows": [\n' + ",\n".join(f"  {json.dumps(row, allow_nan=False)}" for row in rows) + "\n ]\n}\n"
        write_text(path, text)

    @classmethod
    def read(cls, path: Path) -> "Results":
        """The results in a file made by `write`.

        Raises:
            ValueError: the file holds something else.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            found = [_from_entry(entry) for entry in content["rows"]]
            return cls(dict(content["machine"]), {measurement.row: measurement for measurement in found})
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} holds no results of benchmarks ({type(error).__name__}: {error})") from error


_ROW_FIELDS = tuple(each.name for each in fields(Row))


def _as_entry(measurement: Measurement) -> dict[str, Any]:
    entry = asdict(measurement)
    for name in ("floor_seconds", "call_seconds"):
        entry[name] = [float(f"{seconds:.5g}") for seconds in entry[name]]
    if entry["difference"] is not None:
        entry["difference"] = float(f"{entry['difference']:.2g}")
    row: dict[str, Any] = entry.pop("row")
    return row | {name: value for name, value in entry.items() if value not in (None, "", [])}


def _from_entry(entry: dict[str, Any]) -> Measurement:
    row = Row(**{name: entry[name] for name in _ROW_FIELDS})
    found = {name: value for name, value in entry.items() if name not in _ROW_FIELDS}
    for name in ("floor_seconds", "call_seconds"):
        found[name] = tuple(found.get(name, ()))
    return Measurement(row, **found)


def stored(folder: Path = FOLDER) -> dict[str, Path]:
    """The files of the newest version that has any: "intel-xeon-2-cores-cpu" and so on to its path.

    The largest file comes first.
    """
    versions = [path for path in folder.glob("*") if path.is_dir() and any(path.glob("*.json"))]
    if not versions:
        return {}
    newest = max(versions, key=lambda path: [int(number) for number in re.findall(r"\d+", path.name)])
    return {path.stem: path for path in sorted(newest.glob("*.json"), key=lambda path: (-path.stat().st_size, path))}


def result_path(device: str, folder: Path = FOLDER) -> Path:
    """The path for the results of this machine."""
    return folder / _version("captum-simplicity") / f"{machine_name(device)}-{device}.json"


def machine_name(device: str) -> str:
    """The processor or the GPU, as part of a file's name."""
    facts = machine_facts(device)
    name = facts["gpu"] if "gpu" in facts else f"{facts['cpu']} {facts['cores']} cores"
    return re.sub(r"[^a-z0-9]+", "-", re.sub(r"\((r|tm)\)", "", name.lower())).strip("-")


def machine_facts(device: str) -> dict[str, Any]:
    """The facts that decide this machine's speed, without its name or its owner's."""
    facts = {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in _PACKAGES},
    }
    if device.startswith("cuda"):
        properties = torch.cuda.get_device_properties(device)
        facts |= {"gpu": properties.name, "gpu_gib": round(properties.total_memory / 2**30), "cuda": torch.version.cuda}
    elif device != "cpu":
        facts["gpu"] = f"{device} of {facts['cpu']}"
    return facts


def commit() -> str:
    """The commit of this checkout, with a plus sign behind it if files were changed since; empty outside of one."""
    if not (_CHECKOUT / ".git").exists():  # installed, perhaps into a folder of another repository
        return ""
    found = _git("rev-parse", "--short=12", "HEAD")
    return f"{found}+" if found and _git("status", "--porcelain", "--", "plugin", "gan", "benchmarks/*.py") else found


def _git(*arguments: str) -> str:
    try:
        run = subprocess.run(["git", "-C", str(_CHECKOUT), *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return run.stdout.strip()


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"
