"""The bundled network below each head that a classifier may have: its logits of a picture are the same below each."""

from dataclasses import replace

from torch import nn

from plugin import models
from plugin.models import LoadedModel

LOGITS = "all-cnn-c"


def _below(*head: nn.Module) -> LoadedModel:
    model = models.load(LOGITS)
    return replace(model, network=nn.Sequential(model.network, *head).eval())


def softmax() -> LoadedModel:
    return _below(nn.Softmax(1))


def log_softmax() -> LoadedModel:
    return _below(nn.LogSoftmax(1))


def sigmoid() -> LoadedModel:
    return _below(nn.Sigmoid())


def one_logit() -> LoadedModel:
    """The logit of the class cat alone."""
    model = models.load(LOGITS)
    cat = nn.Linear(10, 1).requires_grad_(False)
    cat.bias.zero_()
    cat.weight.zero_()[0, 3] = 1
    return replace(model, network=nn.Sequential(model.network, cat).eval(), classes=("cat",))
