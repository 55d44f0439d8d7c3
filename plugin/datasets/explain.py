"""The computation of maps, and of everything that is stored with them, from the bytes of pictures."""

import inspect
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from ..attr import LRPTranspose
from ..attr.methods import METHODS
from ..devices import choose_device, is_out_of_memory, on_device
from ..heads import LOGITS, find_head, probabilities
from ..models import LoadedModel, Preprocessing, hugging_face, load
from ..models.pictures import decode
from ..observing import find_layer
from ..rules.presets import epsilon_gamma_box
from ..seeds import global_states
from .code_version import code_sha256
from .network_identity import MEASURED, fingerprint, noise, structure_sha256, weights_sha256
from .selection import Selection, checked_target

# Packages on whose versions the numbers depend.
_PACKAGES = ("captum-simplicity", "captum", "torch", "torchvision", "pillow")
# Room for the largest picture that is decoded, uncompressed with 16 bits per channel.
MAX_FILE_BYTES = 256 * 2**20

Rows: TypeAlias = dict[str, NDArray[Any]]


def load_model(model: str | nn.Module | LoadedModel, checkpoint: str | Path | None = None) -> LoadedModel:
    """A network by name or as it is.

    Args:
        model: a name that `plugin.models.load` knows; `package.module:factory`, a function without arguments that
            returns a module or a `LoadedModel`; or one of these two.
        checkpoint: weights to load instead of its own.

    Raises:
        ValueError: there is no such network or factory, or the checkpoint does not fit.
    """
    name = ""
    if isinstance(model, str) and ":" in model and not hugging_face.is_named(model):
        name, model = model, _call_factory(model)
    if not isinstance(model, LoadedModel):
        model = load(model, checkpoint=checkpoint)
    elif checkpoint is not None:
        loaded = load(model.network, checkpoint=checkpoint)
        model = replace(model, network=loaded.network, metadata=loaded.metadata)
    return replace(model, name=name or model.name)


def _call_factory(specification: str) -> nn.Module | LoadedModel:
    module, _, name = specification.partition(":")
    if module.endswith(".py") or "/" in module:
        stem = Path(module).stem
        raise ValueError(f"{specification} names a file: give {stem}:{name}, in the folder that holds {stem}.py")
    try:
        factory = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ValueError(f"there is no {specification}: {error}") from error
    try:
        inspect.signature(factory).bind()
    except (TypeError, ValueError) as error:
        raise ValueError(f"{specification} is no function without arguments ({error}): give one that is") from error
    made = factory()
    if not isinstance(made, nn.Module | LoadedModel):
        raise ValueError(
            f"{specification} returned a {type(made).__name__}: it must return an nn.Module or LoadedModel"
        )
    return made


def pixels_of(data: bytes, preprocessing: Preprocessing) -> NDArray[np.uint8] | str:
    """The pixels `(H, W, C)` that a network sees of a picture, or one sentence where there are none."""
    try:
        return preprocessing.pixels(decode(data, MAX_FILE_BYTES))
    except ValueError as error:
        return str(error)


