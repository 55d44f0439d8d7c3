"""What is kept between runs of a page, for all sessions.

Results are found by the network's name, the SHA-256 of the picture and the frozen question. Arguments that start with
an underscore are no part of the key: Streamlit hashes large arrays from a sample, which would mix results up.
"""

import numpy as np
import streamlit as st
from numpy.typing import NDArray
from PIL import Image

from plugin.propagation.ledger import Ledger

from . import attributions, images, ledgers, networks
from .attributions import Question, Result
from .images import Picture
from .networks import Subject


@st.cache_resource(max_entries=3, show_spinner="Loading the network …")
def subject(network: str) -> Subject:
    """See `networks.open_network`."""
    return networks.open_network(network)


@st.cache_resource(max_entries=4, show_spinner="Decoding the picture …")
def upload(digest: str, name: str, _data: bytes) -> Picture:
    """See `images.uploaded`; the digest stands for the bytes."""
    return images.uploaded(_data, name)


@st.cache_data(max_entries=64, show_spinner=False)
def probabilities(network: str, digest: str, _subject: Subject, _image: Image.Image) -> NDArray[np.float32]:
    """See `attributions.probabilities`."""
    return attributions.probabilities(_subject, _image)


@st.cache_data(max_entries=64, show_spinner=False)
def most_active(network: str, digest: str, layer: str, _subject: Subject, _image: Image.Image) -> tuple[int, ...]:
    """See `attributions.most_active`."""
    return attributions.most_active(_subject, _image, layer)


@st.cache_data(max_entries=256, show_spinner="Computing the map …")
def result(network: str, digest: str, question: Question, _subject: Subject, _image: Image.Image) -> Result:
    """See `attributions.compute`."""
    return attributions.compute(_subject, _image, question)


@st.cache_data(max_entries=64, show_spinner="Keeping the books …")
def ledger(network: str, digest: str, question: Question, _subject: Subject, _image: Image.Image) -> Ledger:
    """See `ledgers.compute`."""
    return ledgers.compute(_subject, _image, question)
