"""A run that begins with the networks of another, and a replay that a log keeps its share of."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rllib_odac.replay.buffer import GoalReplay
from tests.made_up import episode as make_episode


@pytest.mark.parametrize("share", [0.25, 0.5, None])
def test_a_log_keeps_its_share_of_the_draws(share):
    replay = GoalReplay(2000, 2, 2, 2, {"own": 1.0}, seed=0, logged_share=share)
    for number in range(20):
        episode = make_episode(number, 10)
        episode.observation[:] = number
        replay.add(episode)
        if number == 1:
            replay.mark_logged()
    drawn = replay.sample(20_000).observation[:, 0]
    expected = 0.1 if share is None else share
    assert float((drawn < 2).double().mean()) == pytest.approx(expected, abs=0.02)
    counts = torch.bincount(drawn.long(), minlength=20).double()
    assert (counts[2:] / counts[2:].mean() - 1).abs().max() < 0.2  # each of the others alike


def test_what_is_left_of_a_log_keeps_the_share_until_it_is_gone(tmp_path):
    replay = GoalReplay(110, 2, 2, 2, {"own": 1.0}, seed=0, logged_share=0.5)
    for number in range(14):  # ten episodes fit
        episode = make_episode(number, 10)
        episode.observation[:] = number
        replay.add(episode)
        if number == 4:
            replay.mark_logged()
    drawn = replay.sample(10_000).observation[:, 0]
    assert float(drawn.min()) == 4
    assert float((drawn == 4).double().mean()) == pytest.approx(0.5, abs=0.03)
    with (tmp_path / "r").open("wb") as file:
        replay.write(file)
    again = GoalReplay(110, 2, 2, 2, {"own": 1.0}, seed=1, logged_share=0.5)
    with (tmp_path / "r").open("rb") as file:
        again.read(file, "r")
    np.testing.assert_array_equal(again.sample(100).observation, replay.sample(100).observation)
    replay.add(make_episode(0, 10))
    assert float((replay.sample(1000).observation[:, 0] == 5).double().mean()) < 0.2
