"""The units of a layer that carry most of a map's relevance, each with a link to the pictures that excite it."""

from dataclasses import replace

import streamlit as st

from ...choices.settings import Settings
from ...inputs import layer_outputs
from ...inputs.layer_outputs import axes, unit_axis
from ...maps import unit_relevance
from ...maps.questions import Asked
from ...server.untrusted_text import escaped, markdown_sentence
from ...widgets import controls, kept_results, page_state

_COUNT, _WIDTH = 8, 150


def draw(settings: Settings, asked: Asked) -> None:
    """Draw the list, for a network with layers; without a choice, the layer is the one in the middle."""
    st.subheader("Which units does it come from?")
    halfway = layer_outputs.halfway(asked.subject.layers)
    controls.layer_list(asked.subject.layers, f"in the middle: {halfway}")
    layer = settings.layer or halfway
    try:
        relevance = kept_results.layer_relevance(asked, layer)
    except ValueError as error:
        st.warning(markdown_sentence(error))
        return
    whole = float(relevance.sum())
    st.caption(
        escaped(
            f"The units of {layer} with most relevance, summed over their positions, of {whole:.4g} in all; "
            "click one for the pictures that excite it most."
        )
    )
    name = axes(relevance.shape)[unit_axis(relevance.shape)].capitalize()
    with st.container(horizontal=True, gap="small"):
        for neuron, value in unit_relevance.strongest(relevance, _COUNT):
            with st.container(width=_WIDTH, gap="small"):
                unit = neuron[unit_axis(relevance.shape)]
                page_state.go_on("units", f"{name} {unit}", replace(settings, layer=layer, neuron=neuron))
                st.caption(f"{value:.3g}" + (f" ({value / whole:.0%})" if whole > 0 else ""))
