"""The page of reports: every text is escaped, and nothing is loaded from anywhere."""

from __future__ import annotations

import re

from rllib_odac.evaluation.page import Section, Table, png, render_page, svg, with_subscripts


def test_the_page_escapes_texts_and_holds_its_pictures(tmp_path):
    (tmp_path / "dot.png").write_bytes(b"\x89PNG")
    sections = [
        Section(
            "<Value>",
            equation="q_T(t) = Π_{i<t} q_Δ(0 | s_i)",
            text="What & why, s_0.",
            pictures=[png(tmp_path / "dot.png", '"a" <dot>'), svg("<?xml?><svg>1</svg>")],
            table=Table([["best_of", "<1>"], ["b", "2"]], ["name", "#"], ["best", ""]),
            items=["nothing <else>"],
            code_text="As a file:",
            code="{\n}",
            note="small <print>",
        ),
        Section("Means", text=with_subscripts("γ_i < 1")),
    ]
    page = render_page("A & B", "lead", sections, "sum", Table([["coverage", "0.5"]]))
    assert "<title>A &amp; B</title>" in page
    assert "q<sub>T</sub>(t) = Π<sub>i&lt;t</sub> q<sub>Δ</sub>(0 | s<sub>i</sub>)" in page
    assert "<p>What &amp; why, s_0.</p>" in page
    assert "<p>γ<sub>i</sub> &lt; 1</p>" in page
    assert '<img alt="&#34;a&#34; &lt;dot&gt;" src="data:image/png;base64,iVBORw==">' in page
    assert "\n<svg>1</svg>\n" in page
    assert '<tr class="best"><td>best_of</td><td>&lt;1&gt;</td></tr>' in page
    assert "<li>nothing &lt;else&gt;</li>" in page
    assert "<pre>{\n}</pre>" in page
    assert '<p class="quiet">small &lt;print&gt;</p>' in page
    assert not re.search(r"(https?:|<script|<link|@import|url\()", page)


def test_what_a_section_has_not_is_left_out():
    page = render_page("A", "lead", [Section("One")])
    assert page.rstrip().endswith("<h2>One</h2>\n</body>\n</html>")
    assert page.count("<p") == 1
    assert "<table>" not in page
