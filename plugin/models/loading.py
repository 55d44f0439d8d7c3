"""Loading of networks for attribution: bundled, torchvision's, or the user's own."""

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast
from urllib.error import URLError

import torch
from PIL import Image
from torch import Tensor, nn

from . import hugging_face
from .checkpoints import load_weights, read_metadata
from .exported_programs import ENDING, open_program
from .networks import NETWORKS, known_names
from .preprocessing import IMAGENET_PREPROCESSING, Preprocessing
from .state_dicts import NO_STATE_DICT, differing_classes, fitted, guess, of_version, state_dicts
from .tensor_files import read_tensors
from .timm_networks import PREFIX as TIMM
from .timm_networks import build, described


class WeightsUnavailable(RuntimeError):
    """There are no weights on this machine, and none can be downloaded now.

    >>> from plugin.models import WeightsUnavailable
    >>> issubclass(WeightsUnavailable, RuntimeError)
    True
    """


class OtherArchitecture(ValueError):
    """A checkpoint holds another network of torchvision's than the one it was given for.

    Attributes:
        architecture: its name.
        classes: how many classes it has.

    >>> from pathlib import Path
    >>> from tempfile import mkdtemp
    >>> import torch
    >>> from plugin import models
    >>> path = Path(mkdtemp(), "mine.pt")
    >>> torch.save(models.load("resnet18", weights=None).network.state_dict(), path)
    >>> try:
    ...     models.load("resnet34", checkpoint=path)
    ... except models.OtherArchitecture as error:
    ...     print(error.architecture, error.classes)
    resnet18 1000
    """

    def __init__(self, message: str, architecture: str, classes: int) -> None:
        super().__init__(message)
        self.architecture, self.classes = architecture, classes


@dataclass(frozen=True)
class LoadedModel:
    """A network in eval mode, with its preprocessing and its class names.

    Attributes:
        name: the name that `load` was given.
        network: logits `(N, classes)` of normalised images `(N, 3, H, W)`.
        preprocessing: from a picture to the input.
        classes: the name of each output.
        metadata: facts about the weights (data, seed, epochs, accuracy ...); may be empty.

    >>> from plugin import models
    >>> model = models.load("all-cnn-c")
    >>> model.classes[int(model.network(model.preprocess(models.sample_images()["cat"])).argmax())]
    'cat'
    """

    name: str
    network: nn.Module
    preprocessing: Preprocessing
    classes: tuple[str, ...]
    metadata: dict[str, Any] = field(default_factory=dict)

    def preprocess(self, image: Image.Image) -> Tensor:
        """The input `(1, 3, H, W)`.

        Args:
            image: a picture of any size and mode.
        """
        return self.preprocessing(image)

    def visible(self, image: Image.Image) -> Image.Image:
        """The part of a picture that the network sees, at the network's resolution.

        Args:
            image: a picture of any size and mode.
        """
        return self.preprocessing.visible(image)


def load(
    model: str | Path | nn.Module,
    weights: str | None = "DEFAULT",
    checkpoint: str | Path | None = None,
    classes: Sequence[str] | None = None,
    preprocessing: Preprocessing | None = None,
) -> LoadedModel:
    """Load a network for attribution.

    Args:
        model: a name of `known_names()`, the name of a torchvision classification model, `timm/` and the name of a
            network of timm's, which needs a checkpoint, `hf-hub:` and the name of a network on the Hugging Face Hub,
            `local-dir:` and a folder that `save_pretrained` has written, a module of your own, which is put in eval
            mode, or the path of a program of `torch.export` (`.pt2`). Such a program can run code: open only files that
            you trust. Of a network of the Hub or of a folder only JSON and safetensors are read.
        weights: torchvision weights; downloaded unless cached. None leaves a model at its random start.
        checkpoint: weights to load instead: a `.safetensors` file, or one of `torch.save`, such as a state dict, a
            checkpoint of a training program (Lightning's, torchvision's, timm's; nested, with prefixes, beside an
            optimiser's state) or a whole module. Nothing in it is executed. For a network of torchvision's or timm's
            it may have another number of classes. Of a `.pt2` file the weights are read, and its program is not.
        classes: names of the outputs, if they are not known.
        preprocessing: from pictures to inputs; by default the network's own if it has a name, else ImageNet's.

    Raises:
        ValueError: unknown name, not a classification model, or a checkpoint that does not fit; `OtherArchitecture` if
            it fits another network of torchvision's.
        WeightsUnavailable: there are no weights for this name without `checkpoint`, or they are not cached and cannot
            be downloaded.
        OSError: a file is not there, or may not be read.
        MissingExtraError: the network is timm's or of transformers, which is not installed.

    >>> from torch import nn
    >>> from plugin import models
    >>> models.load("model-c").metadata["accuracy"]  # a network that ships with the package
    0.8804
    >>> models.load("resnet18", weights=None).preprocessing.crop  # one of torchvision's, here without its weights
    224
    >>> models.load(nn.Sequential(nn.Conv2d(3, 2, 3)), classes=("cat", "dog")).classes  # one of your own
    ('cat', 'dog')
    """
    if isinstance(model, nn.Module):
        found = LoadedModel(type(model).__name__, model, IMAGENET_PREPROCESSING, ())
    elif isinstance(model, str) and hugging_face.is_named(model):  # whatever its name ends with
        if checkpoint is not None:
            raise ValueError(f"{model} has weights of its own: leave checkpoint= out, or give the architecture's name")
        found = _from_hugging_face(model)
    elif isinstance(model, Path) or model.endswith(ENDING):
        found = LoadedModel(Path(model).name, open_program(Path(model)), IMAGENET_PREPROCESSING, ())
    elif model in NETWORKS:
        found = _by_name(model, read_weights=checkpoint is None)
    elif checkpoint is not None:
        found = _awaiting_weights(model)
    else:
        found = _from_timm(model, weights) if model.startswith(TIMM) else _from_torchvision(model, weights)
    if checkpoint is not None:
        found = _with_checkpoint(found, Path(checkpoint), isinstance(model, str) and model not in NETWORKS)
    with suppress(NotImplementedError):  # a program of torch.export has no modes
        found.network.eval()
    return LoadedModel(
        found.name,
        found.network,
        preprocessing or found.preprocessing,
        tuple(classes or found.classes),
        found.metadata if checkpoint is None else {"checkpoint": str(checkpoint)},
    )


