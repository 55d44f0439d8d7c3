"""A map as a page shows it: the answer to a question, and how it is drawn."""

import re
from dataclasses import dataclass

from PIL import Image

from ..choices.settings import Settings
from ..inputs.subject import Subject
from . import map_names
from .answers import Answer
from .questions import Asked, Question


@dataclass(frozen=True)
class Shown:
    """A map on a page.

    Attributes:
        settings: how it is drawn.
        asked: the question that it answers.
        result: the answer.
        limit: the magnitude at which its colours end.
        note: a sentence below it, as Markdown whose only marks are those of code.
        side: "A" or "B" in a comparison.
    """

    settings: Settings
    asked: Asked
    result: Answer
    limit: float
    note: str = ""
    side: str = ""

    @property
    def question(self) -> Question:
        """The question that it answers."""
        return self.asked.question

    @property
    def subject(self) -> Subject:
        """The network."""
        return self.asked.subject

    @property
    def visible(self) -> Image.Image | None:
        """The picture that the network saw, drawn below the map; None where it saw none."""
        return self.subject.model.visible(self.asked.picture.image) if self.question.needs_picture else None

    @property
    def label(self) -> str:
        """The method, for people, and whether its rules were changed; after the side."""
        title = map_names.title(self.question)
        return f"{self.side}: {title}" if self.side else title

    @property
    def file(self) -> str:
        """The name of its files without their ending."""
        return map_names.map_file(self.asked, self.settings, self.limit)

    @property
    def name(self) -> str:
        """A name that tells the maps of a page apart, and may be part of a key."""
        return re.sub(r"[^A-Za-z0-9_-]", "-", f"{self.side}{self.settings.network}-{self.question.method}")
