"""Pictures come from folders, globs, lists, Parquet, tar files and Hugging Face, on this machine and under URLs."""

import csv
import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.picture_folders import CLASSES, arrays, content, draw, fill, network

from plugin.datasets import Explain, Record, attribute_dataset
from plugin.datasets.labels import Labels
from plugin.datasets.sources import open_source

fsspec = pytest.importorskip("fsspec")
pyarrow = pytest.importorskip("pyarrow")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve pictures, of which four are bad."""
    return fill(tmp_path / "pictures", 8)


@pytest.fixture
def remote() -> Any:
    """A name below which nothing is stored yet, in a file system that is no folder."""
    system = fsspec.filesystem("memory")
    if system.exists("/test"):
        system.rm("/test", recursive=True)
    yield "memory://test"
    if system.exists("/test"):
        system.rm("/test", recursive=True)


def upload(folder: Path, url: str) -> str:
    """Copy a folder."""
    system = fsspec.filesystem("memory")
    for path in folder.rglob("*"):
        if path.is_file():
            system.pipe_file(f"{url}/{path.relative_to(folder).as_posix()}", path.read_bytes())
    return url


def write_parquet(folder: Path, target: Path) -> Path:
    """The pictures of a folder as rows of two files, as Hugging Face writes them, in groups of two."""
    parquet = pytest.importorskip("pyarrow.parquet")
    files = sorted(path for path in folder.glob("*/*"))
    images = [{"bytes": path.read_bytes(), "path": path.name} for path in files]
    labels = [2 if path.parent.name == "truck" else 0 for path in files]
    target.mkdir()
    for part, rows in enumerate((slice(0, 7), slice(7, None))):
        table = pyarrow.table({"image": images[rows], "label": labels[rows]})
        parquet.write_table(table, target / f"part-{part}.parquet", row_group_size=2)
    return target


def write_tar(folder: Path, target: Path) -> Path:
    """The pictures of a folder as samples with a label, and one without a picture."""
    with tarfile.open(target, "w") as tar:

        def add(name: str, content: bytes) -> None:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))

        for number, path in enumerate(sorted(folder.glob("*/*"))):
            add(f"{number:03}.cls", b"truck" if path.parent.name == "truck" else b"tabby cat")
            add(f"{number:03}{path.suffix}", path.read_bytes())
        add("lonely.json", b"{}")
    return target


def explain(source: Any, out: str | Path, target: str = "predicted", **options: Any) -> dict[str, Any]:
    """The arrays of the store that a source ends up in."""
    attribute_dataset(network(), "gradient", source, out, target, batch_size=5, progress=False, **options)
    return arrays(out)  # type: ignore[arg-type]


def test_every_source_gives_the_same_maps(folder: Path, tmp_path: Path, remote: str) -> None:
    expected = explain(folder, tmp_path / "folder")
    names = expected["file"].tolist()
    (tmp_path / "list.txt").write_text("\n".join(f"pictures/{name}" for name in names))
    tables = write_parquet(folder, tmp_path / "tables")
    upload(folder, f"{remote}/pictures")
    upload(tmp_path / "tables", f"{remote}/tables")
    upload(write_tar(folder, tmp_path / "shard.tar").parent, f"{remote}/all")
    sources = {
        "glob": str(folder / "*" / "*"),
        "list": str(tmp_path / "list.txt"),
        "parquet": str(tables / "*.parquet"),
        "tar": str(tmp_path / "shard.tar"),
        "remote-folder": f"{remote}/pictures",
        "remote-glob": f"{remote}/pictures/*/*",
        "remote-parquet": f"{remote}/tables/*.parquet",
        "remote-tar": f"{remote}/all/shard.tar",
    }
    for name, source in sources.items():
        found = explain(source, tmp_path / name)
        for array in ("maps", "sha256", "predicted"):
            np.testing.assert_array_equal(found[array][:12], expected[array], err_msg=f"{name} {array}")
        # A file that is no picture by its name is none in a tar file.
        assert (found["error"][:12] == "").tolist() == (expected["error"] == "").tolist(), name
        again = attribute_dataset(network(), "gradient", source, tmp_path / name, batch_size=5, progress=False)
        assert again.found == len(found["file"])


def test_names_say_where_a_picture_is(folder: Path, tmp_path: Path) -> None:
    tables = write_parquet(folder, tmp_path / "tables")
    write_tar(folder, tmp_path / "shard.tar")

    def names(source: str) -> list[str]:
        return [record.id for record in open_source(source).records()]

    assert names(str(folder / "cat" / "*.png")) == ["001.png", "003.png", "005.png", "007.png"]
    assert names(str(folder / "**" / "001.png")) == ["cat/001.png"]
    assert names(str(tables / "*.parquet"))[6:8] == ["part-0.parquet#6", "part-1.parquet#0"]
    assert names(str(tmp_path / "shard.tar"))[-2:] == ["shard.tar/011", "shard.tar/lonely"]


def test_a_sample_without_a_picture_is_listed(folder: Path, tmp_path: Path) -> None:
    found = explain(str(write_tar(folder, tmp_path / "shard.tar")), tmp_path / "maps")
    assert found["error"][-1] == "The sample holds no picture."


@pytest.mark.parametrize("kind", ["parquet", "tar", "csv"])
def test_sources_bring_labels(kind: str, folder: Path, tmp_path: Path) -> None:
    if kind == "csv":
        with open(tmp_path / "list.csv", "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["label", "path"])
            for path in sorted(folder.glob("*/*")):
                writer.writerow(["truck" if path.parent.name == "truck" else "Tabby_cat", path])
    sources = {
        "parquet": lambda: write_parquet(folder, tmp_path / "tables") / "*.parquet",
        "tar": lambda: write_tar(folder, tmp_path / "shard.tar"),
        "csv": lambda: tmp_path / "list.csv",
    }
    found = explain(str(sources[kind]()), tmp_path / "maps", "label")
    good = found["error"] == ""
    assert found["target"][good].tolist() == [0] * 4 + [2] * 4


def test_hugging_face_data_set(folder: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", minversion="2")
    files = sorted(path for path in folder.glob("*/*") if path.suffix == ".png")
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=["truck", "tabby cat"]))
    rows = {"image": [str(path) for path in files], "label": [int(path.parent.name == "cat") for path in files]}
    dataset = datasets.Dataset.from_dict(rows, features=features)
    dataset.save_to_disk(tmp_path / "saved")
    expected = explain(str(folder / "*" / "*.png"), tmp_path / "expected")
    for name, source in (("maps of the object", dataset), ("maps of the folder", str(tmp_path / "saved"))):
        found = explain(source, tmp_path / name)
        np.testing.assert_array_equal(found["maps"], expected["maps"])
    labelled = explain(dataset, tmp_path / "labelled", "label")
    good = labelled["error"] == ""
    assert set(labelled["target"][good].tolist()) == {CLASSES.index("truck"), CLASSES.index("tabby cat")}


@pytest.mark.parametrize("name", ["maps.zarr", "maps.parquet"])
def test_urls_of_local_files_are_their_paths(name: str, folder: Path, tmp_path: Path) -> None:
    out, options = tmp_path / "there" / name, {"batch_size": 5, "progress": False}
    attribute_dataset(network(), "gradient", folder, tmp_path / name, **options)  # type: ignore[arg-type]
    for found in (0, 12):
        report = attribute_dataset(network(), "gradient", folder.as_uri(), f"file://{out}", **options)  # type: ignore[arg-type]
        assert (report.path, report.found) == (out, found)
    assert content(out) == content(tmp_path / name)


def test_a_source_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "one.png"
    draw(path, 1)

    class Own:
        def records(self) -> Any:
            yield Record("only", 3)

        def read(self, record: Record) -> bytes:
            assert record.place == 3
            return path.read_bytes()

    assert explain(Own(), tmp_path / "maps")["file"].tolist() == ["only"]


def test_output_in_object_storage(folder: Path, tmp_path: Path, remote: str) -> None:
    import zarr

    explain(folder, tmp_path / "here.zarr")
    for expected_found in (0, 12):
        report = attribute_dataset(network(), "gradient", folder, f"{remote}/maps.zarr", batch_size=5, progress=False)
        assert (report.maps, report.left, report.found) == (8, 0, expected_found)
    group = zarr.open_group(zarr.storage.FsspecStore.from_url(f"{remote}/maps.zarr"), mode="r")
    here = arrays(tmp_path / "here.zarr")
    for name, array in group.arrays():
        np.testing.assert_array_equal(array[:], here[name])
    assert group.attrs["finished"] is True
    with pytest.raises(ValueError, match="method was 'gradient' and is now 'lrp-0'"):
        attribute_dataset(network(), "lrp-0", folder, f"{remote}/maps.zarr", progress=False)
    assert not Path("memory:").exists()


@pytest.mark.parametrize("url", ["nowhere://bucket/maps", "nowhere://bucket/maps.parquet"])
def test_url_that_nothing_speaks_is_refused(url: str, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere://bucket/maps.* cannot be reached"):
        explain(folder, url)
    with pytest.raises(ValueError, match="cannot be reached"):
        explain("nowhere://bucket/pictures", tmp_path / "maps")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("list.txt", "", "names no pictures"),
        ("list.txt", "gone.png\n", "the list names a file that is not there, and it is the first; a path counts from"),
        ("list.csv", "file;label\na.png;cat\n", "has no column `path` in its first line, but file;label: name the"),
        ("photo.png", "no folder", "is no folder, nor a list .*: give the folder of the pictures, or a list of them"),
        ("list.csv", "label,path\n\ncat\n", "names no path in line 3"),
        ("list.csv", "path,bytes\nlist.csv,12.0\n", "list.csv names '12.0' as the bytes of list.csv"),
        ("list.csv", "path\nlist.csv\n" + "x" * 200_000, "list.csv cannot be read in line 3: field larger"),
        ("list.txt", "a\0.png\n", "names a path with a zero byte, .*: save it as UTF-8"),
        ("shard.tar", "no tar file at all" * 100, "is no tar file that can be read"),
        ("shard.tar", "\0" * 10_240, "the source holds no pictures"),
        ("rows.parquet", "no rows at all", "rows.parquet is no Parquet file that can be read"),
    ],
)
def test_sources_that_are_not_what_they_should_be(name: str, content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises((ValueError, OSError), match=message):
        explain(str(tmp_path / name), tmp_path / "maps")
    assert not (tmp_path / "maps").exists()


@pytest.mark.parametrize("damage", ["cut in a header", "cut in a picture", "header overwritten"])
def test_a_tar_file_of_which_a_part_is_lost_is_refused(damage: str, folder: Path, tmp_path: Path) -> None:
    content = write_tar(folder, tmp_path / "shard.tar").read_bytes()
    with tarfile.open(tmp_path / "shard.tar") as tar:
        at = tar.getmember("007.png").offset
    damaged = {
        "cut in a header": content[: at + 100],
        "cut in a picture": content[: at + 600],
        "header overwritten": content[:at] + b"?" * 512 + content[at + 512 :],
    }
    (tmp_path / "shard.tar").write_bytes(damaged[damage])
    with pytest.raises(ValueError, match=r"shard.tar is no tar file that can be read: (it is cut off|unexpected end)"):
        explain(str(tmp_path / "shard.tar"), tmp_path / "maps")
    assert not (tmp_path / "maps").exists()


def test_the_column_of_pictures_is_one_that_may_hold_them(folder: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    path = folder / "cat" / "001.png"
    columns = {"image": ["cat/001.png"], "bytes": [path.read_bytes()]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "rows.parquet")
    assert explain(str(tmp_path / "rows.parquet"), tmp_path / "maps")["error"].tolist() == [""]
    parquet.write_table(pyarrow.table({"image": ["cat/001.png"]}), tmp_path / "rows.parquet")
    with pytest.raises(ValueError, match=r"no column image .*but image \(string\): for paths write a list"):
        explain(str(tmp_path / "rows.parquet"), tmp_path / "other")


def test_links_of_a_glob(folder: Path, tmp_path: Path) -> None:
    (folder / "folder").symlink_to(folder / "cat")
    (folder / "nothing").symlink_to(folder / "gone")
    (folder / "picture").symlink_to(folder / "cat" / "001.png")
    (folder / "zeros").symlink_to("/dev/zero")  # which never ends
    found = explain(str(folder / "*"), tmp_path / "maps")
    assert found["file"].tolist() == ["nothing", "picture", "zeros"]
    expected = ["The file is a link that leads nowhere.", "", "It is a device or a pipe, and no file."]
    assert found["error"].tolist() == expected
    found = explain(str(folder / "**" / "**" / "*.png"), tmp_path / "others")
    assert len(found["file"]) == len(set(found["file"].tolist())) == 14


def test_entries_of_a_list_that_are_no_files(folder: Path, tmp_path: Path) -> None:
    names = ["pictures/cat/001.png", "pictures/dog", "x" * 5000]
    (folder / "dog").mkdir()
    (tmp_path / "list.txt").write_text("\n".join(names), encoding="utf-8-sig")  # with the mark of spreadsheets
    found = explain(str(tmp_path / "list.txt"), tmp_path / "maps")
    assert found["error"].tolist() == ["", "It is a folder, and no file.", "The list names a file that is not there."]


def test_files_of_a_list_that_are_not_there_are_listed(folder: Path, tmp_path: Path, remote: str) -> None:
    upload(folder, f"{remote}/pictures")
    names = ["cat/001.png", "cat/gone.png", "cat/003.png"]
    system = fsspec.filesystem("memory")
    for root in (str(tmp_path), remote):
        for ending, rows in (("txt", ""), ("csv", "path,bytes,modified\n")):
            lines = [f"pictures/{name},7,today" if rows else f"pictures/{name}" for name in names]
            content = rows + "\n".join(lines)
            (tmp_path / f"list.{ending}").write_text(content)
            system.pipe_file(f"{remote}/list.{ending}", content.encode())
            out = tmp_path / f"{ending} of {root.partition(':')[0].rpartition('/')[2]}"
            found = explain(f"{root}/list.{ending}", out)
            assert found["error"].tolist() == ["", "The list names a file that is not there.", ""]


def test_disk_that_is_missing_is_no_missing_file(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("pictures/cat/001.png\nshare/1.png\n")
    with pytest.raises(FileNotFoundError, match="its folder is not there either"):
        explain(str(tmp_path / "list.txt"), tmp_path / "maps")
    (tmp_path / "list.csv").write_text("path,modified\npictures/cat/001.png,today\nshare/1.png,today\n")
    with pytest.raises(FileNotFoundError, match="its folder is not there either"):
        explain(str(tmp_path / "list.csv"), tmp_path / "maps")
    assert not arrays(tmp_path / "maps")["finished"].any()


def test_other_things_are_no_sources(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("datasets", minversion="2")
    with pytest.raises(ValueError, match="a int is no source of pictures"):
        explain(3, tmp_path / "maps")
    with pytest.raises(FileNotFoundError):
        explain(str(folder / "*.tar"), tmp_path / "maps")


def test_labels_of_spreadsheets(folder: Path, tmp_path: Path) -> None:
    """With spaces behind commas, names in capitals, numbers of classes as fractions, and some missing."""
    files = sorted((folder / "cat").glob("00*.png"))[:3]
    rows = [f"{file}, {label}" for file, label in zip(files, ("2.0", "", "0.0"), strict=True)]
    (tmp_path / "list.csv").write_text("\n".join(["Path, Label", *rows]))
    found = explain(str(tmp_path / "list.csv"), tmp_path / "maps", "label")
    assert found["target"].tolist() == [2, -1, 0]
    assert found["error"][1].startswith("Its label is not known: the source names none")
    table = pyarrow.table({"image": [file.read_bytes() for file in files], "label": [2.0, float("nan"), 0.0]})
    pytest.importorskip("pyarrow.parquet").write_table(table, tmp_path / "rows.parquet")
    assert explain(str(tmp_path / "rows.parquet"), tmp_path / "rows", "label")["target"].tolist() == [2, -1, 0]


def test_a_name_that_a_list_holds_twice(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(f"{folder}/cat/001.png\n" * 2)
    assert len(explain(str(tmp_path / "list.txt"), tmp_path / "maps")["file"]) == 2
    (tmp_path / "list.txt").write_text(f"{folder}/cat/001.png\n")
    with pytest.raises(ValueError, match="was begun with other files: 2 instead of 1, of the same names"):
        explain(str(tmp_path / "list.txt"), tmp_path / "maps")


def test_labels_are_asked_for_before_anything_is_written() -> None:
    with pytest.raises(ValueError, match="the label zebra is called like none of the 5 classes"):
        Labels([Record("1", None, label="zebra")], CLASSES, 5)


def test_batch_of_bytes_becomes_rows(folder: Path) -> None:
    explain = Explain(network(), "gradient")
    paths = [folder / "cat" / "001.png", folder / "cat" / "text.jpg"]
    batch = {"id": [path.name for path in paths], "bytes": [path.read_bytes() for path in paths]}
    rows = explain(batch)
    assert rows["id"].tolist() == ["001.png", "text.jpg"]
    assert rows["map"].shape == (2, 3, 9, 9)
    assert rows["error"][0] == ""
    assert "not a picture" in rows["error"][1]
    assert np.isnan(rows["map"][1]).all()
    with pytest.raises(ValueError, match="needs the labels"):
        Explain(network(), "gradient", "label")(batch)
