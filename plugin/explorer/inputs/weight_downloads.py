"""Weights of torchvision and of the Hugging Face Hub: those that are missing, and their download."""

import hashlib
import urllib.request
from pathlib import Path
from typing import Any

import torch

from plugin.files import replacing
from plugin.models import hugging_face

from ..server.jobs import Task
from . import offered_networks

_CHUNK = 2**18
_TIMEOUT_SECONDS = 30


def missing(name: str) -> str:
    """One sentence on the files that `offered_networks.open_network` needs downloaded; empty if there are none."""
    if name.startswith(hugging_face.HUB):
        return "" if hugging_face.cached(name) else f"The files of {name} are not on this machine yet."
    if name not in offered_networks.torchvisions() or _target(name).is_file():
        return ""
    size = _weights(name).meta.get("_file_size")
    return f"The weights of {name} are not on this machine yet{f' ({size:.0f} MB)' if size else ''}."


def download(task: Task, name: str) -> None:
    """Fetch the weights of a torchvision network, or a network of the Hugging Face Hub, for a `jobs.Job`.

    The file appears under its name only when it is complete and its digest is the one in its name.

    Raises:
        RuntimeError: it cannot be fetched; the message is one sentence.
    """
    if name.startswith(hugging_face.HUB):
        _download_from_hub(task, name)
        return
    target, url = _target(name), _weights(name).url
    digest, received = hashlib.sha256(), 0
    try:
        with (
            replacing(target) as partial,
            urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS) as response,
            partial.open("wb") as file,
        ):
            total = int(response.headers.get("Content-Length") or 0)
            while chunk := response.read(_CHUNK):
                file.write(chunk)
                digest.update(chunk)
                received += len(chunk)
                task.report(received / total if total else 0.0, f"{received / 2**20:.0f} MB of {name}")
            if received < total or not digest.hexdigest().startswith(_digest_prefix(target)):
                raise RuntimeError(f"The weights of {name} arrived damaged: try again.")
    except OSError as error:
        raise RuntimeError(
            f"The weights of {name} cannot be downloaded ({error.__cause__ or error}): connect to the network, put the "
            f"file {target.name} into {target.parent}, or upload a checkpoint."
        ) from error


def _download_from_hub(task: Task, name: str) -> None:
    task.report(0.0, f"Asking the Hub for {name} …")
    try:
        hugging_face.download(name)
    except Exception as error:  # any error of the libraries beneath
        reason = next(iter(str(error).splitlines()), type(error).__name__).rstrip(".")
        raise RuntimeError(
            f"{name} cannot be downloaded ({reason}): connect to the network, or open a folder with its files."
        ) from error


def _weights(name: str) -> Any:
    from torchvision.models import get_model_weights

    return get_model_weights(name)["DEFAULT"]


def _target(name: str) -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(_weights(name).url).name


def _digest_prefix(path: Path) -> str:
    """Torchvision names files `network-0123abcd.pth`, after the start of their SHA-256."""
    prefix = path.stem.rpartition("-")[2]
    return prefix if len(prefix) == 8 else ""
