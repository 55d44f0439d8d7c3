"""A field for a network that Hugging Face's libraries have saved: its name on the Hub, or the path of its folder."""

import streamlit as st

from ..inputs import saved_networks
from ..server.untrusted_text import markdown_sentence
from .callbacks import uninterrupted
from .file_choice import OF
from .page_state import key, open_network


def draw(side: str = "") -> None:
    """Draw it where such networks can be opened; `side` is `settings.B` for B of a comparison."""
    if not saved_networks.may_be_opened():
        return
    typed = key(f"{side}saved_network")
    with st.expander(f"A network of Hugging Face{OF[side]}"):
        with st.form(f"{typed}.form", border=False, enter_to_submit=False):
            st.text_input(
                f"Name on the Hub, or path of a folder{OF[side]}", key=typed, placeholder="microsoft/resnet-18",
                help="From transformers or timm: a folder that save_pretrained has written. Only config.json, "
                "preprocessor_config.json and model.safetensors are read, and no code.",
            )  # fmt: skip
            st.form_submit_button(
                f"Open the network{OF[side]}", key=f"{typed}.open", on_click=_open, args=(typed, side)
            )
        if refused := st.session_state.get(f"{typed}.refused"):
            st.error(refused)


@uninterrupted
def _open(typed: str, side: str) -> None:
    """Callback of the button: open the network on all pages."""
    st.session_state.pop(f"{typed}.refused", None)
    try:
        with st.spinner("Reading the folder …"):
            name = saved_networks.named(st.session_state[typed])
    except (ValueError, OSError) as error:
        st.session_state[f"{typed}.refused"] = markdown_sentence(error)
        return
    open_network(name, side)
