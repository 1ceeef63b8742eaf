"""Reports as one HTML page that loads nothing else: `page.html.jinja` and what fills it.

Jinja2 escapes every text. What is HTML already is `Markup`: pictures, and texts with subscripts.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

NO_SCRIPT = Markup("")


@dataclass
class Table:
    """Rows of cells.

    Attributes:
        rows: The texts of each row, its name first.
        head: Titles of the columns, if they have any.
        kinds: For each row "best", "default" or "", which decides its colour.
    """

    rows: Sequence[Sequence[str]]
    head: Sequence[str] = ()
    kinds: Sequence[str] = ()


@dataclass
class Section:
    """A part of the page; what is empty is left out, the rest stands in this order.

    Attributes:
        heading: Its heading.
        equation: A formula; what follows an underscore becomes a subscript.
        text: A paragraph.
        pictures: From `png` or `svg`.
        table: A table.
        items: A list.
        code: A text in which lines and spaces count, with `code_text` above it.
        note: A paragraph in small print.
        beside: Whether pictures stand beside each other where there is room.
    """

    heading: str
    equation: str = ""
    text: str = ""
    pictures: Sequence[Markup] = ()
    table: Table | None = None
    items: Sequence[str] = ()
    code_text: str = ""
    code: str = ""
    note: str = ""
    beside: bool = False


def render_page(
    title: str,
    lead: str,
    sections: Sequence[Section],
    summary: str = "",
    facts: Table | None = None,
    script: Markup = NO_SCRIPT,
) -> str:
    """The page as HTML.

    Args:
        title: The page's title and heading.
        lead: The first paragraph, in small print.
        sections: Its parts, in order.
        summary: A sentence that says what came out.
        facts: A table below it.
        script: What the page runs in a browser; reports run nothing.
    """
    environment = Environment(
        loader=PackageLoader("rllib_odac", "evaluation"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["subscripts"] = with_subscripts
    template = environment.get_template("page.html.jinja")
    return template.render(
        title=title, lead=lead, summary=summary, facts=facts, sections=sections, script=script
    )


def png(file: Path, description: str) -> Markup:
    """A PNG inside the page, with the text that stands for it where it cannot be seen."""
    data = base64.b64encode(file.read_bytes()).decode()
    return Markup('<img alt="{}" src="data:image/png;base64,{}">').format(description, data)


def svg(text: str) -> Markup:
    """An SVG inside the page; what comes before its first tag, XML's preamble, is left out."""
    return Markup(text[text.index("<svg") :])


def with_subscripts(text: str) -> Markup:
    """Escaped text in which the letter after an underscore, or the braces there, is a subscript."""
    return Markup(re.sub(r"_(?:\{([^}]*)\}|(\w))", r"<sub>\1\2</sub>", str(escape(text))))
