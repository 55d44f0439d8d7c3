"""The opening page: an introduction, one live picture, and the ways to the other pages."""

from typing import TYPE_CHECKING

import streamlit as st

from ...widgets import navigation

if TYPE_CHECKING:
    from ...choices.settings import Settings

_TEXT = (
    "Here you see which pixels of a picture led to a neural network's prediction, by the methods of *Striving for "
    "Simplicity* (Springenberg et al. 2015) and by later ones. Each map is computed while you look, and comes with the "
    "link, the Python program and the files that reproduce it. **Start with the guided tour**, or take the picture "
    "below to one of the pages and change the network, the picture, the class or the rule."
)


def draw() -> None:
    """Draw the page. Its text is on the screen before the networks are imported."""
    st.header("Which pixels led to this prediction?")
    st.markdown(_TEXT)
    navigation.link("tour", "Take the tour", {})
    opened, live, below = st.container(), st.container(), st.container()
    from ...inputs import offered_pictures
    from ...server.device_memory import OutOfDeviceMemory
    from ...server.untrusted_text import markdown_sentence
    from ...widgets import open_strip, page_state

    settings, notes = page_state.recall("", offered_pictures.samples())
    page_state.show_notes("", settings, notes)
    page_state.put(settings, "image")
    with opened:
        open_strip.draw("", settings)
    with live:
        try:
            _live(settings)
        except OutOfDeviceMemory as error:
            st.error(markdown_sentence(error))
    with below:
        st.subheader("Where to go")
        for path, target in navigation.pages().items():
            if path:
                # Long labels of links are cut on a phone, and captions are not.
                with st.container(horizontal=True, vertical_alignment="center"):
                    page_state.go_on(path, target.title, settings)
                    st.caption(target.purpose, width="content")
    page_state.remember("", settings)


def _live(settings: "Settings") -> None:
    """The picture and three maps of it: in one row, or two and two on a phone."""
    from ...choices.fitting import fit
    from ...inputs import offered_pictures
    from ...maps.questions import Look, question_of
    from ...widgets import kept_results, map_badges, page_state
    from . import live_maps

    shown = live_maps.live(settings)
    subject, picture = (
        kept_results.subject(shown.network, device=settings.runs_on),
        offered_pictures.sample(shown.image),
    )
    # The pages report choices of a link that the network does not have; here there is always a picture.
    shown, _ = fit(shown, subject.model.classes, subject.layers, subject.channels)
    look = Look(subject, picture)
    probabilities = kept_results.probabilities(look)
    top = int(probabilities.argmax())
    target = top if shown.target is None else shown.target
    st.segmented_control("Picture", live_maps.choices(settings), key=page_state.key("image"), required=True)
    asked = {method: look.ask(question_of(shown, method, top)) for method in shown.methods}
    results = {method: kept_results.result(each) for method, each in asked.items()}
    maps = [live_maps.tile(method, result, shown) for method, result in results.items()]
    tiles = [live_maps.given(subject, picture.image), *maps]
    for column, pair in zip(st.columns(2), (tiles[:2], tiles[2:]), strict=True):
        both = live_maps.paired(*pair)
        column.image(both.image, both.caption, width="stretch", alt=both.alternative)
    st.caption(live_maps.statement(shown, subject.model.classes, probabilities, target))
    for method, each in asked.items():
        st.markdown(live_maps.reading(method))
        map_badges.draw(each, results[method])
    in_full = live_maps.in_full(settings, shown)
    page_state.go_on("attribute", "These maps with their numbers, files and programs", in_full)
