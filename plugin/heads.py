"""The head of a classifier, that is the kind of its outputs: logits, probabilities, or their logarithms.

Code that shows a probability, climbs a class or names the explained number needs to know the head. It is read from the
operation that made the output (a sigmoid, a softmax, a log-softmax, also inside the classifier's `forward`), or from
the values where these leave no doubt.
"""

import torch
from torch import Tensor
from torch.autograd.graph import Node

LOGITS, SOFTMAX, LOG_SOFTMAX, SIGMOID = "logits", "softmax", "log-softmax", "sigmoid"
HEADS = (LOGITS, SOFTMAX, LOG_SOFTMAX, SIGMOID)
# The name of one number of each, and its plural.
OUTPUTS = {LOGITS: "logit", SOFTMAX: "probability", LOG_SOFTMAX: "log probability", SIGMOID: "probability"}
PLURALS = {"logit": "logits", "probability": "probabilities", "log probability": "log probabilities"}

# Operations that only arrange numbers, or average them: their results for probabilities are probabilities.
_ARRANGING = (
    *("View", "UnsafeView", "ReshapeAlias", "Squeeze", "Unsqueeze", "Select", "Slice", "Permute", "T"),
    *("Clone", "ToCopy", "Alias", "AsStrided", "Mean", "Stack", "Transpose", "Expand", "Repeat", "Flip", "Roll"),
    *("Index", "IndexSelect", "Unbind", "Split", "SplitWithSizes"),
)
# Operations that keep probabilities from 0 and 1.
_CLAMPING = ("Clamp", "ClampMin", "ClampMax")
# Operations whose results for probabilities are probabilities that need not sum to 1: 1 - p, the outputs of several
# heads, the largest of several views.
_SEPARATING = ("Rsub", "Cat", "Amax", "Max", "Maximum", "MaxPool2DWithIndices", "AdaptiveMaxPool2D")
# Operations that make logits, wherever these lie: none of them keeps to [0, 1].
_LOGITS = (
    *("Addmm", "Mm", "Bmm", "Baddbmm", "Linear", "Convolution", "NativeLayerNorm", "NativeBatchNorm"),
    *("Relu", "LeakyRelu", "Elu", "Gelu", "Silu", "Softplus"),
)
# Operations whose results are logits if all numbers that they join are logits.
_JOINING = ("Add", "Sub", "Mul", "Div", "Sum", "Cat", "Amax", "Max")
_MADE_BY = {"Sigmoid": SIGMOID, "Softmax": SOFTMAX, "LogSoftmax": LOG_SOFTMAX} | dict.fromkeys(_LOGITS, LOGITS)
# The least probability, and the least distance of one from 1, whose logarithm is finite in float32.
_LEAST, _LEAST_BELOW_ONE = 1e-30, 1e-7


def find_head(outputs: Tensor) -> str | None:
    """Which of `HEADS` made these outputs `(n, classes)`, given with their graph.

    None if they all lie in [0, 1] without being a softmax's, and may be logits or probabilities.
    """
    made_by = _made_by(outputs.grad_fn)
    if made_by == SIGMOID and bool(((outputs < 0) | (outputs > 1)).any()):  # a difference from another number than 1
        made_by = None
    if made_by is not None:  # one probability of a softmax is used as a sigmoid's is
        return SIGMOID if made_by == SOFTMAX and outputs.shape[1] == 1 else made_by
    values = outputs.detach().float()
    rows_sum_to_one = values.shape[1] > 1
    if bool((values >= 0).all()):
        if rows_sum_to_one and _is_one(values.sum(dim=1)):
            return SOFTMAX
        if bool((values <= 1).all()) and bool((values > 0).any()):
            return None
    elif rows_sum_to_one and bool((values <= 0).all()) and _is_one(values.exp().sum(dim=1)):
        return LOG_SOFTMAX
    return LOGITS


def probabilities(head: str, outputs: Tensor) -> Tensor:
    """Probabilities of outputs `(n, classes)`; a single logit is that of its class against everything else."""
    if head in (SOFTMAX, SIGMOID):
        return outputs
    # The softmax of log probabilities is their exponential, and equals that of the logits below the log-softmax.
    return outputs.softmax(dim=1) if outputs.shape[1] > 1 or head == LOG_SOFTMAX else outputs.sigmoid()


def climbed(head: str, values: Tensor) -> Tensor:
    """The values `(n,)` to climb for classes with these values: logits as they are, else log odds."""
    if head in (SOFTMAX, SIGMOID):
        return values.clamp(min=_LEAST).log() - torch.log1p(-values.clamp(max=1 - _LEAST_BELOW_ONE))
    if head == LOG_SOFTMAX:
        return values - torch.log(-torch.expm1(values.clamp(max=-_LEAST_BELOW_ONE)))
    return values


def leads(head: str, outputs: Tensor, classes: Tensor) -> Tensor:
    """The lead of classes `(n,)` over the best other class `(n,)`, in units of logits.

    Classes that do not exclude each other (sigmoids, or a single logit) lead by their own log odds.
    """
    chosen = classes.unsqueeze(1)
    if head == SIGMOID:
        return climbed(head, outputs.gather(1, chosen).squeeze(1))
    if outputs.shape[1] == 1:
        return outputs.squeeze(1)
    logits = outputs.clamp(min=_LEAST).log() if head == SOFTMAX else outputs
    return logits.gather(1, chosen).squeeze(1) - logits.scatter(1, chosen, -torch.inf).amax(dim=1)


def _made_by(node: Node | None, known: dict[Node, str | None] | None = None) -> str | None:
    """Which of `HEADS` made the numbers of a node of autograd's; None if its operations do not tell.

    `known` holds the heads found so far, since a node may be reached in many ways.
    """
    if node is None:
        return None
    known = {} if known is None else known
    if node not in known:
        operation = node.name().rstrip("0123456789").removesuffix("Backward")
        known[node] = _MADE_BY.get(operation) or _passed_on(node, operation, known)
    return known[node]


def _passed_on(node: Node, operation: str, known: dict[Node, str | None]) -> str | None:
    """The head of the result of an operation that arranges or joins numbers; None if it is not known."""
    if operation not in (*_ARRANGING, *_JOINING, *_CLAMPING, *_SEPARATING):
        return None
    # Numbers, parameters and the image itself are no outputs of anything.
    joined = [other for other, _ in node.next_functions if other is not None and other.next_functions]
    kinds = {_made_by(other, known) for other in joined}
    kind = kinds.pop() if len(kinds) == 1 else None
    if kind in (SIGMOID, SOFTMAX) and operation in (*_CLAMPING, *_SEPARATING):
        return kind if operation in _CLAMPING else SIGMOID
    if operation == "Mean" and kind is None:  # over positions, as networks without a linear layer end
        return LOGITS
    return kind if operation in _ARRANGING or (operation in _JOINING and kind == LOGITS) else None


def _is_one(sums: Tensor) -> bool:
    return bool(((sums - 1).abs() < 1e-4).all())
