"""The tutorials as executed notebooks: `make notebooks` writes them to `build/notebooks`.

A tutorial is a Markdown file in `docs/tutorials`, which Jupytext reads as a notebook: its blocks of Python are the
cells. This form has no outputs, so a change of a tutorial is a change of its words or its code; it can be read on the
repository, and the tests of the documentation read it as they read any page. MkDocs loads this file as a hook: each
tutorial is executed when the site is built, its page shows the results of the cells, and a cell that fails ends the
build.
"""

import argparse
import os
import re
import sys
import tempfile
from collections.abc import Callable
from copy import deepcopy
from functools import cache
from pathlib import Path

import jupytext
import nbformat
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from nbclient import NotebookClient
from nbconvert import MarkdownExporter
from nbformat import NotebookNode

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
FOLDER = DOCS / "tutorials"
SECONDS = 300  # a cell, or the start of Python, may take where other programs run
_LINK = re.compile(r"\]\((?![a-z]+:|#)([^)#\s]+)(#[^)\s]*)?\)")
_WITHOUT_WIDGETS = "ignore:IProgress not found"  # of tqdm, whose bars are text here


def tutorials() -> list[Path]:
    """The pages that are notebooks."""
    return sorted(path for path in FOLDER.glob("*.md") if path.name != "README.md")


@cache  # `mkdocs serve` asks for every page after each change of one
def executed(text: str) -> NotebookNode:
    """The notebook of a page with the outputs of its cells, which ran in a folder of their own."""
    notebook = jupytext.reads(text, fmt="md")
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(
            notebook,
            timeout=SECONDS,
            startup_timeout=SECONDS,
            resources={"metadata": {"path": folder}},
            extra_arguments=["--log-level=ERROR"],
        )
        client.execute(env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": _WITHOUT_WIDGETS})
    for cell in notebook.cells:
        if cell.cell_type == "code":  # log messages of libraries are no part of a page
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    return notebook


def relinked(notebook: NotebookNode, address: Callable[[Path], str]) -> NotebookNode:
    """A copy whose links lead to where the files are for the reader of the notebook.

    Args:
        notebook: its links are those of a page in `docs/tutorials`.
        address: from the path of a file in the repository to its address, seen from the notebook.
    """
    copy = deepcopy(notebook)
    for cell in copy.cells:
        if cell.cell_type == "markdown":
            cell.source = _LINK.sub(
                lambda link: f"]({address((FOLDER / link[1]).resolve())}{link[2] or ''})", cell.source
            )
    return copy


def repository_address(folder: Path) -> Callable[[Path], str]:
    """Addresses of the repository's files for a notebook in a folder."""
    return lambda path: Path(os.path.relpath(path, folder.resolve())).as_posix()


def site_address(files: Files) -> Callable[[Path], str]:
    """Addresses of the site's pages for a notebook beside the tutorials, also where the site lies on a disk."""

    def address(path: Path) -> str:
        file = files.get_file_from_path(path.relative_to(DOCS).as_posix())
        assert file is not None, path
        return Path(os.path.relpath(file.dest_uri, FOLDER.name)).as_posix()

    return address


def as_markdown(notebook: NotebookNode) -> tuple[str, dict[str, bytes]]:
    """The page with the outputs of the cells, and its pictures by name."""
    text, resources = MarkdownExporter().from_notebook_node(notebook)
    return text.replace("![png]", "![Figure drawn by the code above]"), resources["outputs"]


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """MkDocs calls this before it reads the pages: tutorials get outputs, and a copy that Jupyter opens."""
    for page in tutorials():
        file = files.get_file_from_path(f"tutorials/{page.name}")
        assert file is not None
        notebook = executed(page.read_text(encoding="utf-8"))
        text, pictures = as_markdown(notebook)
        for name, content in pictures.items():
            files.append(File.generated(config, f"tutorials/{page.stem}/{name}", content=content))
            text = text.replace(f"]({name})", f"]({page.stem}/{name})")
        copy = f"{page.stem}.ipynb"
        content = nbformat.writes(relinked(notebook, site_address(files)))
        files.append(File.generated(config, f"tutorials/{copy}", content=content))
        file.content_string = f"{text}\n\n[This page as a notebook]({copy})\n"
    return files


def main() -> None:
    """Execute tutorials and write them as notebooks with outputs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=[page.stem for page in tutorials()], help="such as resnet")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "notebooks", help="folder of the notebooks")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.names:
        path = options.out / f"{name}.ipynb"
        notebook = executed((FOLDER / f"{name}.md").read_text(encoding="utf-8"))
        nbformat.write(relinked(notebook, repository_address(options.out)), path)
        print(path, flush=True)


if __name__ == "__main__":
    sys.exit(main())
