"""Pictures of what was inferred, where there is little to draw."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.image import imread

from rllib_odac.evaluation import inference_plots as plots


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


def test_the_calibration_of_several_models_has_a_third_picture(tmp_path):
    rng = np.random.default_rng(0)
    prediction = {
        "predicted": rng.normal(size=(40, 2)),
        "realised": rng.normal(size=(40, 2)),
        "central_probability": rng.uniform(size=(40, 2)),
    }
    widths = []
    for name in ("one", "several"):
        plots.plot_calibration(prediction, "m", tmp_path / f"{name}.png")
        widths.append(imread(tmp_path / f"{name}.png").shape[1])
        prediction["disagreement"] = np.append(rng.uniform(size=39), 0.0)  # no logarithm
    assert widths[1] == pytest.approx(1.5 * widths[0], rel=0.01)
