"""The reason why a map is zero everywhere: the layer at which the signal ended."""

from PIL import Image
from torch import Tensor, enable_grad, nn

from plugin.propagation import Propagation, backward

from ..choices.offered_methods import METHODS, NO_IMAGE
from ..inputs.subject import Subject
from .answers import responses
from .questions import Question, explained

_GUIDED = "guided-backprop"
_POSITIVE_ONLY = "ReLUs let only positive signal through"


def reason(subject: Subject, image: Image.Image, question: Question) -> str:
    """The reason why the answer is a map of zeros, as one sentence of Markdown; empty where it is not known.

    Args:
        subject: the network.
        image: RGB, any size.
        question: its answer is zero everywhere.
    """
    method = METHODS[question.method]
    if question.method == NO_IMAGE:
        return f"Nothing is left of the signal at the pixels: {_POSITIVE_ONLY}."
    if question.neuron:
        value = responses(subject, image, question.layer)[question.neuron]
        if value == 0 and (method.preset or question.method in ("gradient", _GUIDED)):
            return "The neuron is not active for this picture: its value is 0, and so is its share of every pixel."
    if method.preset:
        return ""
    if method.needs_layer:
        return f"At every pixel guided backprop or Grad-CAM of `{question.layer}` is zero, and so is their product."
    end = _end(subject, image, question)
    if end is None:
        return ""
    layer, signal = end
    if question.method == "gradient":
        return f"The gradient ends at `{layer}`: no unit that it reaches there is active."
    if bool((signal <= 0).all()):
        return f"All signal that arrives at `{layer}` is negative, and {_POSITIVE_ONLY}."
    active = ", and only where they were active" if question.method == _GUIDED else ""
    return f"The signal ends at `{layer}`: {_POSITIVE_ONLY}{active}."


def _end(subject: Subject, image: Image.Image, question: Question) -> tuple[str, Tensor] | None:
    """The first layer that the signal still reaches, and the signal at its output; None if it reaches none."""
    network, target = explained(subject.model.network, question)
    names = {module: name for name, module in subject.model.network.named_modules()}
    outputs: dict[str, Tensor] = {}

    def note(module: nn.Module, output: object) -> None:
        if module in names and not any(module.children()) and isinstance(output, Tensor):
            outputs[names[module]] = output

    method = METHODS[question.method]
    rules = {} if question.method == "gradient" else method.attribution_class(False)(network, **method.construct).rules
    inputs = subject.preprocess(image).requires_grad_()
    with enable_grad():
        propagation = Propagation(network, rules, on_exit=note)
        with propagation:
            output = propagation.current(network(inputs.clone()))
        selected = outputs[question.layer][(0, *question.neuron)] if question.neuron else output[0, target]
        _, *signals = backward(selected, [inputs, *outputs.values()])
    reached = ((name, signal) for name, signal in zip(outputs, signals, strict=True) if signal is not None)
    return next(((name, signal) for name, signal in reached if bool(signal.any())), None)
