"""What does invariant representation mean? The question that Springenberg et al. 2015 (Section 4) raise.

    python -m plugin.experiments.invariance --data FOLDER --out FOLDER

A unit f is invariant to transformations T if f(t(x)) stays near f(x) for t in T while it still tells contents apart.
Then what excites it most is a whole set of pictures, and a deconvnet that sees no image must draw one for all of it.

* A, `invariance`: local firing rates over shifts, rotations and scales, by layer.
* B, `sufficiency`: a unit's response to one picture of itself, over its best response.
* C, `maximising_sets`: how many solutions activation maximisation finds, and whether valleys part them.

Each takes any network and its inputs, leaves the network as it was, and returns plain dataclasses.
"""

from ...statistics import vendi_score
from .firing import LayerInvariance, invariance
from .maximising_set import MaximisingSet, maximising_sets, spherical_interpolation
from .sufficiency import Maximizer, PictureResponse, Solutions, median_responses, sufficiency
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
    "spherical_interpolation",
    "sufficiency",
    "transform",
    "vendi_score",
]