class Explain:
    """Explains batches of pictures; made once for a process, since it loads the network.

    Attributes:
        model: the network with its preprocessing and classes.
        settings: JSON values that decide every number.
        row_shapes: shapes of a row of `map` and of `logits`.
        seconds: how long `forward` and `backward` took so far.

    >>> import io
    >>> from plugin import models
    >>> from plugin.datasets import Explain
    >>> file = io.BytesIO()
    >>> models.sample_images()["cat"].save(file, "PNG")
    >>> explain = Explain("model-c", "guided-backprop", device="cpu")
    >>> rows = explain({"id": ["cat.png", "notes.txt"], "bytes": [file.getvalue(), b"no picture"]})
    >>> rows["map"].shape
    (2, 3, 32, 32)
    >>> rows["error"][1]
    'The file is not a picture that can be read (PNG, JPEG, WEBP, GIF, BMP, TIFF, PPM).'
    """

    def __init__(
        self,
        model: str | nn.Module | LoadedModel,
        method: str,
        target: str | int = "predicted",
        *,
        checkpoint: str | Path | None = None,
        layer: str | None = None,
        dtype: str = "float32",
        device: str | None = None,
    ) -> None:
        """
        Args:
            model: the network, or its name; see `load_model`. If it lies on another device, a copy is explained.
            method: a key of `METHODS`.
            target: the output to explain: "predicted", "label" (which comes with the pictures), or its number.
            checkpoint: weights to load instead of the model's own.
            layer: for methods that look at a layer, its name.
            dtype: of the maps, "float32" or "float16".
            device: where to compute; by default a GPU if there is one.

        Raises:
            ValueError: an argument is none of these, or the method has no answer for this network.
        """
        if method not in METHODS:
            raise ValueError(f"unknown method {method!r}: choose among {', '.join(METHODS)}")
        target = checked_target(target)
        if dtype not in ("float32", "float16"):
            raise ValueError(f"unknown dtype {dtype!r}: choose 'float32' or 'float16'")
        self.method, self.target, self.layer, self.dtype = METHODS[method], target, layer, dtype
        if self.method.needs_layer == (layer is None):
            needs = "needs a layer: name one of the last convolutions" if layer is None else "takes no layer"
            raise ValueError(f"{method} {needs}")
        self.device = choose_device(device)  # before a network is downloaded
        loaded = load_model(model, checkpoint)
        self.model = replace(loaded, network=on_device(loaded.network, self.device))
        weights = (weight.dtype for weight in self.model.network.parameters() if weight.is_floating_point())
        self._type = next(weights, torch.float32)
        self._attribution = self._construct()
        self.settings: dict[str, Any] = {
            "model": self.model.name,
            "weights_sha256": weights_sha256(self.model.network),
            "structure_sha256": structure_sha256(self.model.network),
            "code_sha256": code_sha256(self.model.network, self.model.name),
            "method": method,
            "layer": layer or "",
            "target": target,
            "dtype": dtype,
            "preprocessing": _as_json(self.model.preprocessing),
            "versions": {package: version(package) for package in _PACKAGES},
        }
        self.seconds = dict.fromkeys(("forward", "backward"), 0.0)
        self._probe(method)

    def _construct(self) -> Any:
        arguments: dict[str, Any] = dict(self.method.construct)
        if self.method.preset == epsilon_gamma_box.__name__:
            arguments["rules"] = epsilon_gamma_box(*self.model.preprocessing.input_range)
        elif self.method.preset:
            arguments["rules"] = self.method.preset
        layer = [] if self.layer is None else [find_layer(self.model.network, self.layer)]
        return self.method.attribution_class(neuron=False)(self.model.network, *layer, **arguments)

    def _probe(self, method: str) -> None:
        """Two test pictures, a grey one and noise, show before anything is written whether the method has an answer.

        The outputs for the second one are kept, to recognise the network.
        """
        grey = self.model.preprocessing.pixels(Image.new("RGB", (64, 64), "grey"))
        try:
            if isinstance(self._attribution, LRPTranspose):  # names all operations without a rule, not only the first
                self._attribution.check(self._inputs(grey[np.newaxis]).detach()).require()
            self._head = self._find_head(grey)
            rows = self.explain_pixels(self.model.preprocessing.pixels(noise())[np.newaxis], [0])
        except Exception as error:  # any network may fail in a way of its own
            if is_out_of_memory(error):
                raise
            reason = next(iter(str(error).splitlines()), type(error).__name__).rstrip(".")
            raise ValueError(f"{method} has no answer for {self.model.name}: {reason}") from error
        self.row_shapes = {name: rows[name].shape[1:] for name in ("map", "logits")}
        self.settings[MEASURED] = [] if self._draws else fingerprint(rows["logits"])

    def _find_head(self, grey: NDArray[np.uint8]) -> str:
        """The kind of the network's outputs, one of `plugin.heads.HEADS`."""
        before = global_states(self.device)
        with torch.enable_grad():
            outputs = self.model.network(self._inputs(grey[np.newaxis]).clone())  # which the network may overwrite
        self._draws = not all(map(torch.equal, before, global_states(self.device)))
        if self._draws:
            warnings.warn(
                f"{self.model.name} draws random numbers in its forward pass: its maps differ from run to run; look "
                "for dropout that is always on",
                stacklevel=5,
            )
        if not isinstance(outputs, Tensor):
            raise ValueError(
                f"its output is a {type(outputs).__name__}, and must be a tensor (N, classes): give a network around "
                "it that returns its logits alone"
            )
        if not bool(outputs.isfinite().all()):
            raise ValueError("its outputs for a grey picture are NaN or infinite: check its weights")
        head = find_head(outputs)
        if head is None:
            warnings.warn(
                f"the outputs of {self.model.name} lie in [0, 1] and are taken as logits, so that `probability` is "
                "their softmax: if they are probabilities, let the network end in torch.sigmoid or softmax",
                stacklevel=5,
            )
        return head or LOGITS

    def _inputs(self, pixels: NDArray[np.uint8]) -> Tensor:
        """The network's inputs for pixels `(n, H, W, C)`, in the number type of its weights."""
        inputs = self.model.preprocessing.normalised(torch.from_numpy(pixels).to(self.device))
        return inputs.to(self._type).requires_grad_()  # Captum warns of inputs without this mark

    def __call__(self, batch: Mapping[str, Sequence[Any] | NDArray[Any]]) -> Rows:
        """Explain pictures as they are stored; a picture that cannot be explained is a row with an error.

        Args:
            batch: `bytes`, the content of n files; `id`, n names; for the target "label" also `label`, n numbers.

        Returns:
            Arrays with n rows: `id`, `map` `(n, C, H, W)`, `logits` `(n, classes)`, `target`, `predicted`,
            `probability`, `error`. A map is NaN where there is an error.
        """
        pictures = [pixels_of(data, self.model.preprocessing) for data in batch["bytes"]]
        return {"id": np.asarray(batch["id"], object)} | self.explain_pictures(pictures, batch.get("label"))

    def explain_pictures(
        self,
        pictures: Sequence[NDArray[np.uint8] | str],
        labels: Sequence[Any] | NDArray[Any] | None = None,
        at_once: int | None = None,
    ) -> Rows:
        """Explain decoded pictures.

        Args:
            pictures: results of `pixels_of`: pixels, or the reason why there are none.
            labels: the class of each, for the target "label"; negative where it is not known.
            at_once: how many are explained in one pass; by default all.

        Returns:
            The N rows by column, the maps among them `(N, C, H, W)`.

        Raises:
            ValueError: the target is "label", and there are no labels.
        """
        errors = [picture if isinstance(picture, str) else "" for picture in pictures]
        if self.target == "label":
            if labels is None:
                raise ValueError(
                    "target='label' needs the labels of the pictures: name the class of each, or choose 'predicted'"
                )
            unlabelled = "Its label is not known: the source names none, and it lies in no class folder."
            errors = [error or (unlabelled if label < 0 else "") for error, label in zip(errors, labels, strict=True)]
        rows = self.blank(len(pictures))
        rows["error"][:] = errors
        readable = [row for row, error in enumerate(errors) if not error]
        for first in range(0, len(readable), at_once or max(1, len(readable))):
            chosen = readable[first : first + at_once] if at_once else readable
            some = None if labels is None else [int(labels[row]) for row in chosen]
            for name, values in self.explain_pixels(np.stack([pictures[row] for row in chosen]), some).items():
                rows[name][chosen] = values
        return rows

    def blank(self, count: int) -> Rows:
        """Rows of pictures that are not explained.

        Args:
            count: the number of rows.
        """
        return {
            "map": np.full((count, *self.row_shapes["map"]), np.nan, self.dtype),
            "logits": np.full((count, *self.row_shapes["logits"]), np.nan, np.float32),
            "target": np.full(count, -1, np.int64),
            "predicted": np.full(count, -1, np.int64),
            "probability": np.full(count, np.nan, np.float32),
            "error": np.full(count, "", object),
        }

    def explain_pixels(self, pixels: NDArray[np.uint8], labels: Sequence[int] | None) -> Rows:
        """Explain pictures in one forward and one backward pass.

        Args:
            pixels: the pixels that the network sees, `(n, H, W, C)`.
            labels: the class of each, for the target "label".

        Returns:
            Arrays with n rows, without `id`. A map or an explained output that is not finite gives an error, and a map
            that is NaN throughout.
        """
        started = perf_counter()
        inputs = self._inputs(pixels)
        selection = Selection(self.target, labels)
        maps = self._attribution.attribute(inputs, target=selection, **self.method.call)
        logits, target, maps = selection.logits.float(), selection.chosen, maps.to(getattr(torch, self.dtype))
        explained = maps.flatten(1).isfinite().all(1)
        maps[~(explained & selection.finite)] = torch.nan
        columns = {
            "map": maps,
            "logits": logits,
            "target": target,
            "predicted": logits.argmax(1),
            "probability": probabilities(self._head, logits).gather(1, target.unsqueeze(1)).squeeze(1),
        }
        reasons = {
            f"The map holds values that {self.dtype} cannot.": explained,
            "The output to explain is NaN or infinite.": selection.finite,
        }
        error = np.full(len(maps), "", object)
        for reason, fine in reasons.items():
            error[~fine.cpu().numpy()] = reason
        rows = {name: column.cpu().numpy() for name, column in columns.items()} | {"error": error}
        self.seconds["forward"] += selection.finished - started
        self.seconds["backward"] += perf_counter() - selection.finished
        return rows


def _as_json(preprocessing: Preprocessing) -> dict[str, Any]:
    return asdict(preprocessing) | {"interpolation": preprocessing.interpolation.name}
