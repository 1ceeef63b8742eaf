"""One self-contained HTML page of pictures, each with an explanation in plain words."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from rllib_odac.evaluation.captions import Caption

STYLE = """
:root { color-scheme: light dark; --ink: #1b1b1b; --paper: #fbfbfa; --quiet: #5a5a5a;
        --line: #d9d9d6; --box: #f0f0ed; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8e8e6; --paper: #17181a; --quiet: #a9abad; --line: #3a3c3f; --box: #232528; } }
body { margin: 0 auto; max-width: 62rem; padding: 2rem 1.2rem 4rem; background: var(--paper);
       color: var(--ink); font: 16px/1.55 system-ui, sans-serif; }
h1 { font-size: 1.7rem; margin-bottom: .2rem; } h2 { font-size: 1.2rem; margin-top: 2.6rem; }
p { max-width: 46rem; } .quiet { color: var(--quiet); }
.equation { font: italic 1.05em/1.5 ui-serif, Cambria, Georgia, serif; padding: .6rem .9rem;
            background: var(--box); border-left: 3px solid #0072B2; overflow-x: auto; }
img { width: 100%; height: auto; background: white; border: 1px solid var(--line);
      border-radius: 6px; }
table { border-collapse: collapse; } td, th { padding: .25rem .9rem .25rem 0; text-align: left;
       border-bottom: 1px solid var(--line); font-weight: normal; }
td { font-variant-numeric: tabular-nums; } th { color: var(--quiet); }
"""


@dataclass
class Picture:
    """A picture, a PNG, and the words that go with it."""

    file: Path
    caption: Caption


def write_report(
    file: Path,
    title: str,
    lead: str,
    facts: Mapping[str, str],
    pictures: Sequence[Picture],
    missing: Sequence[str],
) -> None:
    """Writes the page; pictures are inside, and nothing is loaded from anywhere.

    Args:
        file: HTML to write.
        title: Heading.
        lead: The first paragraph.
        facts: A table of names and values.
        pictures: In order.
        missing: Sentences on what is not there, and why.
    """
    rows = "".join(f"<tr><th>{escape(k)}</th><td>{escape(v)}</td></tr>" for k, v in facts.items())
    parts = [
        f"<h1>{escape(title)}</h1><p class='quiet'>{escape(lead)}</p><table>{rows}</table>",
        *(_section(picture) for picture in pictures),
    ]
    if missing:
        items = "".join(f"<li>{escape(sentence)}</li>" for sentence in missing)
        parts.append(f"<h2>What is not shown</h2><ul>{items}</ul>")
    page = (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>"
        f"<body>{''.join(parts)}</body></html>\n"
    )
    file.write_text(page, encoding="utf-8")


def _section(picture: Picture) -> str:
    data = base64.b64encode(picture.file.read_bytes()).decode()
    title, formula, text = picture.caption
    equation = f"<p class='equation'>{_with_indices(formula)}</p>" if formula else ""
    return (
        f"<h2>{escape(title)}</h2>{equation}<p>{_with_indices(text)}</p>"
        f"<img alt='{escape(title, quote=True)}' src='data:image/png;base64,{data}'>"
    )


def _with_indices(text: str) -> str:
    """Escaped text, with what follows an underscore, or stands in braces behind it, below."""
    return re.sub(r"_(?:\{([^}]*)\}|(\w))", r"<sub>\1\2</sub>", escape(text))
