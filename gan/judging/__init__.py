"""Quality of maximised images and of generators."""

from .baselines import batch_speedup, best_of_random, best_of_real
from .scorecards import Scorecard
from .scoring import scorecard

__all__ = ["Scorecard", "batch_speedup", "best_of_random", "best_of_real", "scorecard"]
