"""`make report`: tables of README.md and docs, and figures in docs/figures, from the stored JSON."""

import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmark_figures import draw

from plugin.files import write_text
from plugin.measuring import required_values, stored_results
from plugin.measuring.cases import IMPLEMENTATIONS, LABELS, Row
from plugin.measuring.measured_networks import NAMES
from plugin.measuring.required_values import TARGETS, Finding, Target
from plugin.measuring.stored_results import Measurement, Results
from plugin.measuring.timing import spread

ROOT = Path(__file__).parents[1]
README, PAGE, FIGURES = ROOT / "README.md", ROOT / "docs" / "benchmarks.md", ROOT / "docs" / "figures"
CHOICE = ROOT / "docs" / "which-method.md"
COMPILED, LRP = ROOT / "docs" / "accelerate.md", ROOT / "docs" / "methods" / "lrp.md"
_BEGIN, _END = "<!-- benchmarks: begin -->", "<!-- benchmarks: end -->"
_BRIEF_NETWORKS, _BRIEF_METHODS = ("vgg16", "resnet50"), ("guided-backprop", "lrp-epsilon", "lrp-epsilon-plus-flat")
# The rows of the table of costs.
_COSTS = {
    "guided backprop, deconvnet": ("guided-backprop", "deconvnet"),
    "LRP `epsilon`": ("lrp-epsilon",),
    "LRP `epsilon_plus_flat`": ("lrp-epsilon-plus-flat",),
    "LRP `epsilon_gamma_box`": ("lrp-epsilon-gamma-box",),
}
_AGAINST = {"floor": "x baseline", "compiled floor": "x compiled baseline", "captum": "x Captum", "zennit": "x zennit"}


def replaced(text: str, written: str) -> str:
    """A page with something else between its two markers.

    Raises:
        ValueError: it does not have them.
    """
    parts = re.split(f"{_BEGIN}.*?{_END}", text, flags=re.DOTALL)
    if len(parts) != 2:
        raise ValueError(f"the page needs one line {_BEGIN} and one line {_END}, between which the tables go")
    return f"{parts[0]}{_BEGIN}\n\n{written}\n\n{_END}{parts[1]}"


def machine(found: Results) -> str:
    """One sentence about where and on which commit it was measured."""
    facts = found.machine
    versions = ", ".join(f"{name} {facts['versions'][name]}" for name in ("torch", "captum", "zennit"))
    commits = ", ".join(sorted({f"`{measurement.commit}`" for measurement in found if measurement.commit}))
    where = facts.get("gpu") or f"{facts['cpu']}, {facts['cores']} cores"
    return f"{where}, {facts['threads']} threads; {versions}; commit {commits or 'unknown'}."


