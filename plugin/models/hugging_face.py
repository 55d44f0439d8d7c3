"""Networks as Hugging Face's libraries transformers and timm save them: a folder with `config.json` and
`model.safetensors`, for transformers also with `preprocessor_config.json`.

The configuration is read as JSON, the weights as safetensors, and the network is one of the installed library's own.
Code that lies beside them is never imported, and a configuration cannot ask for more memory than its weights take.
"""

import json
import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..extras import require
from .class_name_files import checked_names
from .preprocessing import IMAGENET_PREPROCESSING, Preprocessing

# As timm spells them: the name of a repository on the Hub, and the path of a folder.
HUB, FOLDER = "hf-hub:", "local-dir:"
CONFIGURATION, WEIGHTS, _STEPS = "config.json", "model.safetensors", "preprocessor_config.json"
FILES = (CONFIGURATION, WEIGHTS, _STEPS)
REPOSITORY = r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}(@[\w.-]{1,64})?"
_LONGEST_JSON, _MOST_PIXELS, _MOST_CLASSES = 4 * 2**20, 4096, 100_000
# From this side on, image processors with a `crop_pct` scale to the side itself.
_UNCROPPED = 384
# Operations that make a network, for each tensor of its file, and a few more.
_MOST_OPERATIONS, _MORE = 200, 10_000
_INVENTED = re.compile(r"LABEL_\d+")


def is_named(name: str) -> bool:
    """Whether it names a network of the Hub, or of a folder."""
    return name.startswith((HUB, FOLDER))


@cache
def is_installed() -> bool:
    """Whether a library is here that knows such networks; pages ask at every run, and a search takes milliseconds."""
    return any(find_spec(library) is not None for library in ("transformers", "timm"))


def cached(name: str) -> Path | None:
    """The folder on this machine; None if a network of the Hub was not downloaded.

    Raises:
        MissingExtraError: no library for the Hub is installed.
        ValueError: it is no name.
    """
    if name.startswith(FOLDER):
        return Path(name.removeprefix(FOLDER))
    repository, revision = _repository(name)
    find = _hub(name).try_to_load_from_cache
    found = [find(repository, file, revision=revision) for file in (CONFIGURATION, WEIGHTS)]
    return Path(found[0]).parent if all(isinstance(path, str) for path in found) else None


def download(name: str) -> Path:
    """Fetch the files that are read of a network of the Hub, no others; errors as for `cached`, and the library's."""
    repository, revision = _repository(name)
    return Path(_hub(name).snapshot_download(repository, revision=revision, allow_patterns=[*FILES]))


def _repository(name: str) -> tuple[str, str | None]:
    text = name.removeprefix(HUB)
    if not re.fullmatch(REPOSITORY, text):
        raise ValueError(f"{name} names no network of the Hub: give {HUB}owner/name, or {FOLDER} and a folder")
    repository, _, revision = text.partition("@")
    return repository, revision or None


def _hub(name: str) -> Any:
    return require("huggingface_hub", extra="zoo", purpose=f"the network {name}")


@dataclass(frozen=True)
class Saved:
    """The description of a network by the files of its folder.

    Attributes:
        folder: where it lies.
        facts: its configuration.
        timm: the architecture, if timm has saved it; else empty.
        preprocessing: from pictures to inputs.
        classes: the names of the outputs, if they have names.
    """

    folder: Path
    facts: dict[str, Any]
    timm: str
    preprocessing: Preprocessing
    classes: tuple[str, ...]


def read_folder(folder: Path) -> Saved:
    """Read a folder, but for its weights.

    Raises:
        ValueError: it holds no such network, or one that is not supported; the message names the file and the remedy.
    """
    facts = _json(folder / CONFIGURATION)
    if not (folder / WEIGHTS).is_file():
        raise ValueError(
            f"{folder.name} has no {WEIGHTS}: save the network with save_pretrained, which writes one; no other format "
            "is read"
        )
    if "quantization_config" in facts:
        raise ValueError(f"the network in {folder.name} is quantised: save it as a floating point model")
    if isinstance(facts.get("architecture"), str):
        own = facts.get("pretrained_cfg")
        steps = own if isinstance(own, dict) else {}
        names = facts.get("label_names") or steps.get("label_names")
        steps_of_inputs = _preprocessing(folder / CONFIGURATION, _of_timm, steps)
        return Saved(folder, facts, facts["architecture"], steps_of_inputs, _names(names))
    path = folder / _STEPS
    steps = _json(path) if path.is_file() else {"size": facts.get("image_size", IMAGENET_PREPROCESSING.crop)}
    names = facts.get("id2label")
    in_order = [names.get(str(index)) for index in range(len(names))] if isinstance(names, dict) else None
    return Saved(folder, facts, "", _preprocessing(path, _of_transformers, steps), _names(in_order))


def build(saved: Saved, weights: dict[str, Tensor]) -> nn.Module:
    """The network of transformers that a folder describes, with these weights; it returns logits.

    Raises:
        MissingExtraError: transformers is not installed.
        ValueError: transformers knows no such network for classification, or the weights are not its own.
    """
    library = require("transformers", extra="zoo", purpose=f"the network in {saved.folder.name}")
    kind, count = saved.facts.get("model_type"), saved.facts.get("num_labels", 0)
    start = f"the network in {saved.folder.name}"
    is_known = isinstance(kind, str) and kind in library.CONFIG_MAPPING
    if not is_known or not isinstance(count, int) or count > _MOST_CLASSES:
        raise ValueError(
            f"{start} is of no type that transformers knows, {str(kind)[:80]!r}: open it as your own module"
        )
    with _saying(f"{start} cannot be made from its {CONFIGURATION}"):
        configuration = library.CONFIG_MAPPING[kind].from_dict(saved.facts)
    known = library.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING
    if type(configuration) not in known:
        raise ValueError(f"{start} is a {kind}, which transformers does not have for the classification of images")
    architecture = known[type(configuration)]
    _check_size(start, architecture, configuration, weights)
    with _saying(f"{start} does not fit its {WEIGHTS}"):
        network, report = architecture.from_pretrained(
            None, config=configuration, state_dict=weights, output_loading_info=True
        )
    wrong = [*report["missing_keys"], *report["mismatched_keys"]]
    if wrong:
        raise ValueError(f"{start} does not fit its {WEIGHTS}: of {architecture.__name__} there is no {wrong[0]}")
    return LogitsOf(network.float()).requires_grad_(False)


