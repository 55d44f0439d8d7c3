"""Pictures and maps in S3, as a server on this machine speaks it: the same rows as in a folder, also after a kill."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from time import sleep
from typing import Any

import numpy as np
import pytest
from support.picture_folders import fill

from plugin.datasets import Report, attribute_dataset

NETWORK = "support.picture_folders:network"
fsspec = pytest.importorskip("fsspec")
s3fs = pytest.importorskip("s3fs")
boto3 = pytest.importorskip("boto3")
moto = pytest.importorskip("moto.server")


@pytest.fixture(scope="module")
def variables() -> Iterator[dict[str, str]]:
    """Environment variables that point to a server with an empty bucket."""
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    yield dict.fromkeys(names, "test") | {
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
    }
    server.stop()


@pytest.fixture
def system(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """A file system with a bucket that holds sixty pictures, of which four are bad."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    system = fsspec.filesystem("s3")
    system.mkdir("bucket")
    folder = fill(tmp_path / "pictures", 56)
    for path in folder.glob("*/*"):
        system.pipe_file(f"bucket/photos/{path.relative_to(folder).as_posix()}", path.read_bytes())
    yield system
    system.rm("bucket", recursive=True)


def explain(source: str | Path, out: str | Path, **options: Any) -> Report:
    """Explain pictures in blocks of two."""
    given = {"block_rows": 2, "batch_size": 2, "device": "cpu", "progress": False} | options
    return attribute_dataset(NETWORK, "gradient", source, out, **given)


@pytest.mark.parametrize(
    ("ending", "blocks"), [("parquet", "maps.parquet/block-*"), ("zarr", "maps.zarr/finished/c/*")]
)
def test_killed_run_goes_on_in_a_bucket(ending: str, blocks: str, system: Any, tmp_path: Path) -> None:
    out = f"s3://bucket/maps.{ending}"
    command = [sys.executable, "-m", "plugin", "attribute", "--model", NETWORK, "--method", "gradient"]
    command += ["--data", "s3://bucket/photos", "--out", out, "--block-rows", "2", "--batch-size", "2"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([*command, "--device", "cpu"], env=environment, stderr=subprocess.DEVNULL)

    def finished() -> list[str]:
        system.invalidate_cache()
        return sorted(system.glob(f"bucket/{blocks}"))

    while len(finished()) < 3:
        assert process.poll() is None
        sleep(0.02)
    process.kill()
    process.wait()
    kept = {name: system.info(name)["LastModified"] for name in finished()}
    report = explain("s3://bucket/photos", out)
    assert (report.maps, len(report.skipped), report.left, report.found) == (56, 4, 0, 2 * len(kept))
    assert {name: system.info(name)["LastModified"] for name in kept} == kept, "a finished block was computed again"
    assert explain("s3://bucket/photos", out).found == 60
    explain(tmp_path / "pictures", tmp_path / f"here.{ending}")
    found, expected = maps_of(out), maps_of(str(tmp_path / f"here.{ending}"))
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-5, atol=1e-7, err_msg=name)


def maps_of(out: str) -> dict[str, Any]:
    """Every map, by the name of its picture."""
    if out.endswith(".parquet"):
        dataset = pytest.importorskip("pyarrow.dataset")
        system, path = fsspec.core.url_to_fs(out)
        table = dataset.dataset(path, filesystem=system).to_table()
        names, maps = table["id"].to_pylist(), table["map"].combine_chunks().to_numpy_ndarray()
    else:
        group = pytest.importorskip("zarr").open_group(out, mode="r")
        names, maps = group["file"][:].tolist(), group["maps"][:]
    return dict(zip(names, maps, strict=True))


def test_storage_that_refuses_is_a_failing_disk(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    nothing = str(tmp_path / "nothing")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, nothing)
    for name in variables:
        monkeypatch.delenv(name, raising=False)
    s3fs.S3FileSystem.clear_instance_cache()
    folder = fill(tmp_path / "pictures", 2)
    pairs = [("s3://bucket/photos", nothing), (folder, "s3://bucket/maps.zarr"), (folder, "s3://bucket/maps.parquet")]
    for source, out in pairs:
        with pytest.raises(OSError, match=r"object storage fails \(botocore: Unable to locate credentials\): check"):
            explain(source, out)
    s3fs.S3FileSystem.clear_instance_cache()


def test_changed_object_is_refused(system: Any, tmp_path: Path) -> None:
    explain("s3://bucket/photos/cat/*.png", "s3://bucket/mean", keep="mean")
    with np.load(system.open("bucket/mean/_summary.npz")) as found:
        assert found["count"].tolist() == [28]
    before = system.cat_file("bucket/photos/cat/001.png")
    system.pipe_file("bucket/photos/cat/001.png", before[:-1] + b"!")
    with pytest.raises(ValueError, match=r"001\.png is changed"):
        explain("s3://bucket/photos/cat/*.png", "s3://bucket/mean", keep="mean")
