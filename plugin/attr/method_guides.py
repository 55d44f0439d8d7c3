"""Guides to the maps: how to read the map of a method and when to choose it, by the keys of `METHODS`.

The pages in `docs/methods` say the same at length. A preset of LRP has the formula of the rule that marks it.
"""

from dataclasses import dataclass

# Titles are those of `docs/bibliography.md`.
PAPERS = {
    "Simonyan et al. 2014": "https://arxiv.org/abs/1312.6034",
    "Zeiler and Fergus 2014": "https://arxiv.org/abs/1311.2901",
    "Springenberg et al. 2015": "https://arxiv.org/abs/1412.6806",
    "Selvaraju et al. 2017": "https://arxiv.org/abs/1610.02391",
    "Bach et al. 2015": "https://doi.org/10.1371/journal.pone.0130140",
    "Montavon et al. 2017": "https://arxiv.org/abs/1512.02479",
    "Lapuschkin et al. 2019": "https://arxiv.org/abs/1902.10178",
    "Andeol et al. 2021": "https://arxiv.org/abs/2106.04923",
    "Zhang et al. 2016": "https://arxiv.org/abs/1608.00507",
    "Achtibat et al. 2024": "https://arxiv.org/abs/2402.05602",
    "Ali et al. 2022": "https://arxiv.org/abs/2202.07304",
}


@dataclass(frozen=True)
class Guide:
    """How to read a map and when to choose its method.

    Attributes:
        reading: the meaning of a map's colours, in sentences; red is positive, blue negative.
        quantity: the unit of a map's values, a few words for its colour bar.
        formula: the definition of the method, in the notation of `docs/methods`.
        use, avoid: when to take the method and when not, a clause each.
        paper: a key of `PAPERS`.
    """

    reading: str = ""
    quantity: str = ""
    formula: str = ""
    use: str = ""
    avoid: str = ""
    paper: str = ""


_PATTERN, _SHARE = "signal at the pixel", "share of the score"
_LRP = (
    "The score is divided among the pixels by the rules: red shares are positive, blue ones negative, and together "
    "with the parts that biases and stabilisers absorb they add up to the score. A share is not the amount by which "
    "the score falls without the pixel."
)
_POSITIVE = (
    "The score is divided among the pixels by positive products only, in convolutions: almost everything has the sign "
    "of the score. Red shows where the evidence is; evidence against the class is not drawn."
)
_ALPHA_BETA = (
    "The score is divided among the pixels, and each convolution hands on positive and negative products in fixed "
    "amounts, 2 and 1. The rule, and not the network, decides how much is blue; a map of a positive score may be "
    "mostly blue."
)
_PRODUCTS = "R_i = x_i (W^T (R / st(y)))_i, st(y) = y + eps sgn(y)"
_ZPLUS = "R = share of z+ + b+, z+ = W+ x+ + W- x-"
_AB = "R = 2 (share of z+ + b+) - 1 (share of z- + b-)"

