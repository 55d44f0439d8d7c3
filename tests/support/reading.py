"""The legibility of a page: by axe-core, and by checks that axe-core lacks."""

from typing import Any

from axe_playwright_python.sync_playwright import Axe

SCHEMES, WIDTHS = ("light", "dark"), (1440, 390)
COMBINATIONS = tuple((scheme, width) for scheme in SCHEMES for width in WIDTHS)
# 24 by 24 pixels is a rule of WCAG 2.2, which axe-core leaves out unless it is asked.
_OPTIONS = {"resultTypes": ["violations"], "rules": {"target-size": {"enabled": True}}}
_SERIOUS = ("serious", "critical")
# Letters of charts are drawn, and axe-core does not look at them. Those on marks have the colour that suits the mark.
_FAINT = """() => {
    const numbers = colour => colour.match(/[\\d.]+/g).map(Number);
    const luminance = colour => colour.map(part => part / 255)
        .map(part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
        .reduce((sum, part, index) => sum + part * [0.2126, 0.7152, 0.0722][index], 0);
    const behind = luminance(numbers(getComputedStyle(document.querySelector('[data-testid=stApp]')).backgroundColor));
    const faint = [...document.querySelectorAll('.main-svg text:not(.hoverlayer *, .textpoint *)')].filter(text => {
        if (!text.textContent.trim() || text.closest('details:not([open])')) return false;
        const [low, high] = [behind, luminance(numbers(getComputedStyle(text).fill).slice(0, 3))].sort((a, b) => a - b);
        return (high + 0.05) / (low + 0.05) < 4.5;
    });
    return faint.map(text => text.textContent);
}"""
# Texts that lie over one another by more than the edges of their lines.
_COVERED = """() => {
    const main = document.querySelector('[data-testid=stMain]');
    const texts = document.createTreeWalker(main, NodeFilter.SHOW_TEXT), found = [];
    while (texts.nextNode()) {
        const node = texts.currentNode, parent = node.parentElement;
        if (!node.textContent.trim() || parent.closest('details:not([open]) > :not(summary), .hoverlayer, .modebar')
            || !parent.checkVisibility({opacityProperty: true, visibilityProperty: true})) continue;
        const range = document.createRange();
        range.selectNodeContents(node);
        for (const box of range.getClientRects()) {
            let right = box.right;
            for (let at = parent; at !== main; at = at.parentElement)
                if (getComputedStyle(at).overflowX === 'hidden')
                    right = Math.min(right, at.getBoundingClientRect().right);
            found.push([node.textContent.trim(), {left: box.left, right, top: box.top, bottom: box.bottom}, parent]);
        }
    }
    const covered = [];
    found.forEach(([text, box, parent], index) => found.slice(index + 1).forEach(([other, beside, above]) => {
        const wide = Math.min(box.right, beside.right) - Math.max(box.left, beside.left);
        const high = Math.min(box.bottom, beside.bottom) - Math.max(box.top, beside.top);
        if (parent !== above && wide > 2 && high > 5) covered.push(`${text} | ${other}`);
    }));
    return covered;
}"""


def complaints(page: Any) -> list[str]:
    """Complaints about a page of Playwright's, in lines; empty if there are none."""
    return [
        *_violations(page),
        *(f"faint: {text}" for text in page.evaluate(_FAINT)),
        *(f"covered: {text}" for text in page.evaluate(_COVERED)),
    ]


def _violations(page: Any) -> list[str]:
    return [
        f"{found['id']}: {node['html'][:200]}"
        for found in Axe().run(page, options=_OPTIONS).response["violations"]
        if found["impact"] in _SERIOUS
        for node in found["nodes"]
    ]
