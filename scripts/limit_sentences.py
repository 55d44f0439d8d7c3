"""The sentences of the documentation that quote the results of `scripts/limits.py`.

A field in braces stands for a number, and dots for any text. `updated` puts the stored numbers into the fields.
"""

import re

PRESETS = (
    "epsilon",
    "epsilon_plus",
    "epsilon_plus_flat",
    "epsilon_gamma_box",
    "epsilon_alpha2_beta1",
    "epsilon_alpha2_beta1_flat",
    "excitation_backprop",
)
PRESETS_FOR_ATTENTION = ("attn_lrp", "cp_lrp")


def row_of(preset: str) -> str:
    """The name of a preset's row in the stored results."""
    return f"preset-{preset.replace('_', '-')}"


def _of_presets() -> list[str]:
    start, numbers = "### `{0}` ... * **Limits**: ", "last layer was randomised, {{{1}.classes}} between two classes"
    own = start + "{{{1}.weights}} after the " + numbers + ", removal ratio {{{1}.removal}}"
    attention = start + "on the digits {{{1}.weights}} after the " + numbers + ", removal ratio {{{1}.removal}}"
    return [own.format(name, row_of(name)) for name in PRESETS] + [
        attention.format(name, f"attention.{row_of(name)}") for name in PRESETS_FOR_ATTENTION
    ]


SENTENCES = {
    "docs/methods/README.md": [
        "of its strongest pixels, {colours.least} to {colours.most} move the logit",
        "{accuracy} of the test images right",
    ],
    "docs/methods/gradient.md": [
        "whose last layer was randomised is {gradient.weights}",
        "between the maps of two classes is {gradient.classes}",
    ],
    "docs/methods/deconvnet.md": [
        "was randomised is {deconvnet.weights}, and {linear-adjoint.weights} for the linear adjoint",
        "between two classes it is {deconvnet.classes} and {linear-adjoint.classes}",
        "than a random order (ratio {deconvnet.removal})",
    ],
    "docs/methods/guided-backprop.md": [
        "was randomised is {guided-backprop.weights}; between two classes it is {guided-backprop.classes}",
    ],
    "docs/methods/guided-grad-cam.md": [
        "was randomised is {guided-grad-cam.weights}, and {guided-grad-cam.weights_signed} with signs",
        "between two classes it is {guided-grad-cam.classes}, and {guided-grad-cam.classes_signed} with signs",
    ],
    "docs/methods/lrp.md": [
        "the rank correlation is {preset-epsilon.weights} after the last layer",
        "was randomised and {preset-epsilon.classes} between two classes",
        "and on the class: {preset-epsilon-plus.weights} and {preset-epsilon-plus.classes} for `epsilon_plus`",
        "For alpha 2, beta 1 the rank correlations are {preset-epsilon-alpha2-beta1.weights} and",
        "For alpha 2, beta 1 the rank correlations are ... and {preset-epsilon-alpha2-beta1.classes}",
        "0.25 in every layer the rank correlations are {rule-gamma.weights} and {rule-gamma.classes}",
        "kernel. With z-plus above, the rank correlations are {rule-w-square.weights} and {rule-w-square.classes}",
        "as for w-square; {preset-epsilon-plus-flat.weights} and {preset-epsilon-plus-flat.classes} for",
        "their sign. With z-plus above, the rank correlations are {rule-box.weights} and {rule-box.classes}",
        *_of_presets(),
        "the positive relevance was {lrp_0 least} to {lrp_0 most} times the logit",
        "For the cat, biases absorb {cat absorbed} of the logit of {cat logit}",
        "so the sum over the pixels is {cat pixels}.",
    ],
    "docs/lrp.md": [
        "the positive relevance of `lrp_0` is {lrp_0 least} to {lrp_0 most} times the logit",
        "z+ and gamma presets is at most {one-sided most} times the logit",
    ],
    "docs/which-method.md": [
        "depends little on the class: {preset-epsilon-plus-flat.classes} between two classes",
        "hardly depends on the last layer ({guided-backprop.weights})",
        "is {gradient.removal} for the gradient and {guided-backprop.removal} for guided backprop",
        "{preset-epsilon.removal} for `epsilon`; {preset-epsilon-plus-flat.removal} for `epsilon_plus_flat`",
    ],
    "docs/explorer.md": [
        "Of maps of random numbers {random-maps.all-cnn-c} (All-CNN-C) and {random-maps.mnist-classifier} (the",
    ],
}
_NUMBER = r"(-?\d+(?:\.\d+)?(?:\s%)?)"


def updated(text: str, sentences: list[str], values: dict[str, str]) -> str:
    """A page with the numbers of `values` in its sentences; those with a field that `values` lacks stay as they are.

    Raises:
        ValueError: the page has no such sentence.
    """
    for sentence in sentences:
        fields = re.findall(r"\{(.+?)\}", sentence)
        if not all(field in values for field in fields):
            continue
        found = re.search(_pattern(sentence), text)
        if found is None:
            raise ValueError(f"the page lacks the sentence {sentence!r}")
        for group, field in reversed([*enumerate(fields, start=1)]):
            text = text[: found.start(group)] + values[field] + text[found.end(group) :]
    return text


def _pattern(sentence: str) -> str:
    """Lines may end at any space."""
    parts = [
        _NUMBER if part.startswith("{") else r"[\s\S]*?" if part == "..." else re.escape(part)
        for part in re.split(r"(\{.+?\}|\.\.\.)", sentence)
    ]
    return "".join(parts).replace(r"\ ", r"\s+")
