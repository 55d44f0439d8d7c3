"""Maps in a notebook, by the methods of the pages."""

import html
from collections.abc import Sequence
from dataclasses import dataclass

import plotly.graph_objects as go
import torch
from PIL import Image
from torch import Tensor, nn

from plugin import figures
from plugin.errors import InputTypeError, InputValueError, OptionError
from plugin.heads import LOGITS, OUTPUTS, find_head, probabilities
from plugin.models import LoadedModel
from plugin.models.preprocessing import IMAGENET_PREPROCESSING

from ..choices.offered_methods import METHODS, OF_PICTURES
from ..maps.answers import attribute
from ..maps.questions import Question

_METHODS = ("gradient", "guided-backprop", "lrp-epsilon-plus-flat")


def show(
    model: nn.Module | LoadedModel,
    inputs: Tensor | Image.Image,
    methods: str | Sequence[str] = _METHODS,
    target: int | None = None,
    *,
    layer: str = "",
    classes: Sequence[str] = (),
    opacity: float = 1.0,
    clip_percentile: float = 99.0,
    height: int = 380,
) -> go.Figure:
    """Maps of a class by several methods, as a figure that a notebook displays: a row for each input.

    Args:
        model: a network that returns a number for each class `(N, classes)`, used as it is: call `eval()` before. Or
            the result of `plugin.models.load`, which has the preprocessing of pictures and the names of the classes.
            The range of other inputs, which LRP's rule for the first layer may need, is taken to be ImageNet's.
        inputs: `(N, C, H, W)` or `(C, H, W)`, on the model's device; or a picture, for a `LoadedModel`.
        methods: keys of `plugin.attr.methods.METHODS`, a column each.
        target: the class that is explained; None is the most probable one of each input.
        layer: for a method that looks at a layer, its name.
        classes: their names, for the titles; by default those of a `LoadedModel`.
        opacity: of the maps over the picture, 0 to 1, where a picture is given.
        clip_percentile: percentile of the magnitudes at which the colours of each map end.
        height: of a row in pixels.

    Returns:
        Maps with the channels summed, red where positive. Each has a title (method, class, output of the network,
        probability), and a colour bar that names its quantity.

    Raises:
        InputTypeError: inputs are neither a tensor nor a picture that the model can preprocess.
        InputValueError: they have another shape, or the network does not return a number for each class.
        OptionError: unknown method or target, or a layer is missing.

    >>> from plugin import explorer, models
    >>> model = models.load("all-cnn-c")
    >>> figure = explorer.show(model, models.sample_images()["cat"], ["gradient", "guided-backprop"])
    >>> figure.layout.annotations[0].text
    'Gradient<br>cat: logit 7.97, probability 76 %'
    >>> batch = model.preprocess(models.sample_images()["cat"]).repeat(2, 1, 1, 1)
    >>> len(explorer.show(model.network, batch, "lrp-epsilon", target=3).data)  # a map for each input
    2
    """
    chosen = [methods] if isinstance(methods, str) else list(dict.fromkeys(methods))
    _check(chosen, layer)
    loaded = model if isinstance(model, LoadedModel) else _unnamed(model)
    batch, picture = _batch(model, inputs)
    explained = _explained(loaded, batch, target, classes or loaded.classes)
    rows = []
    for number, one in enumerate(explained):
        maps = {}
        for method in chosen:
            question = Question(method, one.target, layer=layer if METHODS[method].needs_layer else "")
            found = attribute(loaded.network, batch[number : number + 1], question, loaded)
            values = found[0].detach().float().cpu().numpy()
            maps[f"{METHODS[method].label}<br>{one.text}"] = figures.reduce_channels(values)
        rows.append(maps)
    quantities = [METHODS[method].guide.quantity for method in chosen]
    return figures.map_grid(rows, [[picture] * len(chosen)], opacity, clip_percentile, height, quantities)


@dataclass(frozen=True)
class _Explained:
    """The explained class of one input, and its text in a title."""

    target: int
    text: str


def _check(methods: Sequence[str], layer: str) -> None:
    if not methods:
        raise OptionError("methods names no method: give one or more")
    for method in methods:
        if method not in OF_PICTURES:
            raise OptionError(f"unknown method {method!r}: choose among {', '.join(OF_PICTURES)}")
        if METHODS[method].needs_layer and not layer:
            raise OptionError(f"{method} looks at a layer: pass layer=, the name of one of the last convolutions")


def _unnamed(network: nn.Module) -> LoadedModel:
    return LoadedModel(type(network).__name__, network, IMAGENET_PREPROCESSING, ())


def _batch(model: nn.Module | LoadedModel, inputs: Tensor | Image.Image) -> tuple[Tensor, Image.Image | None]:
    """Inputs `(N, C, H, W)`, and the picture that lies beneath their maps."""
    if isinstance(inputs, Image.Image) and isinstance(model, LoadedModel):
        like = next(model.network.parameters(), torch.zeros(()))
        return model.preprocess(inputs).to(like.device), model.visible(inputs)
    if not isinstance(inputs, Tensor):
        remedy = "pass a tensor (N, C, H, W), or plugin.models.load(model) and a picture"
        raise InputTypeError(
            f"inputs of type {type(inputs).__name__} are no inputs of a {type(model).__name__}: {remedy}"
        )
    if inputs.ndim not in (3, 4) or not inputs.numel():
        raise InputValueError(f"inputs of shape {tuple(inputs.shape)} are no pictures: pass (N, C, H, W) or (C, H, W)")
    return (inputs if inputs.ndim == 4 else inputs[None]), None


def _explained(model: LoadedModel, batch: Tensor, target: int | None, classes: Sequence[str]) -> list[_Explained]:
    with torch.enable_grad():  # the graph tells whether they are logits
        outputs = model.network(batch.detach().requires_grad_().clone())
    if not isinstance(outputs, Tensor) or outputs.ndim != 2:
        raise InputValueError(f"the {model.name} must return a number for each class (N, classes)")
    if target is not None and not 0 <= target < outputs.shape[1]:
        raise OptionError(f"target {target} is out of range: the {model.name} has {outputs.shape[1]} classes")
    head = find_head(outputs) or LOGITS
    outputs = outputs.detach().float().cpu()
    shares, called = probabilities(head, outputs), OUTPUTS[head]
    found = []
    for row, returned in enumerate(outputs):
        index = int(returned.argmax()) if target is None else target
        name = html.escape(classes[index], quote=False) if index < len(classes) else f"class {index}"
        value = "" if called == "probability" else f"{called} {float(returned[index]):.3g}, "
        found.append(
            _Explained(index, f"{name}: {value}probability {float(shares[row, index]):.0%}".replace("%", " %"))
        )
    return found
