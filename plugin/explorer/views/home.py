"""The opening page: what this is, one live picture, and where to start."""

from typing import TYPE_CHECKING

import streamlit as st

from .. import navigation

if TYPE_CHECKING:
    from ..state import Settings

_TEXT = (
    "Here you see what in a picture made a neural network say what it says, by the methods of *Striving for "
    "Simplicity* (Springenberg et al. 2015) and of what came after. Each map is computed while you look, and comes "
    "with the link, the Python program and the files that give it again. **Start with the guided tour**, or take the "
    "picture below to one of the pages and change the network, the picture, the class or the rule."
)
# What each page is for, in the order of the navigation.
PURPOSES = {
    "tour": "the argument of the paper, step by step, with live figures",
    "attribute": "several methods side by side: what spoke for a class, and what against it",
    "deconvnet": "what one unit looks for, without a picture and with one, with pooling and without",
    "lrp": "a rule for each layer, and where the relevance went",
    "code-space": "digits that excite a class or a unit most, searched for in the code space of a GAN",
    "invariance": "what invariant representation means, in three figures",
    "benchmarks": "time and memory against the gradient and other libraries",
}


def page() -> None:
    """Draw the page. Its text is on the screen before the networks are imported."""
    st.header("What made the network say so?")
    st.markdown(_TEXT)
    navigation.link("tour", "Take the tour", {})
    live, below = st.container(), st.container()
    from .. import controls, images

    settings, notes = controls.recall("home", images.samples())
    if notes:
        st.warning("  \n".join(notes))
    controls.put(settings, "image")
    with live:
        _live(settings)
    with below:
        st.subheader("Where to go")
        for path, target in navigation.pages().items():
            if path in PURPOSES:
                # Long labels of links are cut on a phone, and captions are not.
                with st.container(horizontal=True, vertical_alignment="center"):
                    controls.go_on(path, target.title, settings)
                    st.caption(PURPOSES[path], width="content")
    controls.remember("home", settings)


def _live(settings: "Settings") -> None:
    """The picture and three maps of it: in one row, or two and two on a phone."""
    from .. import attributions, caches, controls, images, opening
    from ..state import fit

    shown = opening.live(settings)
    subject, picture = caches.subject(shown.network), images.sample(shown.image)
    # What a link asks for that the network does not have is said by the pages; here there is always a picture.
    shown, _ = fit(shown, subject.model.classes, subject.layers, subject.channels)
    probabilities = caches.probabilities(subject.identity, picture.digest, subject, picture.image)
    top = int(probabilities.argmax())
    target = top if shown.target is None else shown.target
    st.segmented_control("Picture", opening.choices(settings), key=controls.key("image"), required=True)
    tiles = [opening.given(subject, picture.image)]
    for method in shown.methods:
        question = attributions.question_of(shown, method, top)
        result = caches.result(subject.identity, picture.digest, question, _subject=subject, _image=picture.image)
        tiles.append(opening.tile(method, result, shown))
    for column, pair in zip(st.columns(2), (tiles[:2], tiles[2:]), strict=True):
        both = opening.paired(*pair)
        column.image(both.image, both.caption, width="stretch", alt=both.alternative)
    st.caption(opening.statement(shown, subject.model.classes, probabilities, target))
    controls.go_on("attribute", "These maps with their numbers, files and programs", opening.in_full(settings, shown))
