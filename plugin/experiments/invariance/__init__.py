"""The meaning of invariant representation, a question from Springenberg et al. 2015 (Section 4).

    python -m plugin.experiments.invariance --data FOLDER --out FOLDER

A unit f is invariant to transformations T if f(t(x)) stays near f(x) for t in T, while f still distinguishes contents.
Then a whole set of pictures excites it most, and a deconvnet without an image must draw one picture for all of them.

* A, `invariance`: local firing rates over shifts, rotations and scales, by layer.
* B, `sufficiency`: a unit's response to one picture of itself, over its best response.
* C, `maximising_sets`: the number of solutions of activation maximisation, and the valleys between them.

Each function takes any network and its inputs, does not change the network, and returns plain dataclasses.
"""

from ...statistics import vendi_score
from .firing import LayerInvariance, invariance
from .maximising_set import MaximisingSet, maximising_sets, spherical_interpolation
from .sufficiency import Maximizer, PictureResponse, Solutions, median_responses, response_quartiles, sufficiency
from .transformations import AMOUNTS, transform

__all__ = [
    "AMOUNTS",
    "LayerInvariance",
    "Maximizer",
    "MaximisingSet",
    "PictureResponse",
    "Solutions",
    "invariance",
    "maximising_sets",
    "median_responses",
    "response_quartiles",
    "spherical_interpolation",
    "sufficiency",
    "transform",
    "vendi_score",
]
