"""The documentation: its blocks of Python run as they are pasted, its links lead somewhere, its lists are complete.

A block of Python runs in a fresh namespace, as a reader would paste it, unless a comment stands on the line before it:

* `<!-- continues -->`: the block goes on from the blocks above it on the page;
* `<!-- not run: REASON -->`: the block is only compiled.

In a tutorial, which is a notebook, every block goes on from those above it. The tests run two of the tutorials; `make
docs` executes all. All blocks run in a folder of the test's, without a connection to the network.
"""

import doctest
import importlib.util
import inspect
import json
import os
import re
import socket
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from enum import Enum
from functools import cache, wraps
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from PIL import Image, ImageChops
from support.browser import ROOT
from support.helpers import slow

import gan
from plugin import datasets, errors, models, operations
from plugin.rules.lrp import RULES
from plugin.rules.presets import PRESETS

DOCS = ROOT / "docs"
REFERENCE = [
    name
    for page in sorted((DOCS / "reference").glob("*.md"))
    for name in re.findall(r"^::: (\S+)$", page.read_text(encoding="utf-8"), re.M)
]
# The packages whose names are public.
PACKAGES = (
    "plugin.attr",
    "plugin.rules",
    "plugin.models",
    "plugin.figures",
    "plugin.accelerate",
    "plugin.operations",
    "plugin.datasets",
    "plugin.experiments.invariance",
    "gan",
)
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
OWN = ("plugin.", "gan.")
# Sentences and words that readers did not understand, or had to read twice.
UNCLEAR = (
    "That is so for",
    "Nor may what",
    "is the attribution, but that",
    "Without eyes, without a mouse",
    "What it does with what",
    "in / limit / found",
    "Ask where it comes from",
    "values per example are left",
    "What made the network",
    "a miss says so",
    "Low layers, yes",
    "what is absorbed",
    "what reads the input",
)
# Methods with an example of their own, beside that of their class.
CALLED_FIRST = {"attribute", "attribute_targets", "check", "ledger", "reconstruct", "maximize", "iterate", "invert"}
TUTORIALS = DOCS / "tutorials"
TUTORIALS_THAT_RUN = ("time-series", "tokens")
# Their examples stand for what a user does first, and none of them warns.
SILENT = {DOCS / "gan.md", DOCS / "code-space-am.md"}
LONG = {DOCS / "code-space-am.md", DOCS / "methods" / "fourier-maximisation.md"}
_BLOCK = re.compile(r"(?:^ *<!-- (?P<mark>[^\n]*?) -->\n)?^(?P<indent> *)```python\n(?P<text>.*?)^ *```$", re.M | re.S)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_CODE = re.compile(r"^ *```.*?^ *```$|`[^`\n]*`", re.M | re.S)


@dataclass(frozen=True)
class Block:
    """A block of Python with the comment before it."""

    line: int
    mark: str
    text: str

    @property
    def runs(self) -> bool:
        return not self.mark.startswith("not run: ")


def blocks(page: Path) -> list[Block]:
    """The blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    found = []
    for match in _BLOCK.finditer(text):
        indent = len(match["indent"])
        lines = "\n".join(line[indent:] for line in match["text"].split("\n"))
        found.append(Block(text.count("\n", 0, match.start("text")), match["mark"] or "", lines))
    return found


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def slugs(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub and the site make them."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    headings = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading.lower()).strip()) for heading in headings}


@cache
def script(name: str) -> ModuleType:
    """A program of the folder `scripts`."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A folder of its own, no connections, one thread; operations that a block registers are taken back."""

    def refuse(*_: Any) -> None:
        raise OSError("the blocks of the documentation run without a network")

    @wraps(original := operations.register)
    def register(*args: Any, **kwargs: Any) -> Any:
        rows.append(original(*args, **kwargs))
        return rows[-1]

    rows: list[Any] = []
    threads = torch.get_num_threads()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(operations, "register", register)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setenv("MPLBACKEND", "agg")
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    for row in rows:
        operations.unregister(row)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("page", [slow(page) if page in LONG else page for page in PAGES if blocks(page)], ids=name)
