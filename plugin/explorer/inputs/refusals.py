"""The reasons why a network of the user's own cannot be used, with their remedies."""

import inspect
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from plugin.models import LoadedModel
from plugin.models.exported_programs import ENDING as PROGRAM


class Refused(ValueError):
    """A network cannot be used. The message names the remedy, and begins in the middle of a sentence."""


def require_logits(outputs: Any) -> Tensor:
    """The outputs of a network, if they have a number for each class.

    Raises:
        Refused: they have not.
    """
    if isinstance(outputs, Tensor) and outputs.ndim == 2:
        return outputs
    if isinstance(outputs, Mapping) and outputs:
        found, picked = f"a dictionary with {', '.join(map(repr, outputs))}", f"[{next(iter(outputs))!r}]"
    elif isinstance(outputs, tuple | list) and outputs:
        found, picked = f"a {type(outputs).__name__} of {len(outputs)}", "[0]"
    elif isinstance(outputs, Tensor):
        found = f"a tensor of shape {tuple(outputs.shape)}"
        picked = "[:, None]" if outputs.ndim == 1 else ".mean((2, 3))" if outputs.ndim == 4 else ".flatten(1)"
    else:
        found, picked = type(outputs).__name__, ".logits"
    raise Refused(
        f"it must return logits (N, classes), and returns {found}: give a module whose forward picks them, such as "
        f"network(pictures){picked}"
    )


def reason(name: str, model: LoadedModel, error: Exception, checkpoint: str = "") -> str:
    """The cause and the remedy of an error that a network raised for a picture.

    Args:
        name: the network's, from the command line or from the list of the explorer.
        model: the network.
        error: the error that it raised.
        checkpoint: the name of the file with its weights, if they are the user's own.
    """
    if isinstance(error, Refused):
        return str(error)
    said = next(iter(str(error).splitlines()), type(error).__name__).rstrip(".")
    return f"{said}. {_remedy(name, model, checkpoint)}"


def _remedy(name: str, model: LoadedModel, checkpoint: str) -> str:
    module = model.network
    others = {str(each.dtype).removeprefix("torch.") for each in module.parameters() if each.is_floating_point()}
    steps = model.preprocessing
    given = f"It was given float32 numbers of shape {(1, len(steps.mean), steps.crop, steps.crop)}"
    if others - {"float32"}:
        return f"{given}, and its weights are {', '.join(sorted(others))}: give network.float()"
    if checkpoint:
        return f"{given}: change the size under “Its classes and its pictures” to the training size of {checkpoint}"
    if len(needed := _required(module)) > 1:
        return f"It takes {', '.join(needed)}, and pages have pictures alone: give a module whose forward adds the rest"
    wrapped = "models.Preprocessing(resize, crop, mean, std)"
    network = repr(name) if name.endswith(PROGRAM) else "network"
    return (
        f"{given}. If it takes other ones, name a function with --model package.module:function that returns "
        f"models.load({network}, preprocessing={wrapped}), with one mean and one std for grey pictures"
    )


def _required(module: nn.Module) -> list[str]:
    """The names of the arguments that a network cannot be called without."""
    try:
        arguments = inspect.signature(module.forward).parameters.values()
    except (TypeError, ValueError):  # such as a program's
        return []
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [each.name for each in arguments if each.kind in kinds and each.default is inspect.Parameter.empty]