class LogitsOf(nn.Module):
    """A network of transformers as a function of pixels: its logits `(N, classes)`."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.network(pixel_values=pixels).logits
        return logits


class _Counting(TorchFunctionMode):
    """Ends the making of a network that has far more parts than its file has tensors."""

    def __init__(self, most: int) -> None:
        self.left = most

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.left -= 1
        if self.left < 0:
            raise OverflowError
        return function(*args, **(kwargs or {}))


def _check_size(start: str, architecture: Any, configuration: Any, weights: dict[str, Tensor]) -> None:
    """Refuse a configuration of a larger network than its weights are, before any memory is used for it."""
    held = sum(tensor.numel() for tensor in weights.values())
    with _saying(f"{start} cannot be made from its {CONFIGURATION}"):
        try:
            with torch.device("meta"), _Counting(_MOST_OPERATIONS * len(weights) + _MORE):
                asked = sum(parameter.numel() for parameter in architecture(configuration).parameters())
        except OverflowError:
            asked = held + 1
    if asked > held:
        raise ValueError(f"{start} does not fit its {WEIGHTS}: its {CONFIGURATION} describes a larger network")


@contextmanager
def _saying(start: str) -> Iterator[None]:
    """A context in which any failure becomes a `ValueError` of one sentence: a file may hold anything."""
    try:
        yield
    except Exception as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__).rstrip(".")[:200]
        raise ValueError(f"{start}: {reason}") from error


def _json(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(_LONGEST_JSON + 1)
        content = json.loads(data) if len(data) <= _LONGEST_JSON else None
    except FileNotFoundError as error:
        raise ValueError(
            f"{path.parent.name} has no {path.name}: give a folder that save_pretrained has written"
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path.name} in {path.parent.name} cannot be read: it is no JSON") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path.name} in {path.parent.name} is too long, or no JSON object")
    return content


def _names(names: Any) -> tuple[str, ...]:
    """The names of the classes; none where the library has invented them, or one is missing."""
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        return ()
    if all(_INVENTED.fullmatch(name) for name in islice(names, 2)):
        return ()
    return checked_names(names)


def _preprocessing(path: Path, read: Callable[[dict[str, Any]], Preprocessing], facts: dict[str, Any]) -> Preprocessing:
    """The preprocessing that `read` finds in a file's facts, which may be anything."""
    try:
        found = read(facts)
        numbers = [*found.mean, *found.std]
        fits = 1 <= found.crop <= found.resize <= _MOST_PIXELS and all(map(math.isfinite, numbers))
        fits = fits and len(found.mean) == len(found.std) in (1, 3) and min(found.std) > 0
    except (TypeError, ValueError, KeyError, AttributeError, ZeroDivisionError, OverflowError):
        fits = False
    if not fits:
        raise ValueError(
            f"{path.name} in {path.parent.name} describes inputs that are not supported: open the network as your own "
            "module, with preprocessing="
        )
    return found


def _of_timm(facts: dict[str, Any]) -> Preprocessing:
    """The steps that timm writes beside an architecture."""
    usual = IMAGENET_PREPROCESSING
    side = int(facts.get("input_size", (3, usual.crop, usual.crop))[-1])
    bilinear = facts.get("interpolation", "bilinear") == "bilinear"
    return Preprocessing(
        math.floor(side / (facts.get("crop_pct") or 1)), side, _numbers(facts.get("mean", usual.mean)),
        _numbers(facts.get("std", usual.std)), Image.Resampling.BILINEAR if bilinear else Image.Resampling.BICUBIC,
    )  # fmt: skip


def _of_transformers(facts: dict[str, Any]) -> Preprocessing:
    """The steps of an image processor. Pictures are cropped to a square, and never squeezed into one."""
    if facts.get("do_flip_channel_order") or abs(facts.get("rescale_factor", 1 / 255) * 255 - 1) > 1e-3:
        raise ValueError("blue before red, or pixels that do not end at 1")
    size, share = _side(facts["size"]), facts.get("crop_pct")
    if facts.get("do_center_crop"):
        resize, crop = size, _side(facts["crop_size"])
    else:  # a share is that of networks such as ConvNeXt
        resize, crop = (math.floor(size / share) if share and size < _UNCROPPED else size), size
    usual, normal = IMAGENET_PREPROCESSING, facts.get("do_normalize", True)
    return Preprocessing(
        resize, crop, _numbers(facts.get("image_mean", usual.mean) if normal else (0, 0, 0)),
        _numbers(facts.get("image_std", usual.std) if normal else (1, 1, 1)),
        Image.Resampling(facts.get("resample", Image.Resampling.BILINEAR)),
    )  # fmt: skip


def _side(size: Any) -> int:
    """The side of the square that a size gives in one of its forms."""
    if isinstance(size, dict):
        size = size.get("shortest_edge") or min(size["height"], size["width"])
    return int(min(size) if isinstance(size, list) else size)


def _numbers(values: Any) -> tuple[float, ...]:
    return tuple(float(value) for value in values)
