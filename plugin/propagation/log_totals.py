"""Log-softmax by hand: `s - s.logsumexp(-1, keepdim=True)`, `s - m - (s - m).exp().sum(-1, keepdim=True).log()`.

The logarithm of a sum of exponentials is a log total. Scores from which one was subtracted are a log-softmax: their
exponential is a softmax.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from torch import Tensor

from .calls import Call

if TYPE_CHECKING:
    from .reading import ReadingMode

# The sign of each operand in a sum.
_SIGNS = {"add": (1, 1), "sub": (1, -1), "rsub": (-1, 1), "neg": (-1,)}


def note_log_totals(mode: ReadingMode, call: Call, result: Tensor) -> None:
    """Note how many log totals were added to the result of a sum or a logarithm."""
    if call.name == "log":
        note = mode.note(call.signals[0])
        count = 1 if note.statistic and note.exponential else 0
    elif call.operation is not None and call.operation.identity:
        source, noted = mode.note(call.given[0]), mode.noted(result)
        noted.log_totals, noted.logits = source.log_totals, source.logits
        return
    elif call.name in _SIGNS and not call.kwargs:
        operands = zip(_SIGNS[call.name], call.args, strict=False)
        count = sum(sign * mode.note(one).log_totals for sign, one in operands if isinstance(one, Tensor))
    else:
        return
    if count:
        noted = mode.noted(result)
        noted.log_totals, noted.plain = count, partial(mode.plainly, call)
        if count == -1 and call.name == "sub":
            noted.logits = _without_shift(mode, *call.args)
    elif call.name == "sub" and isinstance(call.args[1], Tensor) and call.args[1].shape != result.shape:
        mode.noted(result).shifted = call.args[0], call.args[1].shape


def _without_shift(mode: ReadingMode, scores: Tensor, total: Tensor) -> Tensor:
    """The scores, before the maximum for each total was subtracted from them: their softmax is the same."""
    shifted = mode.note(scores).shifted
    return scores if shifted is None or shifted[1] != total.shape else shifted[0]