def _by_name(name: str, read_weights: bool) -> LoadedModel:
    known = NETWORKS[name]
    network = known.build(classes=len(known.classes)).requires_grad_(False)
    if not read_weights:
        return LoadedModel(name, network, known.preprocessing, known.classes)
    if known.weights is None:
        raise WeightsUnavailable(
            f"{name} ships without weights: train it (python -m plugin.models.train {name}), and pass checkpoint= with "
            "the file that this writes"
        )
    network.load_state_dict(load_weights(known.weights))
    return LoadedModel(name, network, known.preprocessing, known.classes, read_metadata(known.weights))


def preprocessing_of(name: str) -> Preprocessing:
    """The preprocessing of a network that `load` knows by name; its weights are not needed.

    Args:
        name: as `load` takes it.

    Raises:
        ValueError: unknown name, or not a classification model.

    >>> from plugin import models
    >>> models.preprocessing_of("vgg16").crop
    224
    """
    return NETWORKS[name].preprocessing if name in NETWORKS else _described(name)[0]


def _described(name: str) -> tuple[Preprocessing, tuple[str, ...]]:
    """The preprocessing and the classes of a network of torchvision's or timm's."""
    if name.startswith(TIMM):
        return described(name)
    weights = _weights_of(name)["DEFAULT"]
    return _preprocessing(name, weights), tuple(weights.meta["categories"])


def _weights_of(name: str) -> Any:
    """Torchvision's weights of a network, by their names."""
    from torchvision.models import get_model_weights

    try:
        return get_model_weights(name)
    except ValueError as error:
        known = ", ".join(known_names())
        of_file = "; the file of its weights is checkpoint=" if Path(name).suffix else ""
        raise ValueError(
            f"unknown network {name!r}: give one of {known}, a torchvision model's name, or {TIMM} and one of timm's"
            f"{of_file}"
        ) from error


def _preprocessing(name: str, described: Any) -> Preprocessing:
    """The preprocessing that torchvision's weights need."""
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms._presets import ImageClassification

    transform = described.transforms()
    if not isinstance(transform, ImageClassification):
        raise ValueError(f"{name} is not an image classification network")
    bicubic = transform.interpolation == InterpolationMode.BICUBIC
    return Preprocessing(
        transform.resize_size[0],
        transform.crop_size[0],
        tuple(transform.mean),
        tuple(transform.std),
        Image.Resampling.BICUBIC if bicubic else Image.Resampling.BILINEAR,
    )


def _from_torchvision(name: str, weights: str | None) -> LoadedModel:
    from torchvision import models

    choices = _weights_of(name)
    try:
        chosen = choices[weights] if weights is not None else None
    except KeyError as error:
        available = ", ".join(choices.__members__)
        raise ValueError(f"{name} has no weights {weights!r}: choose among {available}") from error
    described = chosen or choices["DEFAULT"]
    steps = _preprocessing(name, described)
    try:
        network = models.get_model(name, weights=chosen)
    except (URLError, OSError) as error:
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        raise WeightsUnavailable(
            f"the weights of {name} are not in {folder} and cannot be downloaded ({error}): "
            "connect once, or pass checkpoint= with a file of yours"
        ) from error
    metadata = {"weights": str(chosen)} if chosen else {}
    return LoadedModel(name, network.requires_grad_(False), steps, tuple(described.meta["categories"]), metadata)


