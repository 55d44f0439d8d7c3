"""The limits of the methods in the documentation: how they are measured, and that the pages have the stored results."""

import json
import sys
from pathlib import Path

import pytest
import torch
from support.browser import ROOT
from torch import Tensor

sys.path.insert(0, str(ROOT / "scripts"))

import limits
from limit_sentences import SENTENCES, updated


@pytest.mark.parametrize("part", limits.PARTS)
def test_every_part_is_stored(part: str) -> None:
    assert part in json.loads(limits.STORED.read_text(encoding="utf-8")), f"run python scripts/limits.py {part}"


@pytest.mark.parametrize("page", SENTENCES)
def test_pages_have_the_stored_results(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    rewritten = limits.rewritten(page, text, json.loads(limits.STORED.read_text(encoding="utf-8")))
    differing = [line for line in rewritten.splitlines() if line not in text.splitlines()]
    assert rewritten == text, f"run python scripts/limits.py --pages; then the page has {differing}"


def test_the_pages_are_rewritten_without_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the page says; no part is named, and none is measured."""
    written: dict[Path, str] = {}
    monkeypatch.setattr(limits, "write_text", lambda path, text: written.update({path: text}))
    monkeypatch.setattr(sys, "argv", ["limits.py", "--pages"])
    limits.main()
    assert written == {ROOT / page: (ROOT / page).read_text(encoding="utf-8") for page in SENTENCES}
    monkeypatch.setattr(sys, "argv", ["limits.py", "gradients"])
    with pytest.raises(SystemExit):
        limits.main()


def test_numbers_are_put_into_sentences() -> None:
    sentences = ["of {a} and {b} of", "### last ... is {c}"]
    text = "Shares of -0.10 and\n  5 % of them.\n### first is 7\n### last\nIt is 8."
    found = updated(text, sentences, {"a": "0.25", "b": "61 %", "c": "9"})
    assert found == "Shares of 0.25 and\n  61 % of them.\n### first is 7\n### last\nIt is 9."
    assert updated(text, sentences, {"c": "9"}) == text.replace("is 8", "is 9"), "the others are not known"
    with pytest.raises(ValueError, match="lacks the sentence"):
        updated("### first is 7", sentences, {"c": "9"})


@pytest.mark.parametrize(("sign", "share"), [(1, 1.0), (-1, 0.0)])
def test_colours_of_the_exact_effects_are_right_and_their_negatives_wrong(sign: int, share: float) -> None:
    """The effects of a linear score are known: the weight times the difference from the mean colour."""
    torch.manual_seed(0)
    image, weight = torch.randn(2, 1, 3, 8, 8, dtype=torch.float64)

    def score(pictures: Tensor) -> Tensor:
        return (pictures * weight).sum((1, 2, 3))

    effects = weight * (image - image.mean((2, 3), keepdim=True))
    assert limits.share_of_colours(score, image, sign * effects) == share


def test_half_of_the_colours_of_random_maps_are_right() -> None:
    torch.manual_seed(0)
    images, weight = torch.randn(40, 3, 8, 8), torch.randn(3, 8, 8)
    shares = [
        limits.share_of_colours(lambda pictures: (pictures * weight).sum((1, 2, 3)), image, torch.randn(1, 3, 8, 8))
        for image in images.split(1)
    ]
    assert sum(shares) / len(shares) == pytest.approx(0.5, abs=0.06)
