"""What runs of the Code space page look like: images, curves, sentences, tables and files."""

import base64
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go
from PIL import Image
from torch import Tensor

from plugin import figures
from plugin.experiments.units import evenly

from ...maps.rendering import versions
from .runs import Outcome

_GIF_FRAMES, _GRID_SIDE = 60, 460


def statement(outcome: Outcome, running: bool = False) -> str:
    """What was reached, in a sentence or two of plain text; `running` if the work goes on."""
    result, scores = outcome.result, outcome.scores[-1]
    value = f"value {np.mean(scores):.3g} in the mean, {np.min(scores):.3g} to {np.max(scores):.3g}"
    stopped = "" if outcome.finished or running else f"Stopped after {result.step} steps. "
    if outcome.plan.stop_at is None:
        return f"{stopped}{len(result)} runs of {result.step} steps: {value}."
    steps = int(result.steps_taken.float().median())
    reached = f"{int(result.reached.sum())} of {len(result)} runs reached {outcome.plan.stop_at:g}"
    return f"{stopped}{reached} in {steps} step{'s' * (steps != 1)} (median): {value}."


def shortfall(outcome: Outcome) -> str:
    """How far those runs came that ended below the probability at which they should; empty if there are none."""
    plan, chances = outcome.plan, outcome.result.probabilities
    missed = ~outcome.result.reached
    if plan.stop_at is None or chances is None or not outcome.finished or not bool(missed.any()):
        return ""
    made = f"in {plan.steps} step{'s' * (plan.steps != 1)}"
    return (
        f"{int(missed.sum())} of {len(missed)} runs did not reach {plan.stop_at:g} {made}, the best of them came to "
        f"{float(chances[missed].max()):.4g}. Allow more steps, or stop at a lower probability."
    )


def spoken(outcome: Outcome, unit: str) -> str:
    """The images in words."""
    images = outcome.result.images
    chances = outcome.result.probabilities
    found = f"values {outcome.scores[-1].min():.3g} to {outcome.scores[-1].max():.3g}"
    if chances is not None:
        found += f", probabilities {float(chances.min()):.3f} to {float(chances.max()):.3f}"
    return f"{len(images)} images of {images.shape[3]} by {images.shape[2]} pixels that maximise {unit}: {found}"


def rows(outcome: Outcome) -> list[dict[str, Any]]:
    """A line per run, for a table."""
    result, chances = outcome.result, outcome.result.probabilities
    return [
        {
            "Seed": seed,
            "Value": float(outcome.scores[-1, run]),
            **({} if chances is None else {"Probability": float(chances[run])}),
            "Steps": int(result.steps_taken[run]),
            "Starting codes tried": int(result.tried[run]),
        }
        for run, seed in enumerate(result.seeds)
    ]


def curves(outcome: Outcome) -> go.Figure:
    """The unit's value by step, a line per run."""
    names = [f"seed {seed}" for seed in outcome.result.seeds]
    label = "logit of the class" if outcome.plan.stop_at is not None else "value of the unit"
    return figures.ascent_curves(outcome.scores, names, outcome.result.steps_taken.cpu().numpy(), label)


def picture(images: Tensor, side: int = _GRID_SIDE) -> Image.Image:
    """Images `(n, C, H, W)` in [0, 1] as a grid of at least so many pixels."""
    from gan.export import grid

    columns = int(np.ceil(np.sqrt(len(images))))
    return grid(images, columns, max(1, side // columns))


def png(outcome: Outcome) -> bytes:
    """The grid as a PNG file."""
    return figures.to_png(np.asarray(picture(outcome.result.images)), side=1)


def address(outcome: Outcome) -> str:
    """The same as a `data:` address: a file of the server's would be gone when the next step takes its place."""
    return "data:image/png;base64," + base64.b64encode(png(outcome)).decode()


def gif(outcome: Outcome) -> bytes:
    """The runs from step to step as a GIF file."""
    from gan.export import save_gif

    with tempfile.TemporaryDirectory() as folder:
        kept = [frame.float() / 255 for frame in evenly(outcome.frames, _GIF_FRAMES)]
        return save_gif(kept, Path(folder) / "runs.gif").read_bytes()


def npz(outcome: Outcome) -> bytes:
    """An NPZ file with `images` (n, C, H, W), `codes` (n, ...), `scores` (steps, n), `seeds`, settings and versions."""
    result = outcome.result
    arrays = {
        "images": result.images.cpu().numpy(),
        "codes": result.codes.cpu().numpy(),
        "scores": outcome.scores,
        "steps_taken": result.steps_taken.cpu().numpy(),
        "seeds": np.array(result.seeds),
    }
    if result.probabilities is not None:
        arrays["probabilities"] = result.probabilities.cpu().numpy()
    recorded = asdict(outcome.plan) | {
        "steps_made": result.step,
        "finished": outcome.finished,
        "seconds": outcome.seconds,
        "peak_bytes": outcome.peak_bytes,
    }
    return figures.to_npz(arrays, recorded, versions())
