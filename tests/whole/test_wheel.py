"""The installed package: content of wheel and source distribution, and the README's first example without extras."""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
from packaging.version import Version

ROOT = next(folder for folder in Path(__file__).parents if (folder / "pyproject.toml").is_file())
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Packages that a bare installation lacks. A name without value in sys.modules cannot be imported.
OPTIONAL = "skimage sklearn scipy streamlit pandas zarr torchmetrics onnx onnxscript zennit timm transformers"
WITHOUT_EXTRAS = f"""
import socket, sys
sys.modules.update(dict.fromkeys({OPTIONAL.split()!r}))
def refuse(*arguments):
    raise OSError("no network")
socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = refuse
"""
LEFT_OUT = shutil.ignore_patterns(".git", ".venv", "build", "dist", "*.egg-info", "__pycache__", ".*_cache", "runs")


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the checkout: building in place would leave files, and pack those of earlier builds."""
    pytest.importorskip("setuptools", minversion="77")
    return shutil.copytree(ROOT, tmp_path_factory.mktemp("sources") / "main", ignore=LEFT_OUT)


@pytest.fixture(scope="module")
def wheel(sources: Path) -> Path:
    """The wheel, built without network."""
    options = "--no-deps --no-build-isolation --no-index --quiet --wheel-dir".split()
    command = [sys.executable, "-m", "pip", "wheel", str(sources), *options, str(sources.parent)]
    subprocess.run(command, check=True, timeout=120)
    (found,) = sources.parent.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path) -> Path:
    """A folder with the content of the wheel."""
    folder = wheel.with_suffix("")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


# After the README's first example, without any extra and without a network.
SHOWN = """
import json
import plugin
from plugin.measuring import stored_results
print(json.dumps({
    "file": plugin.__file__, "version": plugin.__version__, "pictures": len(models.sample_images()),
    "results": len(stored_results.stored()), "commit": stored_results.commit(),
}))
"""


@pytest.fixture(scope="module")
def shown(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The result of the README's first example, in a folder that is no checkout."""
    example = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert example is not None
    ran = subprocess.run(
        [sys.executable, "-c", WITHOUT_EXTRAS + example[1] + SHOWN], cwd=tmp_path_factory.mktemp("elsewhere"),
        env=os.environ | {"PYTHONPATH": str(installed)}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    found: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return found


def test_wheel_holds_weights_pictures_results_and_types(sources: Path, wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    packages = [path for package in ("plugin", "gan") for path in (sources / package).rglob("*")]
    wanted = [
        path for path in packages if path.suffix in (".py", ".html", ".safetensors", ".jpg", ".txt", ".json", ".typed")
    ]
    assert {path.suffix for path in wanted} == {".py", ".html", ".safetensors", ".jpg", ".txt", ".json", ".typed"}
    assert {path.relative_to(sources).as_posix() for path in wanted} <= names
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"plugin", "gan"}


def test_pictures_are_small() -> None:
    pictures = list((ROOT / "plugin" / "models" / "photographs").glob("*.jpg"))
    assert len(pictures) == 6
    assert sum(path.stat().st_size for path in pictures) < 150_000
    named = (pictures[0].parent / "SOURCES.txt").read_text()
    assert all(f"\n{path.name}\n" in named for path in pictures)


def test_commands_and_version_are_in_the_metadata(installed: Path, shown: dict[str, Any]) -> None:
    (metadata,) = installed.glob("*.dist-info")
    commands = (metadata / "entry_points.txt").read_text()
    assert "captum-simplicity = plugin.__main__:main" in commands
    assert "gan = gan.__main__:main" in commands
    version = re.search(r"^Version: (.*)$", (metadata / "METADATA").read_text(), re.MULTILINE)
    assert version is not None
    assert shown["version"] == version[1]


def test_the_first_example_needs_no_extra(installed: Path, shown: dict[str, Any]) -> None:
    assert shown["file"] == str(installed / "plugin" / "__init__.py")
    assert shown["pictures"] == 6


def test_stored_results_are_found(shown: dict[str, Any]) -> None:
    assert shown["results"] > 0
    assert not shown["commit"]


def test_source_distribution_holds_what_its_tests_read(sources: Path) -> None:
    script = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, str(sources.parent)],
        cwd=sources, stdout=subprocess.DEVNULL, check=True, timeout=120,
    )  # fmt: skip
    (archive,) = sources.parent.glob("*.tar.gz")
    with tarfile.open(archive) as packed:
        names = {name.partition("/")[2] for name in packed.getnames()}
    modules = [path for folder in ("tests", "benchmarks") for path in (sources / folder).rglob("*.py")]
    others = {"README.md", "docs/operations.md", "streamlit_app.py", ".streamlit/config.toml", ".ci/oldest.txt"}
    assert {path.relative_to(sources).as_posix() for path in modules} | others <= names


def bounds(requirements: list[str]) -> dict[str, str]:
    """The lower bound of each requirement that has one; those on this package itself are left out."""
    pairs = [re.match(r"([\w-]+)(?:>=([\w.]+))?", requirement) for requirement in requirements]
    return {pair[1]: pair[2] for pair in pairs if pair is not None and pair[2]}


def test_oldest_versions_are_the_lower_bounds() -> None:
    """`.ci/oldest.txt`, for tests of the oldest supported versions, pins exactly the bounds in `pyproject.toml`."""
    extras = PROJECT["optional-dependencies"]
    installed = re.search(r"\[(.*)\]", extras["test"][0])
    assert installed is not None
    claimed = bounds(PROJECT["dependencies"])
    for extra in ("test", *installed[1].split(",")):
        for name, bound in bounds(extras[extra]).items():
            assert claimed.setdefault(name, bound) == bound
    lines = (ROOT / ".ci" / "oldest.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    assert {name: Version(pinned.get(name, "0")) for name in claimed} == {n: Version(v) for n, v in claimed.items()}


def test_every_extra_that_an_error_names_exists() -> None:
    files = [path for package in ("plugin", "gan") for path in (ROOT / package).rglob("*.py")]
    named = {extra for path in files for extra in re.findall(r'extra="([^"]*)"', path.read_text())}
    assert named <= PROJECT["optional-dependencies"].keys()
