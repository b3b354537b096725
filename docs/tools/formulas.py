"""Turns formulas into MathML when the site is built. Browsers draw MathML without a script and without a font."""

from __future__ import annotations

import html
import re
from typing import Any

from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError

FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
LEFT_OVER = re.compile(r"\\|<mi>&</mi>")
"""The converter leaves LaTeX that it does not know unchanged."""


def on_page_content(content: str, *, page: Any, **_: Any) -> str:
    """Replace each formula of a page. Raises PluginError for LaTeX that cannot be converted."""

    def mathml(found: re.Match[str]) -> str:
        display = "block" if found[1] == "div" else "inline"
        formula = convert(html.unescape(found[2]).strip(), display=display)
        if LEFT_OVER.search(formula):
            raise PluginError(f"{page.file.src_uri}: a formula that cannot be converted: {found[2]}")
        return f"<div>{formula}</div>" if display == "block" else formula

    return FORMULA.sub(mathml, content)