GUIDES: dict[str, Guide] = {
    "gradient": Guide(
        "A slightly larger value of a red pixel raises the score, one of a blue pixel lowers it. It says nothing of "
        "larger changes, such as removing the pixel.",
        "change of the score per unit of the input",
        "m_i = dy / dx_i",
        "to see the effect of small changes, to compare classes, as the reference for any other map",
        "to ask for the effect of removing pixels; the map is noisy to the eye",
        "Simonyan et al. 2014",
    ),
    "deconvnet": Guide(
        "The map draws the pattern that is found by following positive signal down from the score. Its signs are those "
        "of the pattern, not votes for or against the class.",
        _PATTERN,
        "y = relu(x): m_lower = relu(m)",
        "to see the pattern of a unit in low and middle layers",
        "for class scores of deep networks, where the signal often ends",
        "Zeiler and Fergus 2014",
    ),
    "guided-backprop": Guide(
        "The map draws the pattern that excited the units that lead to the score. Its signs are those of the pattern, "
        "not votes for or against the class, and another class often has nearly the same map.",
        _PATTERN,
        "y = relu(x): m_lower = relu(m) 1[x > 0]",
        "for sharp pictures of the parts of an image that a unit answers to",
        "to compare classes or to learn the reason for a class: the map hardly depends on either",
        "Springenberg et al. 2015",
    ),
    "guided-grad-cam": Guide(
        "Guided backprop, kept where a layer's weighted channels support the class and zero elsewhere. Its signs are "
        "those of the pattern, not votes for or against the class.",
        "signal at the pixel, weighted",
        "guided backprop * relu(sum_k w_k A_k), w_k = mean of dy / dA_k",
        "to keep the one object among several that the class is about",
        "for details finer than the layer",
        "Selvaraju et al. 2017",
    ),
    "lrp-0": Guide(
        _LRP + " Large shares of opposite signs cancel in the sum.", _SHARE, "R_i = x_i dy / dx_i on ReLU networks",
        "as the reference of LRP", "to show where the evidence is: the map is as noisy as the gradient",
        "Bach et al. 2015",
    ),
    "lrp-epsilon": Guide(
        _LRP + " Large shares of opposite signs cancel in the sum.", _SHARE, _PRODUCTS,
        "to see how the score is composed, and to compare classes",
        "for calm maps of convolutions: it is noisy, and moves in float32", "Bach et al. 2015",
    ),
    "lrp-epsilon-plus": Guide(
        _POSITIVE, _SHARE, _ZPLUS + " in convolutions", "for calm maps of where the evidence is",
        "to compare classes, or for evidence against the class", "Montavon et al. 2017",
    ),
    "lrp-epsilon-plus-flat": Guide(
        _POSITIVE + " The first layer spreads its share evenly over the region that it sees.",
        _SHARE, _ZPLUS + " in convolutions, an even share for all inputs of the first layer", "for regions of evidence",
        "for single pixels, to compare classes, or for evidence against the class", "Lapuschkin et al. 2019",
    ),
    "lrp-epsilon-gamma-box": Guide(
        "The score is divided among the pixels, and positive products count more than negative ones. Blue is negative, "
        "but a large negative share can also stem from biases: read the ledger on the LRP page with it.",
        _SHARE, "R in proportion to x+ (W + gamma W+) + x- (W + gamma W-), gamma = 0.25",
        "for pictures, for a map that is calmer than that of epsilon and still shows negative evidence",
        "for inputs without a range, such as spectra", "Andeol et al. 2021",
    ),
    "lrp-epsilon-alpha2-beta1": Guide(
        _ALPHA_BETA, _SHARE, _AB + " in convolutions", "to see evidence against the class as well",
        "in very deep networks, and to compare amounts of red and blue", "Bach et al. 2015",
    ),
    "lrp-epsilon-alpha2-beta1-flat": Guide(
        _ALPHA_BETA + " The first layer spreads its share evenly over the region that it sees.",
        _SHARE, _AB + " in convolutions, an even share for all inputs of the first layer", "the same, for regions",
        "in very deep networks, and to compare amounts of red and blue", "Bach et al. 2015",
    ),
    "lrp-excitation-backprop": Guide(
        "The score is divided among the pixels by positive products only, and nothing goes to biases: all shares have "
        "the sign of the score. The map shows where the evidence is; evidence against the class is not drawn.",
        _SHARE, "R = share of z+", "for shares that add up to the score itself",
        "to compare classes, or for evidence against the class", "Zhang et al. 2016",
    ),
    "lrp-attn-lrp": Guide(
        _LRP, _SHARE, "LRP-0; softmax has its gradient, half of a product to each factor", "for transformers",
        "for networks without attention: there it is LRP-0", "Achtibat et al. 2024",
    ),
    "lrp-cp-lrp": Guide(
        _LRP, _SHARE, "LRP-0; softmax is held constant", "for transformers, where shares must add up",
        "for networks without attention: there it is LRP-0", "Ali et al. 2022",
    ),
}  # fmt: skip
