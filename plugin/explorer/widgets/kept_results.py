"""What is kept between runs of a page, for all sessions.

Results are found by what they depend on: the identity of the network, the SHA-256 of the picture and the frozen
question. Arguments that start with an underscore are no part of the key: Streamlit hashes large arrays from a sample,
which would mix results up.
"""

from typing import Any

import numpy as np
import streamlit as st
from numpy.typing import NDArray
from PIL import Image

from plugin.experiments.sanity import RandomisationCheck
from plugin.propagation.lrp.ledger import Ledger

from ..inputs import offered_networks, offered_pictures
from ..inputs.offered_pictures import Picture
from ..inputs.subject import Subject
from ..maps import answers, ledgers, sanity_checks, zero_maps
from ..maps.answers import Result
from ..maps.questions import Asked, Look


def _of_network(subject: Subject) -> str:
    return subject.identity


def _of_look(look: Look) -> tuple[str, str]:
    return look.subject.identity, look.picture.digest


def _of_asked(asked: Asked) -> tuple[object, ...]:
    # What needs no picture is the same for all of them.
    return asked.subject.identity, asked.picture.digest if asked.question.needs_picture else "", asked.question


# How Streamlit finds what depends on these.
BY_IDENTITY: dict[str | type[Any], Any] = {Subject: _of_network, Look: _of_look, Asked: _of_asked}


@st.cache_resource(max_entries=4, show_spinner="Loading the network …")
def subject(network: str, digest: str = "", _checkpoint: tuple[str, bytes] | None = None) -> Subject:
    """See `offered_networks.open_network`; the digest stands for the checkpoint."""
    return offered_networks.open_network(network, _checkpoint)


@st.cache_resource(max_entries=4, show_spinner="Decoding the picture …")
def upload(digest: str, name: str, _data: bytes) -> Picture:
    """See `offered_pictures.uploaded`; the digest stands for the bytes."""
    return offered_pictures.uploaded(_data, name)


@st.cache_data(max_entries=16, show_spinner=False)
def square(digest: str, _image: Image.Image) -> bytes:
    """See `offered_pictures.square`: a page that is drawn again would spend half its time on it."""
    return offered_pictures.square(_image)


@st.cache_data(max_entries=64, show_spinner=False, hash_funcs=BY_IDENTITY)
def probabilities(look: Look) -> NDArray[np.float32]:
    """See `answers.probabilities`."""
    return answers.probabilities(look.subject, look.picture.image)


@st.cache_data(max_entries=16, show_spinner=False, hash_funcs=BY_IDENTITY)
def responses(look: Look, layer: str) -> NDArray[np.float32]:
    """See `answers.responses`."""
    return answers.responses(look.subject, look.picture.image, layer)


@st.cache_data(max_entries=256, show_spinner="Computing the map …", hash_funcs=BY_IDENTITY)
def result(asked: Asked) -> Result:
    """See `answers.compute`."""
    return answers.compute(asked.subject, asked.picture.image, asked.question)


@st.cache_data(max_entries=64, show_spinner=False, hash_funcs=BY_IDENTITY)
def zero_reason(asked: Asked) -> str:
    """See `zero_maps.reason`."""
    return zero_maps.reason(asked.subject, asked.picture.image, asked.question)


@st.cache_data(max_entries=64, show_spinner="Making layers random …", hash_funcs=BY_IDENTITY)
def randomised(asked: Asked, layers: int) -> RandomisationCheck:
    """See `sanity_checks.check`."""
    return sanity_checks.check(asked.subject, asked.picture.image, asked.question, layers)


@st.cache_data(max_entries=64, show_spinner="Keeping the books …", hash_funcs=BY_IDENTITY)
def ledger(asked: Asked) -> Ledger:
    """See `ledgers.compute`."""
    return ledgers.compute(asked.subject, asked.picture.image, asked.question)
