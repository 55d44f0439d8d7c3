"""What is kept between runs of a page, for all sessions.

Results are found by the network's name, the SHA-256 of the picture and the frozen question. Arguments that start with
an underscore are no part of the key: Streamlit hashes large arrays from a sample, which would mix results up.
"""

import numpy as np
import streamlit as st
from numpy.typing import NDArray
from PIL import Image

from plugin.experiments.sanity import RandomisationCheck
from plugin.propagation.lrp.ledger import Ledger

from . import attributions, images, ledgers, networks, sanity, tour, units, zero_maps
from .attributions import Question, Result
from .images import Picture
from .networks import Subject
from .state import TOUR
from .tour_steps import Found


@st.cache_resource(max_entries=4, show_spinner="Loading the network …")
def subject(network: str, digest: str = "", _checkpoint: tuple[str, bytes] | None = None) -> Subject:
    """See `networks.open_network`; the digest stands for the checkpoint."""
    return networks.open_network(network, _checkpoint)


@st.cache_resource(max_entries=4, show_spinner="Decoding the picture …")
def upload(digest: str, name: str, _data: bytes) -> Picture:
    """See `images.uploaded`; the digest stands for the bytes."""
    return images.uploaded(_data, name)


@st.cache_data(max_entries=16, show_spinner=False)
def square(digest: str, _image: Image.Image) -> bytes:
    """See `images.square`: a page that is drawn again would spend half its time on it."""
    return images.square(_image)


@st.cache_data(max_entries=64, show_spinner=False)
def probabilities(network: str, digest: str, _subject: Subject, _image: Image.Image) -> NDArray[np.float32]:
    """See `attributions.probabilities`."""
    return attributions.probabilities(_subject, _image)


@st.cache_data(max_entries=16, show_spinner=False)
def responses(network: str, digest: str, layer: str, _subject: Subject, _image: Image.Image) -> NDArray[np.float32]:
    """See `attributions.responses`."""
    return attributions.responses(_subject, _image, layer)


@st.cache_data(max_entries=256, show_spinner="Computing the map …")
def result(network: str, digest: str, question: Question, _subject: Subject, _image: Image.Image) -> Result:
    """See `attributions.compute`."""
    return attributions.compute(_subject, _image, question)


@st.cache_data(max_entries=64, show_spinner=False)
def zero_reason(network: str, digest: str, question: Question, _subject: Subject, _image: Image.Image) -> str:
    """See `zero_maps.reason`."""
    return zero_maps.reason(_subject, _image, question)


@st.cache_data(max_entries=64, show_spinner="Making layers random …")
def randomised(
    network: str, digest: str, question: Question, layers: int, _subject: Subject, _image: Image.Image
) -> RandomisationCheck:
    """See `sanity.check`."""
    return sanity.check(_subject, _image, question, layers)


@st.cache_data(max_entries=64, show_spinner=False)
def pooled(network: str, layer: str, _subject: Subject) -> bool:
    """See `units.is_pooled`."""
    return units.is_pooled(_subject, layer)


@st.cache_data(max_entries=256, show_spinner=False)
def excitation(
    network: str, digest: str, question: Question, _subject: Subject, _image: Image.Image, _result: Result
) -> float | None:
    """See `units.excitation`."""
    return units.excitation(_subject, _image, question.layer, question.neuron, _result)


@st.cache_data(max_entries=64, show_spinner="Keeping the books …")
def ledger(network: str, digest: str, question: Question, _subject: Subject, _image: Image.Image) -> Ledger:
    """See `ledgers.compute`."""
    return ledgers.compute(_subject, _image, question)


@st.cache_resource(max_entries=len(TOUR), show_spinner="Computing the figure …")
def tour_step(step: str) -> Found:
    """See `tour.compute`. The figure is shared by all sessions, and nobody changes it."""
    return tour.compute(step, subject)
