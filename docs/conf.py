"""Sphinx: pages in Markdown, the reference from docstrings."""

import re
from importlib import metadata
from typing import Any

project, author = "vpotjax", "the vpotjax developers"
release = metadata.version("vpotjax")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = f"vpotjax {release}"
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "none"
autodoc_class_signature = "separated"
napoleon_use_ivar = True
exclude_patterns = ["_build"]
MARKS = r"(?<![:\w])([|*])|_(?=\W|$)"  # of reStructuredText


def _escaped(_app: Any, _what: str, _name: str, _object: Any, _options: Any, lines: list[str]) -> None:
    """Docstrings are plain text: bars, stars and underscores in their formulas mean themselves."""
    for i, line in enumerate(lines):
        parts = re.split(r"(`[^`]*`)", line)
        lines[i] = "".join(p if p.startswith("`") else re.sub(MARKS, r"\\\g<0>", p) for p in parts)


def setup(app: Any) -> None:
    """The hook."""
    app.connect("autodoc-process-docstring", _escaped, priority=900)
