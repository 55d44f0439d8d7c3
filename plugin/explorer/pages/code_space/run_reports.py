"""Views of the runs of the Code space page: images, curves, sentences, tables and files."""

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
from plugin.heads import LOGITS, OUTPUTS

from ...inputs.image_sets import LABELS
from ...maps.rendering import versions
from .runs import Outcome

_GIF_FRAMES, _GRID_SIDE = 60, 460


def statement(outcome: Outcome, running: bool = False) -> str:
    """The values reached, in a sentence or two of plain text; `running` if the work goes on."""
    result, scores = outcome.result, outcome.scores[-1]
    value = f"value {np.mean(scores):.3g} in the mean, {np.min(scores):.3g} to {np.max(scores):.3g}"
    stopped = "" if outcome.finished or running else f"Stopped after {result.step} steps. "
    if outcome.plan.of_class and result.probabilities is not None:
        value += f"; probability {float(result.probabilities.mean()):.3g} in the mean"
    if outcome.wanted is None:
        return f"{stopped}{len(result)} run{'s' * (len(result) != 1)} of {result.step} steps: {value}."
    steps = int(result.steps_taken.float().median())
    reached = f"{int(result.reached.sum())} of {len(result)} runs reached {outcome.wanted:.4g}"
    text = f"{stopped}{reached} in {steps} step{'s' * (steps != 1)} (median): {value}."
    return f"{text} {_of_data(outcome)}".rstrip()


def _of_data(outcome: Outcome) -> str:
    """The value that real images reach, for runs that end there."""
    plan = outcome.plan
    if not plan.data:
        return ""
    which = f"{plan.count} images ({LABELS[plan.data]})"
    if plan.of_class:
        return f"Of {which}, those of the class reach probability {outcome.wanted:.4g} in the median."
    return f"Of {which}, the best reaches {outcome.wanted:.4g}."


def silence(outcome: Outcome) -> str:
    """Sentences on runs that began where the unit was silent, and on the remedy; empty if it answered everywhere."""
    result = outcome.result
    count, silent, looked = len(result), int((result.opened > 0).sum()), int(result.tried.max())
    notes = []
    if not outcome.plan.of_class and looked > getattr(result.maximizer, "candidates", looked):
        notes.append(f"Up to {looked} random codes were looked at, as the unit was silent for the first.")
    if silent:
        notes.append(
            f"The unit is silent where {silent} of {count} runs begin: these climb before its ReLU until it answers."
        )
    if given_up := int(result.silent.sum()):
        notes.append(
            f"{given_up} of {count} runs were given up, as the unit never answered: their images say nothing of it. "
            "Take another unit, or other seeds."
        )
    return " ".join(notes)


def shortfall(outcome: Outcome) -> str:
    """A sentence on the runs that ended below the wanted value, with the best of their values; empty without any."""
    plan, chances = outcome.plan, outcome.result.probabilities
    missed = ~outcome.result.reached & ~outcome.result.silent
    if outcome.wanted is None or not outcome.finished or not bool(missed.any()):
        return ""
    values = outcome.result.scores[-1] if chances is None else chances
    made = f"in {plan.steps} step{'s' * (plan.steps != 1)}"
    lower = "" if chances is None else ", or stop at a lower probability"
    return (
        f"{int(missed.sum())} of {len(missed)} runs did not reach {outcome.wanted:.4g} {made}, the best of them came "
        f"to {float(values[missed].max()):.4g}. Allow more steps{lower}."
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
    return figures.ascent_curves(outcome.scores, names, outcome.result.steps_taken.cpu().numpy(), _value(outcome))


def _value(outcome: Outcome) -> str:
    """The name of the values; for a class, of the output that the network's head returns."""
    if outcome.plan.layer:
        return "value of the unit"
    returned = OUTPUTS[outcome.result.maximizer.activations.head or LOGITS]
    return f"{returned} of the class" if outcome.plan.contrast is None else f"{returned}, class minus class"


def picture(images: Tensor, side: int = _GRID_SIDE) -> Image.Image:
    """Images `(n, C, H, W)` in [0, 1] as a grid of at least so many pixels."""
    from gan.export import grid

    columns = int(np.ceil(np.sqrt(len(images))))
    return grid(images, columns, max(1, side // columns))


def png(outcome: Outcome) -> bytes:
    """The grid as a PNG file."""
    return figures.to_png(np.asarray(picture(outcome.result.images)), side=1)


def address(outcome: Outcome) -> str:
    """The PNG file as a `data:` address: the server drops a file as soon as that of the next step replaces it."""
    return "data:image/png;base64," + base64.b64encode(png(outcome)).decode()


def gif(outcome: Outcome) -> bytes:
    """The runs from step to step as a GIF file."""
    from gan.export import save_gif

    with tempfile.TemporaryDirectory() as folder:
        return save_gif(evenly(outcome.frames, _GIF_FRAMES), Path(folder) / "runs.gif").read_bytes()


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
