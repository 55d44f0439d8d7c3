"""Text that somebody else wrote, such as a link's or a file's, as Markdown in which nothing is rendered."""

import re


def quoted(value: str, longest: int = 40) -> str:
    """A stranger's text as Markdown code, cut short."""
    kept = "".join(character for character in value if character.isprintable() and character != "`")
    return f"`{kept[:longest] or ' '}{'…' if len(kept) > longest else ''}`"


def markdown_sentence(text: object) -> str:
    """A message, such as an exception, as one sentence. The name of a file or network at its start stays as it is."""
    sentence = str(text).strip().rstrip(".") + "."
    if not re.match(r"\S*[./:]\S", sentence):
        sentence = sentence[:1].upper() + sentence[1:]
    return escaped(sentence)


def escaped(text: str) -> str:
    """A text as it is, such as the name of a layer."""
    return re.sub(r"([\\`*_{}\[\]<>()#+|~$:!])", r"\\\1", text)