def test_blocks_run_as_they_are_pasted(page: Path, apart: None) -> None:
    if page in SILENT:
        warnings.simplefilter("error")
    namespace: dict[str, Any] = {"__name__": "pasted"}
    is_notebook = page.parent == TUTORIALS
    for block in blocks(page):
        # As many lines as stand above it, so that a traceback names the line of the page.
        code = compile("\n" * block.line + block.text, str(page), "exec")
        if block.runs and (not is_notebook or page.stem in TUTORIALS_THAT_RUN):
            if block.mark != "continues" and not is_notebook:
                namespace = {"__name__": "pasted"}
            exec(code, namespace)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("reference", REFERENCE)
def test_every_name_of_the_reference_has_an_example_that_runs(reference: str, apart: None) -> None:
    module, _, attribute = reference.rpartition(".")
    thing = getattr(import_module(module), attribute)
    documented = [(reference, thing)]
    if inspect.isclass(thing):
        methods = inspect.getmembers(thing, inspect.isfunction)
        documented += [(f"{reference}.{name}", one) for name, one in methods if one.__module__.startswith(OWN)]
    if inspect.ismodule(thing):
        documented += [(f"{reference}.{one.__name__}", one) for one in _functions(thing)]
    finder, runner = doctest.DocTestFinder(recurse=False), doctest.DocTestRunner(verbose=False)
    output: list[str] = []
    for label, one in documented:
        # A namespace of its own, as a reader would paste the example.
        for example in finder.find(one, label, module=False, globs={"__name__": "pasted"}):
            needed = one is thing or inspect.ismodule(thing) or label.rpartition(".")[2] in CALLED_FIRST
            assert example.examples or not needed, f"{label} has no example"
            torch.manual_seed(0)
            runner.run(example, out=output.append)
    assert runner.tries > 0
    assert not runner.failures, "".join(output)


def _functions(module: ModuleType) -> list[Any]:
    """The public functions that a module defines."""
    functions = [one for name, one in inspect.getmembers(module, inspect.isfunction) if not name.startswith("_")]
    return [one for one in functions if one.__module__ == module.__name__]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_is_in_the_reference(package: str) -> None:
    pages = "".join(page.read_text(encoding="utf-8") for page in (DOCS / "reference").glob("*.md"))
    for name in import_module(package).__all__:
        # Constants, protocols and errors are named in the text.
        assert f"{package}.{name}" in REFERENCE or re.search(rf"`(\w+\.)?{name}`", pages), name


@pytest.mark.parametrize("reference", REFERENCE)
def test_every_name_of_the_reference_documents_its_arguments(reference: str) -> None:
    module, _, attribute = reference.rpartition(".")
    thing = getattr(import_module(module), attribute)
    documented = {reference: (thing, inspect.getdoc(thing) or "")}
    if inspect.isclass(thing):
        documented[reference] = (thing, f"{thing.__doc__}{thing.__init__.__doc__}")
        shown = _members(reference)
        for name, one in inspect.getmembers(thing, inspect.isfunction):
            if not name.startswith("_") and one.__module__.startswith(OWN) and (shown is None or name in shown):
                documented[f"{reference}.{name}"] = (one, inspect.getdoc(one) or "")
    if inspect.ismodule(thing):
        documented |= {f"{reference}.{one.__name__}": (one, inspect.getdoc(one) or "") for one in _functions(thing)}
    for label, (one, text) in documented.items():
        enumerated = inspect.isclass(one) and issubclass(one, (BaseException, Enum))
        if "its arguments" in text or not callable(one) or enumerated:
            continue
        for parameter in inspect.signature(one).parameters.values():
            if parameter.name == "self" or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                continue
            assert re.search(rf"^ *([\w, ]+, )?{parameter.name}(, [\w, ]+)?:|`{parameter.name}`", text, re.M), (
                f"{label} does not document {parameter.name}"
            )


def _members(reference: str) -> list[str] | None:
    """The members that the site shows of a class; None shows all."""
    for page in (DOCS / "reference").glob("*.md"):
        text = page.read_text(encoding="utf-8")
        found = re.search(rf"^::: {re.escape(reference)}\n +options:\n +members: \[([^]]*)\]", text, re.M)
        if found:
            return found[1].split(", ")
    return None