def _from_timm(name: str, weights: str | None) -> LoadedModel:
    """A network of timm's at its random start, if that is asked for."""
    steps, classes = described(name)
    if weights is not None:
        raise WeightsUnavailable(
            f"{name} has no weights here, and none are downloaded: pass checkpoint= with a file, such as the "
            "model.safetensors of its page on the Hugging Face Hub"
        )
    return LoadedModel(name, build(name).requires_grad_(False), steps, classes)


def _from_hugging_face(name: str) -> LoadedModel:
    """A network of the Hub, which is downloaded unless it is cached, or of a folder."""
    folder = hugging_face.cached(name)
    if folder is None:
        try:
            folder = hugging_face.download(name)
        except Exception as error:  # of any of the libraries beneath
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise WeightsUnavailable(f"{name} is not on this machine and cannot be downloaded ({reason})") from error
    saved = hugging_face.read_folder(folder)
    path = folder / hugging_face.WEIGHTS
    if saved.timm:
        network = _with_checkpoint(_awaiting_weights(f"{TIMM}{saved.timm}"), path, is_of_library=True).network
    else:
        network = hugging_face.build(saved, read_tensors(path))
        _check_finite(network, path)
    return LoadedModel(name, network, saved.preprocessing, saved.classes, {"folder": str(folder)})


def _awaiting_weights(name: str) -> LoadedModel:
    """A network of torchvision's or timm's for the weights of a file."""
    steps, classes = _described(name)
    return LoadedModel(name, _without_values(name), steps, classes)


def _without_values(name: str, **options: Any) -> nn.Module:
    """A network of theirs whose values are arbitrary: drawing random ones takes seconds where there are many."""
    if name.startswith(TIMM):  # which has values that no file holds, such as the positions in Swin's windows
        return build(name, **options).requires_grad_(False)
    from torchvision.models import get_model

    try:
        with torch.device("meta"):
            network: nn.Module = get_model(name, weights=None, **options)
    except NotImplementedError:  # it computes with its values while it is built
        return cast(nn.Module, get_model(name, weights=None, **options)).requires_grad_(False)
    network = network.to_empty(device="cpu").requires_grad_(False)
    for buffer in network.buffers():
        buffer.zero_()  # files without the counters of batch norm are common
    return network


def _with_checkpoint(found: LoadedModel, path: Path, is_of_library: bool) -> LoadedModel:
    """The network with the weights of a file, for the number of classes in the file."""
    candidates = state_dicts(read_tensors(path))
    if not candidates:
        raise ValueError(f"the checkpoint {path.name} {NO_STATE_DICT}")
    weights = fitted(candidates, found.network)
    count = differing_classes(weights, found.network) if weights is not None and is_of_library else None
    if count is not None:
        found = replace(found, network=_without_values(found.name, num_classes=count), classes=())
    try:
        found.network.load_state_dict(of_version(candidates[0] if weights is None else weights, found.network))
    except RuntimeError as error:
        raise _unfit(found.name, path, candidates, error) from error
    _check_finite(found.network, path)
    return found


def _check_finite(network: nn.Module, path: Path) -> None:
    # Not a number is both the smallest and the largest value.
    ends = (end for parameter in network.parameters() if parameter.numel() for end in parameter.detach().aminmax())
    if not all(map(math.isfinite, ends)):
        raise ValueError(f"the checkpoint {path.name} holds weights that are not finite")


def _unfit(name: str, path: Path, candidates: list[dict[str, Tensor]], error: RuntimeError) -> ValueError:
    """The error for weights that are not those of a network."""
    start = f"the checkpoint {path.name} does not fit {name}: "
    architecture, classes = next(filter(None, map(guess, candidates)), (name, 0))
    if architecture != name:
        return OtherArchitecture(
            f"{start}it holds a {architecture} with {classes} classes: load that", architecture, classes
        )
    if path.suffix == ENDING:
        return ValueError(
            f"{start}if you trust the file, open its program with models.load({path.name!r}), or start the explorer "
            f"with --model {path.name}"
        )
    reason = str(error).splitlines()[-1].strip().rstrip(".")
    reason = reason if len(reason) < 200 else reason[:200] + " ..."
    return ValueError(
        f"{start}{reason}: give your own module to models.load, with the checkpoint, or start the explorer with "
        "--model package.module:function, which returns that"
    )
