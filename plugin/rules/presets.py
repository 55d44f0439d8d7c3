"""The presets of the literature, with the constants that zennit uses, so that results can be compared.

Where a preset takes `epsilon`, it is that of the linear layers; `alpha` is that of the convolutions, and beta is
alpha - 1.

>>> from plugin.rules import presets
>>> presets.epsilon_gamma_box(low=-2.0, high=2.0).first
ZBox(low=-2.0, high=2.0, epsilon=1e-06)
>>> sorted(presets.PRESETS)[:3]  # the names that `rules=` takes
['attn_lrp', 'cp_lrp', 'epsilon']
"""

from collections.abc import Callable

from torch import Tensor

from ..errors import OptionError
from ..kernels.pointwise import STABILISER
from .composite import CONVOLUTIONS, Composite
from .lrp import AlphaBeta, Epsilon, Flat, Gamma, ZBox, ZPlus
from .terms import Rule


def lrp_0() -> Composite:
    """LRP-0 everywhere: on a ReLU network, input times gradient.

    >>> from plugin.rules import presets
    >>> presets.lrp_0().default
    Epsilon(epsilon=0.0)
    """
    return Composite(default=Epsilon(0.0))


def epsilon(epsilon: float = STABILISER) -> Composite:
    """LRP-epsilon everywhere.

    Args:
        epsilon: the stabiliser, >= 0.

    >>> from plugin.rules import presets
    >>> presets.epsilon(1e-3).default
    Epsilon(epsilon=0.001)
    """
    return Composite(default=Epsilon(epsilon))


def _convolutions(rule: Rule, epsilon: float, first: Rule | None = None) -> Composite:
    return Composite([(CONVOLUTIONS, rule)], first=first, default=Epsilon(epsilon))


def epsilon_plus(epsilon: float = STABILISER) -> Composite:
    """z+ for convolutions, epsilon for linear layers.

    Args:
        epsilon: the stabiliser of the linear layers, >= 0.

    >>> from plugin.rules import presets
    >>> presets.epsilon_plus().entries[0][1]
    ZPlus(bias=True, epsilon=1e-06)
    """
    return _convolutions(ZPlus(), epsilon)


def epsilon_plus_flat(epsilon: float = STABILISER) -> Composite:
    """z+ for convolutions, epsilon for linear layers, flat for the layer that reads the input.

    Args:
        epsilon: the stabiliser of the linear layers, >= 0.

    >>> from plugin.rules import presets
    >>> presets.epsilon_plus_flat().first
    Flat(epsilon=1e-06)
    """
    return _convolutions(ZPlus(), epsilon, first=Flat())


def epsilon_gamma_box(
    low: float | Tensor = -2.2, high: float | Tensor = 2.7, epsilon: float = STABILISER, gamma: float = 0.25
) -> Composite:
    """Gamma 0.25 for convolutions, epsilon for linear layers, z^B for the layer that reads the input.

    Args:
        low, high: the smallest and the largest value of the input, numbers or tensors that broadcast to it, such as
            `(C, 1, 1)`; the defaults enclose ImageNet's normalised pixels.
        epsilon: the stabiliser of the linear layers, >= 0.
        gamma: of the convolutions, >= 0.

    Raises:
        OptionError: the bounds do not enclose 0, or gamma is negative.

    >>> from plugin.rules import presets
    >>> presets.epsilon_gamma_box(0.0, 1.0).first.high
    1.0
    """
    return _convolutions(Gamma(gamma), epsilon, first=ZBox(low, high))


def epsilon_alpha2_beta1(epsilon: float = STABILISER, alpha: float = 2.0) -> Composite:
    """Alpha 2, beta 1 for convolutions, epsilon for linear layers.

    Args:
        epsilon: the stabiliser of the linear layers, >= 0.
        alpha: the weight of positive products in convolutions, >= 1; beta, of negative ones, is alpha - 1.

    Raises:
        OptionError: alpha is less than 1.

    >>> from plugin.rules import presets
    >>> presets.epsilon_alpha2_beta1(alpha=1.5).entries[0][1]
    AlphaBeta(alpha=1.5, beta=0.5, epsilon=1e-06)
    """
    return _convolutions(AlphaBeta(alpha, alpha - 1), epsilon)


def epsilon_alpha2_beta1_flat(epsilon: float = STABILISER, alpha: float = 2.0) -> Composite:
    """Alpha 2, beta 1 for convolutions, epsilon for linear layers, flat for the layer that reads the input.

    Args:
        epsilon: the stabiliser of the linear layers, >= 0.
        alpha: the weight of positive products in convolutions, >= 1; beta, of negative ones, is alpha - 1.

    Raises:
        OptionError: alpha is less than 1.

    >>> from plugin.rules import presets
    >>> presets.epsilon_alpha2_beta1_flat().first
    Flat(epsilon=1e-06)
    """
    return _convolutions(AlphaBeta(alpha, alpha - 1), epsilon, first=Flat())


def excitation_backprop() -> Composite:
    """z+ for every linear layer, no share to the bias (Zhang et al. 2016).

    >>> from plugin.rules import presets
    >>> presets.excitation_backprop().default
    ZPlus(bias=False, epsilon=1e-06)
    """
    return Composite(default=ZPlus(bias=False))


def attn_lrp() -> Composite:
    """LRP-0 for linear layers, the gradient of softmax, half of a product to each factor (Achtibat et al. 2024).

    >>> from plugin.rules import presets
    >>> presets.attn_lrp().softmax
    'gradient'
    """
    return Composite(default=Epsilon(0.0), softmax="gradient")


def cp_lrp() -> Composite:
    """LRP-0 for linear layers, softmax held constant, so that attention is a weighted sum (Ali et al. 2022).

    >>> from plugin.rules import presets
    >>> presets.cp_lrp().softmax
    'constant'
    """
    return Composite(default=Epsilon(0.0), softmax="constant")


PRESETS: dict[str, Callable[..., Composite]] = {
    preset.__name__: preset
    for preset in (
        lrp_0,
        epsilon,
        epsilon_plus,
        epsilon_plus_flat,
        epsilon_gamma_box,
        epsilon_alpha2_beta1,
        epsilon_alpha2_beta1_flat,
        excitation_backprop,
        attn_lrp,
        cp_lrp,
    )
}


def preset(name: str) -> Composite:
    """The preset called `name`, with its default constants.

    Args:
        name: a key of `PRESETS`.

    Raises:
        OptionError: there is none of that name.

    >>> from plugin.rules.presets import preset
    >>> preset("cp_lrp").softmax
    'constant'
    """
    if name not in PRESETS:
        raise OptionError(f"unknown preset {name!r}: choose among {', '.join(PRESETS)}")
    return PRESETS[name]()