def summary(found: Results) -> str:
    """One line per target: its limit, the range over all networks and batches, and how often it was reached."""
    head = ["method", "unit", "target", "measured (range of medians)", "rows within target"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for target in _of_device(found):
        findings = required_values.findings(found, target)
        reached, all_of_them = required_values.reached(findings)
        medians = sorted(finding.value.median for finding in findings)
        span = f"{medians[0]:.2f} to {medians[-1]:.2f}" if medians else "not measured"
        share = f"{reached} of {all_of_them}" if medians else "-"
        lines.append(f"| {_methods(target)} | {_unit(target)} | {target.most:g} | {span} | {share} |")
    return "\n".join(lines)


def brief(found: Results, methods: Sequence[str] = _BRIEF_METHODS) -> str:
    """One image, medians over the floor: eager calls, and compiled ones beside the compiled floor."""
    names = [IMPLEMENTATIONS["ours"], IMPLEMENTATIONS["captum"], IMPLEMENTATIONS["zennit"]]
    head = ["one image, x baseline", *(f"{name}, eager" for name in names)]
    head += ["baseline, compiled", "this package, compiled"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for network in _BRIEF_NETWORKS:
        floor = found.get(Row(network, "lrp-0", "compiled", device=_device(found)))
        for method in methods:
            rows = [
                Row(network, method, who, device=_device(found)) for who in ("ours", "captum", "zennit", "compiled")
            ]
            *eager, compiled = (_median(found.get(row)) for row in rows)
            if any(eager):
                cells = [f"{NAMES[network]}, {LABELS[method]}", *eager, _median(floor), compiled]
                lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def costs(found: Sequence[Results]) -> str:
    """The ranges of the medians over networks and batches: eager time and peak memory over the floor, by machine."""
    places = ["GPU" if "gpu" in each.machine else "CPU" for each in found]
    head = ["method", *(f"{measure}, {place}" for measure in ("time", "memory") for place in places)]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for name, methods in _COSTS.items():
        rows = [
            [one for one in each if one.row.method in methods and one.row.implementation == "ours"] for each in found
        ]
        times = [[one.ratio.median for one in some if one.ratio] for some in rows]
        memories = [[one.memory_ratio for one in some if one.memory_ratio is not None] for some in rows]
        lines.append(f"| {name} | {' | '.join(map(_range, [*times, *memories]))} |")
    return "\n".join(lines)


def _range(values: Sequence[float]) -> str:
    return f"{min(values):.2f} to {max(values):.2f}" if values else ""


def _median(measurement: Measurement | None) -> str:
    """The median over the floor; nothing where none was measured, and a mark where the map is another one."""
    if measurement is None or measurement.ratio is None:
        return ""
    return f"{measurement.ratio.median:.2f}" + ("*" if measurement.remark else "")


def table(found: Results) -> str:
    """One line per target, method and batch, one column per network: median, quartiles, and whether it is a miss."""
    head = ["method", "batch", "unit", "target", *NAMES.values()]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for target in _of_device(found):
        findings = required_values.findings(found, target)
        for method in target.methods:
            for batch in target.batches:
                cells = [_cell(findings, method, batch, network) for network in NAMES]
                if any(cells):
                    start = [f"{_compiled(target)}{LABELS[method]}", str(batch), _unit(target), f"{target.most:g}"]
                    lines.append(f"| {' | '.join([*start, *cells])} |")
    return "\n".join(lines)


def others(found: Results) -> str:
    """Measurements without a target: reconstruction, code space and training, over the floor."""
    lines = ["| | network | implementation | batch | x baseline |", "|---|---|---|---|---|"]
    for measurement in found:
        row, ratio = measurement.row, measurement.ratio
        if row.network not in NAMES and ratio:
            who = IMPLEMENTATIONS[row.implementation]
            lines.append(f"| {row.method.replace('-', ' ')} | {row.network} | {who} | {row.batch} | {ratio} |")
    return "\n".join(lines) if len(lines) > 2 else ""


def remarks(found: Results) -> str:
    """Everything that failed, and the peers whose map is another one."""
    lines = []
    for measurement in found:
        for text in (measurement.error, measurement.memory_error, measurement.remark.strip("()")):
            if text:
                lines.append((_subject(measurement), text))
    grouped: dict[str, list[str]] = {}
    for subject, text in lines:
        grouped.setdefault(text, []).append(subject)
    return "\n".join(f"* {text}: {', '.join(dict.fromkeys(subjects))}" for text, subjects in grouped.items())


def absolute(found: Results) -> str:
    """Milliseconds, for GPUs only: theirs mean the same to everybody who has one."""
    if "gpu" not in found.machine:
        return ""
    columns = ["floor", *IMPLEMENTATIONS]
    cells: dict[tuple[str, str, int], dict[str, Sequence[float]]] = {}
    for measurement in found:
        row = measurement.row
        if measurement.call_seconds:
            line = cells.setdefault((row.network, row.method, row.batch), {})
            line[row.implementation] = measurement.call_seconds
            line.setdefault("floor", measurement.floor_seconds)
    lines = [f"| network | method | batch | baseline, ms | {' | '.join(IMPLEMENTATIONS.values())} |"]
    lines.append("|---" * (3 + len(columns)) + "|")
    for (network, method, batch), times in cells.items():
        shown = [str(spread([1000 * each for each in times[name]])) if name in times else "" for name in columns]
        start = [NAMES.get(network, network), LABELS.get(method, method), str(batch)]
        lines.append(f"| {' | '.join([*start, *shown])} |")
    return "\n".join(lines)


def _compiled_count(found: Results) -> int:
    return sum(measurement.row.implementation == "compiled" for measurement in found)


def _device(found: Results) -> str:
    return "cuda" if "gpu" in found.machine else "cpu"


def _of_device(found: Results) -> list[Target]:
    return [target for target in TARGETS if target.device == _device(found)]


def _methods(target: Target) -> str:
    name = "; ".join(LABELS[method] for method in target.methods)
    batches = f", batch {target.batches[0]}" if len(target.batches) == 1 else ""
    return f"{_compiled(target)}{name}{batches}"


def _compiled(target: Target) -> str:
    return "compiled " if target.implementation == "compiled" else ""


def _unit(target: Target) -> str:
    return ("memory, " if target.measure == "memory" else "") + _AGAINST[target.against]


def _cell(findings: Iterable[Finding], method: str, batch: int, network: str) -> str:
    for finding in findings:
        if (finding.row.method, finding.row.batch, finding.row.network) == (method, batch, network):
            value = finding.value
            text = f"{value.median:.3f}" if value.low == value.high else str(value)
            return text if finding.reached else f"**miss** {text}"
    return ""


def _subject(measurement: Measurement) -> str:
    row = measurement.row
    label = LABELS.get(row.method, row.method)
    return f"{IMPLEMENTATIONS[row.implementation]} {NAMES.get(row.network, row.network)} {label}"


def _section(stem: str, found: Results) -> str:
    parts = [f"## {found.machine.get('gpu') or found.machine['cpu']}", machine(found)]
    parts += [
        f"![Times and peak memory as multiples of the baseline](figures/benchmarks-{stem}.svg)",
        summary(found),
        table(found),
    ]
    parts += [others(found)]
    listed = remarks(found)
    parts += [f"Failures, and peers that compute another map:\n\n{listed}"] if listed else []
    parts += [absolute(found)]
    return "\n\n".join(part for part in parts if part)


def written(found: dict[str, Results]) -> dict[Path, str]:
    """Each page with its tables, from results by the stems of their files."""
    # For the table of costs: the first CPU and the first GPU, on which most was measured.
    fullest = {"gpu" in each.machine: each for each in reversed(found.values())}
    # For eager beside compiled calls: the CPU and the GPU with the most compiled rows.
    kinds = [[each for each in found.values() if ("gpu" in each.machine) is gpu] for gpu in (False, True)]
    both = [max(some, key=_compiled_count) for some in kinds if some]
    sections = {
        README: [f"{machine(each)}\n\n{brief(each)}" for each in both],
        COMPILED: [f"{machine(each)}\n\n{brief(each)}" for each in both],
        LRP: [f"{machine(each)}\n\n{brief(each, _BRIEF_METHODS[1:])}" for each in both],
        CHOICE: [costs([*fullest.values()])],
        PAGE: [_section(stem, each) for stem, each in found.items()],
    }
    return {path: replaced(path.read_text(encoding="utf-8"), "\n\n".join(each)) for path, each in sections.items()}


def main(folder: Path = stored_results.FOLDER) -> int:
    """Write everything; returns the exit code."""
    files = stored_results.stored(folder)
    if not files:
        print(f"there are no results in {folder}: make bench", file=sys.stderr)
        return 1
    found = {stem: Results.read(path) for stem, path in files.items()}
    for stem, each in found.items():
        draw(each, FIGURES / f"benchmarks-{stem}.svg")
    for path, text in written(found).items():
        write_text(path, text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
