"""Results that are kept between runs of a page, for all sessions.

The key of a result holds everything that it depends on: the identity of the network, the SHA-256 of the picture and the
frozen question. Arguments that start with an underscore are no part of the key. A result that is not kept is computed
when it is the session's turn, and the page shows the wait.
"""

from collections.abc import Callable, Hashable
from functools import wraps
from typing import ParamSpec, TypeVar

import numpy as np
import streamlit as st
from numpy.typing import NDArray
from PIL import Image

from plugin.experiments.sanity import RandomisationCheck
from plugin.propagation.lrp.ledger import Ledger

from ..inputs import offered_networks, offered_pictures
from ..inputs.offered_pictures import Picture
from ..inputs.own_weights import OwnWeights
from ..inputs.subject import Subject
from ..maps import answers, ledgers, sanity_checks, unit_relevance, zero_maps
from ..maps.answers import Answer
from ..maps.badges import Badge
from ..maps.questions import Asked, Look
from ..server.kept_files import OwnFile
from ..server.kept_values import KeptValues
from ..server.turns import CHECKS, MAPS, PROCESSOR, ahead_of_this

P = ParamSpec("P")
T = TypeVar("T")

# The badges of maps, by `of_asked`; measured in the background, see `map_badges`.
badges: KeptValues[Badge] = KeptValues(256, CHECKS)


def _of_its_network(about: Look | Asked, *_: object) -> str:
    return about.subject.device


def kept(
    most: int, key: Callable[P, Hashable], message: str = "", device: Callable[..., str] = lambda *_: PROCESSOR
) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """A decorator that keeps the values of a function; callers must not change them.

    Args:
        most: how many values are kept.
        key: from the function's arguments to everything that a value depends on.
        message: on the page while a value is made; empty shows none.
        device: from the function's arguments to the device on which a value is made.
    """

    def decorated(make: Callable[P, T]) -> Callable[P, T]:
        values: KeptValues[T] = KeptValues(most, MAPS)

        @wraps(make)
        def found(*args: P.args, **kwargs: P.kwargs) -> T:
            place = device(*args, **kwargs)
            return _waiting_for(values, key(*args, **kwargs), lambda: make(*args, **kwargs), message, place)

        return found

    return decorated


def _waiting_for(values: KeptValues[T], key: Hashable, make: Callable[[], T], message: str, device: str) -> T:
    """The value; meanwhile the page shows the reason for the wait."""
    places: list[st.delta_generator.DeltaGenerator] = []

    def told(ahead: int) -> None:
        if not places:
            places.append(st.empty())
        places[0].info(ahead_of_this(ahead))

    def made() -> T:
        for place in places:
            place.empty()
        if not message:
            return make()
        with st.spinner(message):
            return make()

    try:
        return values.get(key, made, told, device)
    finally:
        for place in places:
            place.empty()


def _of_network(network: str, weights: OwnWeights | None = None, device: str = PROCESSOR) -> tuple[str, ...]:
    # The files' places stand in programs, and are not for everybody.
    return network, device, *((weights.identity, *weights.places) if weights else ())


def of_look(look: Look) -> tuple[str, str, str]:
    """The key of a network that looks at a picture."""
    return look.subject.identity, look.subject.device, look.picture.digest


def of_asked(asked: Asked) -> tuple[Hashable, ...]:
    """The key of a map: everything that it depends on. A map that needs no picture has one key for all pictures."""
    picture = asked.picture.digest if asked.question.needs_picture else ""
    return asked.subject.identity, asked.subject.device, picture, asked.question


@kept(4, _of_network, "Loading the network …", lambda network, weights=None, device=PROCESSOR: device)
def subject(network: str, weights: OwnWeights | None = None, device: str = PROCESSOR) -> Subject:
    """See `offered_networks.open_network`."""
    return offered_networks.open_network(network, weights, device)


@kept(4, lambda file: (file.digest, file.place), "Decoding the picture …")
def own_picture(file: OwnFile) -> Picture:
    """See `offered_pictures.own`."""
    return offered_pictures.own(file)


@kept(16, lambda digest, _image: digest)
def square(digest: str, _image: Image.Image) -> bytes:
    """See `offered_pictures.square`: a page that is drawn again would spend half its time on it."""
    return offered_pictures.square(_image)


@kept(64, of_look, device=_of_its_network)
def outputs(look: Look) -> NDArray[np.float32]:
    """See `answers.outputs`."""
    return answers.outputs(look.subject, look.picture.image)


def probabilities(look: Look) -> NDArray[np.float32]:
    """See `answers.probabilities`, `(classes,)`."""
    return answers.probabilities(look.subject.head, outputs(look))


@kept(16, lambda look, layer: (*of_look(look), layer), device=_of_its_network)
def responses(look: Look, layer: str) -> NDArray[np.float32]:
    """See `answers.responses`."""
    return answers.responses(look.subject, look.picture.image, layer)


@kept(256, of_asked, "Computing the map …", _of_its_network)
def result(asked: Asked) -> Answer:
    """See `answers.compute`."""
    return answers.compute(asked.subject, asked.picture.image, asked.question)


@kept(64, of_asked, device=_of_its_network)
def zero_reason(asked: Asked) -> str:
    """See `zero_maps.reason`."""
    return zero_maps.reason(asked.subject, asked.picture.image, asked.question)


@kept(64, lambda asked, layers: (of_asked(asked), layers), "Making layers random …", _of_its_network)
def randomised(asked: Asked, layers: int) -> RandomisationCheck:
    """See `sanity_checks.check`."""
    return sanity_checks.check(asked.subject, asked.picture.image, asked.question, layers)


@kept(64, of_asked, "Adding up the relevance of each layer …", _of_its_network)
def ledger(asked: Asked) -> Ledger:
    """See `ledgers.compute`."""
    return ledgers.compute(asked.subject, asked.picture.image, asked.question)


@kept(16, lambda asked, layer: (of_asked(asked), layer), "Following the relevance to the layer …", _of_its_network)
def layer_relevance(asked: Asked, layer: str) -> NDArray[np.float32]:
    """See `unit_relevance.compute`."""
    return unit_relevance.compute(asked.subject, asked.picture.image, asked.question, layer)
