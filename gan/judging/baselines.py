"""Baselines of an ascent: the best of random codes, ascent in pixel space, the best real image.

A gradient counts as two forward passes, as usual; at frozen weights it costs about one, so the count favours the best
of random codes.
"""

import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from plugin.seeds import random_generator

from ..maximising import CodeSpaceAM, PixelAM, Result
from ..maximising.activations import evaluating
from ..maximising.batching import in_blocks
from ..maximising.maximizer import random_codes
from ..maximising.targets import Units


def best_of_random(result: Result) -> tuple[Tensor, Tensor, int]:
    """For each run the best image of n random codes, where n is the mean number of forward passes of the ascent.

    Returns:
        Images `(n, C, H, W)`, the units' values there `(n,)`, and the number of codes per run.

    Raises:
        ValueError: the runs had no generator.
    """
    maximizer = result.maximizer
    if not isinstance(maximizer, CodeSpaceAM):
        raise ValueError("best_of_n needs a generator: leave it out of baselines= for PixelAM")
    count = round(float(result.passes.float().mean()))
    units = Units(result.targets, len(result), maximizer.activations)
    # Other codes than those the runs started from.
    randoms = [random_generator(seed + 10**6 if seed < 2**63 else seed - 10**6) for seed in result.seeds]
    drawn = random_codes((count, *maximizer.code_shape), randoms, maximizer.like)
    runs = torch.arange(len(result), device="cpu")
    values = maximizer.values(units.select, drawn.flatten(0, 1), runs.repeat_interleave(count))
    scores, best = values.view(len(result), count).max(dim=1)
    with evaluating(*maximizer.networks), torch.no_grad():
        (images,) = in_blocks(lambda codes: [maximizer.render(codes)], drawn[runs, best.cpu()])
    return images, scores, count


def best_of_real(result: Result, real: Tensor) -> Tensor:
    """For each run the largest value of its unit at any of the real images `(M, C, H, W)`: `(n,)`."""
    maximizer = result.maximizer
    units = Units(result.targets, len(result), maximizer.activations)
    first = {key: run for run, key in reversed([*enumerate(units.keys)])}
    best = {key: torch.full((), -torch.inf, device="cpu") for key in first}
    with evaluating(*maximizer.networks), torch.no_grad():
        for some in real.to(result.images).split(100):
            activations = maximizer.activations(some)
            for key, run in first.items():
                values = units.select(activations, torch.full((len(some),), run, device="cpu"))
                best[key] = torch.maximum(best[key].to(values), values.max())
    return torch.stack([best[key] for key in units.keys])


def batch_speedup(result: Result) -> float:
    """Wall time of the same runs one by one, over their wall time in one batch."""

    def seconds(work: Callable[[], object]) -> float:
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    stops = result.stop_at.tolist() if isinstance(result.stop_at, Tensor) else [result.stop_at] * len(result)
    runs = list(zip(result.targets, result.seeds, stops, strict=True))

    def maximize(some: list[tuple[Any, int, float | None]]) -> Result:
        targets, seeds, wanted = (list(column) for column in zip(*some, strict=True))
        stop_at = None if wanted[0] is None else wanted
        return result.maximizer.maximize(targets, seeds=seeds, steps=len(result.scores), stop_at=stop_at)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        maximize(runs[:1])
        batch = min(seconds(lambda: maximize(runs)) for _ in range(2))
        return seconds(lambda: [maximize([run]) for run in runs]) / batch


def pixel_ascent(result: Result) -> Result:
    """Ascent in pixel space for the same targets, seeds and steps."""
    own = result.maximizer
    channels, height, width = result.images.shape[1:]
    shape, read = (channels, height, width), own.activations
    pixel = PixelAM(own.classifier, shape, read.layer, read.transform, head=read.head)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pixel.maximize(result.targets, seeds=result.seeds, steps=len(result.scores), stop_at=result.stop_at)
