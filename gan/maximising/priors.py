"""Priors keep codes where the generator was trained: at codes z ~ N(0, I) of length d, for which |z| is near sqrt(d).

After each step of the ascent a prior moves the codes by itself (as weight decay does in AdamW), so its strength does
not depend on the size of the unit's gradient. With s the step's size as a share of the first step's,

    shell      z <- z sqrt(d) / |z|                   to where Gaussian codes lie: (|z| - sqrt(d))^2 is 0
    gaussian   z <- (1 - s w) z                       descent on |z|^2: decay towards the mean (Nguyen et al. 2016)
    box        z <- min(max(z, -b), b)                clipping to observed ranges (Nguyen et al. 2016)
    ppgn       z <- (1 - w) z + n sqrt(2w - w^2) e    e ~ N(0, I): "plug and play" (Nguyen et al. 2017)

The last is the paper's z + w (R(z) - z) + noise, where R reconstructs a code from a noisy one. For Gaussian codes the
best R is known: (1 - w') z. With n = 1 and no ascent the codes keep the distribution N(0, I). As it samples, its runs
take every step, even one that lowers the value, and steps keep their size.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import Tensor

Move = Callable[[Tensor, Tensor | float, Tensor | None], Tensor]


@dataclass(frozen=True)
class Prior:
    """A prior as a move of codes.

    Attributes:
        name: of the prior.
        move: new codes for codes `(n, d)` or `(n, ...)`, the steps' sizes as a share of the first step's in a shape
            that broadcasts with them, and noise e in the shape of the codes, or None.
        noisy: whether it uses the noise.
    """

    name: str
    move: Move
    noisy: bool = False


def shell() -> Prior:
    """Exactly |z| = sqrt(d)."""
    return Prior("shell", _onto_shell)


def gaussian(weight: float = 0.01) -> Prior:
    """Towards the mean code 0, by the share `weight` per step."""
    return Prior("gaussian", partial(_decayed, weight))


def box(bound: float = 2.5) -> Prior:
    """No entry of a code beyond `bound`."""
    return Prior("box", partial(_clipped, bound))


def ppgn(weight: float = 0.005, noise: float = 1.0) -> Prior:
    """The reconstruction of a slightly noisy code, plus new noise: `noise` times the amount that keeps N(0, I)."""
    return Prior("ppgn", partial(_renoised, 1 - weight, noise * math.sqrt(1 - (1 - weight) ** 2)), noisy=True)


# Module-level functions: a result holds its prior, and can be pickled only if every part has an importable name.


def _onto_shell(codes: Tensor, share: Tensor | float, noise: Tensor | None) -> Tensor:
    length: Tensor = codes.flatten(1).norm(dim=1).view(-1, *[1] * (codes.ndim - 1))
    return codes * (math.sqrt(codes[0].numel()) / length.clamp(min=1e-12))


def _decayed(weight: float, codes: Tensor, share: Tensor | float, noise: Tensor | None) -> Tensor:
    return codes * (1 - share * weight)


def _clipped(bound: float, codes: Tensor, share: Tensor | float, noise: Tensor | None) -> Tensor:
    return codes.clamp(-bound, bound)


def _renoised(kept: float, scale: float, codes: Tensor, share: Tensor | float, noise: Tensor | None) -> Tensor:
    return kept * codes if noise is None else kept * codes + scale * noise


def _as_they_are(codes: Tensor, share: Tensor | float, noise: Tensor | None) -> Tensor:
    return codes


PRIORS: dict[str, Callable[[], Prior]] = {"shell": shell, "gaussian": gaussian, "box": box, "ppgn": ppgn}


def prior_of(prior: "str | Prior | None") -> Prior:
    """A prior by name, as given, or none.

    Raises:
        ValueError: there is no such prior.
    """
    if isinstance(prior, Prior):
        return prior
    if prior is None:
        return Prior("none", _as_they_are)
    if prior not in PRIORS:
        raise ValueError(f"unknown prior {prior!r}: choose one of {', '.join(PRIORS)}, or pass a Prior")
    return PRIORS[prior]()