def test_examples_of_docstrings_are_blocks_that_run_on_the_site(
    apart: None, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("griffe")
    text = script("doctest_fences").fenced(
        "Adds.\n\n>>> for i in range(2):\n...     print(i)\n0\n1\n>>> 1 + 1\n2\n\nMore."
    )
    (block,) = re.findall(r"```python\n(.*?)```", text, re.S)
    exec(block, {})
    assert capsys.readouterr().out == "0\n1\n"
    assert text == f"Adds.\n\n```python\n{block}```\n\nMore."


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_marks_are_known(page: Path) -> None:
    for block in blocks(page):
        assert block.mark in ("", "continues") or re.fullmatch(r"not run: \S.+", block.mark), (block.line, block.mark)
    marks = re.findall(r"^ *<!-- (?:continues|not run\b[^\n]*) -->$", page.read_text(encoding="utf-8"), re.M)
    assert len(marks) == sum(bool(block.mark) for block in blocks(page)), "a mark without a block of Python below it"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for link in _LINK.findall(_CODE.sub("", page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor and target.suffix == ".md":
            assert anchor in slugs(target), link


@pytest.mark.parametrize("page", sorted(TUTORIALS.glob("[!R]*.md")), ids=name)
def test_links_of_notebooks_lead_to_files_and_pages(page: Path) -> None:
    for package in ("jupytext", "nbclient", "nbconvert", "mkdocs"):
        pytest.importorskip(package)
    import jupytext
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.plugins import EVENTS
    from mkdocs.structure.files import get_files

    def links(notebook: Any) -> list[str]:
        return [link.partition("#")[0] for cell in notebook.cells for link in _LINK.findall(_CODE.sub("", cell.source))]

    notebooks, notebook = script("notebooks"), jupytext.reads(page.read_text(encoding="utf-8"), fmt="md")
    # MkDocs takes every name of the file that begins with `on_` for an event.
    assert {name for name in vars(notebooks) if name.startswith("on_")} <= {f"on_{event}" for event in EVENTS}
    folder = ROOT / "build" / "notebooks"
    here = [
        link for link in links(notebooks.relinked(notebook, notebooks.repository_address(folder))) if "://" not in link
    ]
    assert all(Path(os.path.normpath(folder / link)).is_file() for link in here), here
    config = MkDocsConfig()
    config.load_dict({"site_name": "a site", "docs_dir": str(DOCS), "use_directory_urls": False})
    config.validate()
    files = get_files(config)
    there = [link for link in links(notebooks.relinked(notebook, notebooks.site_address(files))) if "://" not in link]
    assert len(there) == len(here) == sum("://" not in link for link in links(notebook))
    assert {os.path.normpath(f"tutorials/{link}") for link in there} <= {file.dest_uri for file in files}


def test_the_site_loads_nothing_from_another_server() -> None:
    pytest.importorskip("mkdocs")
    from mkdocs.config import load_config

    config = load_config(str(ROOT / "mkdocs.yml"))
    (offline,) = (plugin for name, plugin in config.plugins.items() if name.endswith("offline"))
    offline.on_config(config)
    assert not config.theme["font"]
    assert config.extra["polyfills"]
    for script_or_style in (*config.extra["polyfills"], *config.extra_css, *config.extra_javascript):
        assert (DOCS / script_or_style).is_file(), script_or_style


def test_every_page_is_listed() -> None:
    contents = (DOCS / "README.md").read_text(encoding="utf-8")
    listed = {(DOCS / link.partition("#")[0]).resolve() for link in _LINK.findall(contents)}
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[2]
    for page in PAGES[1:]:
        path = page.relative_to(DOCS).as_posix()
        assert page in listed or path == "README.md", f"docs/README.md does not list {path}"
        assert re.search(rf"[-:] {re.escape(path)}$", navigation, re.M), f"mkdocs.yml does not list {path}"


def test_every_error_has_a_section() -> None:
    text = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    for module in (errors, models, datasets, gan):
        for error, kind in vars(module).items():
            if isinstance(kind, type) and issubclass(kind, Exception) and kind is not errors.AttributionError:
                assert f"\n## {error}\n" in text, error


def test_every_rule_and_preset_has_a_section() -> None:
    text = (DOCS / "methods" / "lrp.md").read_text(encoding="utf-8")
    for preset in PRESETS:
        section = text.partition(f"\n### `{preset}`\n")[2].partition("\n### ")[0]
        for part in ("* **Use**: ", "* **Limits**: ", "* **Reference**: "):
            assert part in section, (preset, part)
    for rule in {maker.func.__name__ for maker in RULES.values()}:
        assert f"{rule}(" in text, rule


@pytest.mark.parametrize("page", sorted((DOCS / "methods").glob("[!R]*.md")), ids=name)
def test_every_page_of_a_method_is_complete(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    parts = [text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0] for heading in ("Limits", "References")]
    limits = parts[0] or "".join(re.findall(r"\* \*\*Limits\*\*: .*", text))  # of LRP those of each rule
    assert re.search(r"\d", limits), "limits in numbers"
    assert "bibliography.md" in parts[1]
    for part in ("\n## Definition\n", "\n```text\n", "\n![", "\n```python\n", "\n## Cost\n", "../reference/"):
        assert part in text, part


def _percent(share: float) -> str:
    """A share as the pages print it; a half is rounded up."""
    return f"{Decimal(str(100 * share)).quantize(Decimal('0.1'), ROUND_HALF_UP)} %"


def test_accuracies_are_those_of_the_stored_weights() -> None:
    stored = {name: _percent(models.load(name).metadata["accuracy"]) for name in models.names()}
    for page in (ROOT / "README.md", DOCS / "models.md", DOCS / "invariance.md"):
        text = page.read_text(encoding="utf-8")
        assert all(accuracy in text for accuracy in stored.values()), page
        assert set(re.findall(r"\b8[78][.]\d %", text)) <= set(stored.values()), page
    text = (DOCS / "models.md").read_text(encoding="utf-8")
    for name, accuracy in stored.items():
        count = sum(parameter.numel() for parameter in models.load(name).network.parameters())
        row = rf"^\| {name.replace('-', '[- ]')} \| {count:,} \| {accuracy} \|"
        assert re.search(row, text, re.M | re.I), name


def test_scores_of_generators_are_those_of_the_stored_weights() -> None:
    text = (DOCS / "gan.md").read_text(encoding="utf-8")
    loaded = {name: gan.load(name) for name in ("dcgan-mnist", "gan-mnist")}
    pictures = gan.load("dcgan-cifar10")
    for name, each in (loaded | {"dcgan-cifar10": pictures}).items():
        parts = (each.generator, each.discriminator)
        count = sum(parameter.numel() for part in parts for parameter in part.parameters())
        assert re.search(
            rf"^\| `{name}` \| .* \| {count:,} \| Fréchet distance {each.scores['fid_ratio']:.1f} \|", text, re.M
        ), name
    for name in ("mnist-classifier", "mnist-judge", "cifar10-judge"):
        network = gan.load_classifier(name)
        count = sum(parameter.numel() for parameter in network.parameters())
        accuracy = f"{100 * network.accuracy:.2f} %"
        assert re.search(rf"^\| `{name}` \| .* \| {count:,} \| test accuracy {accuracy} \|", text, re.M), name
    for label, score, digits, of_test in (
        ("Fréchet distance to the test images.*", "fid_ratio", 1, "1"),
        ("imbalance of the ten digits, nats", "imbalance", 3, ""),
        ("distance to the nearest training image: mean", "nearest_train", 2, "nearest_train_of_test"),
        ("distance to the nearest training image: 1 % quantile", "closest_train", 2, "closest_train_of_test"),
    ):
        first, second = (f"{each.scores[score]:.{digits}f}" for each in loaded.values())
        last = f"{loaded['dcgan-mnist'].scores[of_test]:.2f}" if of_test in loaded["dcgan-mnist"].scores else of_test
        assert re.search(rf"^\| {label} \| {first} \| {second} \| *{last} *\|", text, re.M), label
        of_test = f"{pictures.scores[of_test]:.2f}" if of_test in pictures.scores else of_test
        row = rf"^\| {label.replace('digits', 'classes')} \| {pictures.scores[score]:.{digits}f} \| *{of_test} *\|"
        assert re.search(row, text, re.M), row


def test_confident_images_are_those_of_the_stored_weights() -> None:
    text = (DOCS / "gan.md").read_text(encoding="utf-8")
    scores = {each: gan.load(each).scores for each in ("dcgan-mnist", "gan-mnist", "dcgan-cifar10")}
    own = {each: f"{100 * score['confident_share']:.0f} %" for each, score in scores.items()}
    test = {each: f"{100 * score['confident_share_of_test']:.0f} %" for each, score in scores.items()}
    assert f"| confident images | {own['dcgan-mnist']} | {own['gan-mnist']} | {test['gan-mnist']} |" in text
    assert f"| confident images | {own['dcgan-cifar10']} | {test['dcgan-cifar10']} |" in text


def test_no_unclear_sentence_is_left() -> None:
    sources = [path for package in ("plugin", "gan") for path in (ROOT / package).rglob("*.py")]
    for path in [*PAGES, *ROOT.glob("*.md"), *sources]:
        text = re.sub(r"\s+", " ", path.read_text(encoding="utf-8"))
        assert not [phrase for phrase in UNCLEAR if phrase in text], path


def test_the_unit_of_the_benchmarks_is_the_baseline() -> None:
    for page in PAGES:
        if page.name != "operations.md":  # where `floor` is an operation
            assert not re.search(r"\bfloors?\b", page.read_text(encoding="utf-8"), re.I), page


def test_numbers_of_natural_images_are_those_of_the_stored_results() -> None:
    program = script("natural_images")
    makers = json.loads(program.RESULTS.read_text(encoding="utf-8"))["makers"]
    assert program.table(makers) in (DOCS / "methods" / "fourier-maximisation.md").read_text(encoding="utf-8")
    sheets = {path.name: path.stat().st_size for path in program.FIGURES.glob("natural-*.jpg")}
    assert {f"natural-{maker}.jpg" for maker in makers if maker != "photographs"} <= sheets.keys()
    assert max(sheets.values()) < 150_000


def test_figures_of_rounding_are_those_of_the_stored_results() -> None:
    program = script("rounding")
    stored = json.loads(program.STORED.read_text(encoding="utf-8"))
    text = program.PAGE.read_text(encoding="utf-8")
    assert program.rewritten(text, stored) == text, "run python scripts/rounding.py --pages"
    own = {name: row["float64"] for name, row in stored["compiled"].items()}
    worst = program.cell(max(error for name, error in own.items() if name.endswith(" epsilon")))
    for page in (DOCS / "faq.md", DOCS / "methods" / "lrp.md"):
        assert f"by up to {worst} of its largest value" in re.sub(r"\s+", " ", page.read_text(encoding="utf-8")), page
    calm = [error for name, error in own.items() if re.match(r"(all-cnn-c|vgg16) .* epsilon_(plus|gamma)", name)]
    assert float(program.cell(max(calm))) <= 2e-6, "docs/faq.md names this limit"


def test_speeds_of_compiled_maps_are_those_of_the_stored_results() -> None:
    program = script("compiled_speed")
    stored = json.loads(program.STORED.read_text(encoding="utf-8"))
    for page in program.PAGES:
        text = page.read_text(encoding="utf-8")
        assert program.rewritten(text, stored) == text, "run python scripts/compiled_speed.py --pages"


def test_quotients_near_zero_are_all_that_float32_changes_of_lrp_epsilon() -> None:
    program = script("rounding")
    row = program.decisions_of(*program.case("all-cnn-c", 32), epsilon=1e-6)
    assert row["as it is"] > 1e-6 > row["quotients"]


@pytest.mark.parametrize("page", [ROOT / "README.md", DOCS / "start.md"], ids=name)
def test_the_first_example_draws_the_picture_below_it(page: Path, apart: None) -> None:
    exec(blocks(page)[0].text, {"__name__": "pasted"})
    with Image.open(DOCS / "figures" / "first-map.png") as shown, Image.open("cat.png") as drawn:
        alike = drawn.convert("RGB").resize(shown.size, Image.Resampling.NEAREST)
        difference = ImageChops.difference(alike, shown.convert("RGB"))
    assert max(high for _, high in difference.getextrema()) <= 2, "python scripts/gallery.py draws it"


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 150
