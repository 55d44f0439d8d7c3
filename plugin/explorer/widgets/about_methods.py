"""The methods explained: those on the page, and behind a switch all the others."""

from collections.abc import Sequence

import streamlit as st

from ..choices.method_texts import about
from ..choices.offered_methods import OF_PICTURES
from .page_state import key


def about_methods(shown: Sequence[str]) -> None:
    """Descriptions of the methods of the page's maps, and of their use; on request those of all methods.

    Args:
        shown: keys of `METHODS`, in the order of the maps.
    """
    with st.expander("About the methods"):
        st.markdown("\n\n".join(about(method) for method in dict.fromkeys(shown)))
        if st.toggle("More methods", key=key("more_methods")):
            st.markdown("\n\n".join(about(method) for method in OF_PICTURES if method not in shown))
