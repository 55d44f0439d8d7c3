"""The picture, the part that the network sees, and the most probable classes."""

from collections.abc import Sequence
from functools import partial
from typing import Literal

import numpy as np
import streamlit as st
from numpy.typing import NDArray
from PIL import Image

from plugin import figures
from plugin.heads import LOG_SOFTMAX, SIGMOID, SOFTMAX

from ..maps.questions import Look
from . import chart_options, kept_results
from .controls import choose_bar
from .page_state import key

# The explained output of networks that return no logits.
_HEADS = {
    SOFTMAX: "The network ends in a softmax: maps explain its probability, and fade where that is near 0 or 1.",
    SIGMOID: "The network ends in a sigmoid: maps explain its probability, and fade where that is near 0 or 1.",
    LOG_SOFTMAX: "The network ends in a log-softmax: maps explain log probabilities, those of LRP the logits below.",
}
# The side of the pictures, and the height of the bars beside them, in pixels.
_SIDE, _BARS = 128, 150


def overview(look: Look, probabilities: NDArray[np.float32], chosen: int | None) -> None:
    """The picture, the part that the network sees, and the most probable classes, whose bars can be clicked.

    Args:
        look: the network and the picture.
        probabilities: `(classes,)`.
        chosen: the class that is explained, if one is.
    """
    subject, picture = look.subject, look.picture
    pictures, bars = st.columns([2, 3])
    # So small that they stay beside each other on a phone, with a map below them on the first screen.
    with pictures.container(horizontal=True):
        with st.container(width=_SIDE):
            st.caption("Picture")
            # In a transparent square, so that an upright picture does not push the maps off the screen.
            square = kept_results.square(picture.digest, picture.image)
            st.image(square, width="stretch", alt="The picture as it was given")
        with st.container(width=_SIDE):
            what_it_sees(look)
    # A new name for every choice forgets the last click: a second click on the same bar would otherwise only undo it.
    chart = key(f"bars.{subject.identity[:80]}.{picture.digest[:12]}.{chosen}")
    bars.caption("Most probable classes: click a bar to explain it")
    bars.plotly_chart(
        chart_options.on_page(figures.top_k_bars(probabilities, subject.model.classes, chosen=chosen, height=_BARS)),
        key=chart,
        on_select=partial(choose_bar, chart),
        selection_mode="points",
        config=chart_options.CLICKED,
        alt=_spoken(probabilities, subject.model.classes),
    )
    if subject.head in _HEADS:
        st.caption(_HEADS[subject.head])


def what_it_sees(look: Look, width: int | Literal["stretch"] = "stretch") -> None:
    """The part of the picture that the network sees, `width` pixels wide."""
    visible = look.subject.model.visible(look.picture.image)
    st.caption(f"Seen as {visible.width} x {visible.height}")
    # Enlarged here, because a browser would blur the pixels.
    factor = max(1, 256 // visible.width)
    enlarged = visible.resize((visible.width * factor, visible.height * factor), Image.Resampling.NEAREST)
    st.image(enlarged, width=width, alt="The part of the picture that the network sees, at its resolution")


def _spoken(probabilities: NDArray[np.float32], classes: Sequence[str]) -> str:
    """The bars in words."""
    first = [int(index) for index in np.argsort(-probabilities, kind="stable")[:3]]
    shares = ", ".join(f"{classes[index]} {probabilities[index]:.0%}" for index in first)
    return f"Bars of the most probable classes: {shares}"
