"""The page of pictures stands by itself."""

from __future__ import annotations

import re

import numpy as np

from rllib_odac.evaluation import inference_plots as plots
from rllib_odac.evaluation.captions import Caption
from rllib_odac.evaluation.report import Picture, write_report


def test_the_page_holds_its_pictures_and_loads_nothing(tmp_path):
    rng = np.random.default_rng(0)
    file = tmp_path / "value.png"
    distances = rng.uniform(0.001, 1, 9)
    plots.plot_value_outcome(
        list(rng.normal(size=9)), None, list(distances), [True] * 9, "nats", "m", file
    )
    page = tmp_path / "report.html"
    caption = Caption("<Value>", "q_T(t) = Π_{i<t} q_Δ(0 | s_i)", "What & why, s_0.")
    picture = Picture(file, caption)
    write_report(page, "A & B", "lead", {"coverage": "0.5"}, [picture], ["nothing <else>"])
    text = page.read_text()
    sources = re.findall(r"src='([^']*)'", text)
    assert len(sources) == 1
    assert sources[0].startswith("data:image/png;base64,iVBOR")
    assert not re.search(r"(https?:|<script|<link|@import|url\()", text)
    assert "q<sub>T</sub>(t) = Π<sub>i&lt;t</sub> q<sub>Δ</sub>(0 | s<sub>i</sub>)" in text
    assert "&lt;Value&gt;" in text
    assert "nothing &lt;else&gt;" in text
    assert "prefers-color-scheme: dark" in text


def test_episodes_without_pictures_and_goals_never_reached_are_drawn(tmp_path):
    steps = np.arange(10.0)
    quantities = {"reward": steps, "value": -steps}
    files = [tmp_path / f"{i}.png" for i in range(3)]
    plots.plot_episode(quantities, [1.0] * 11, None, [], "nats", "m", "title", files[0])
    frame = np.zeros((40, 60, 3), np.uint8)
    plots.plot_episode(quantities, [1.0] * 11, 0.1, [frame] * 11, "nats", "m", "title", files[1])
    never = np.full(3, np.nan)
    plots.plot_termination(np.full(11, 1 / 11), np.full(11, 1 / 11), never, never, files[2])
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in files)
