"""The same replay on a GPU as on the CPU; "cpu" against itself shows that the test can pass."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rllib_odac.episodes import GoalEpisode
from rllib_odac.replay import GoalReplay

RELABEL = {"future": 0.8, "own": 0.2}
DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=[
            pytest.mark.gpu,
            pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no GPU"),
        ],
    ),
]


def filled_replay(device, seed=0, episodes=20, steps=10):
    """A replay whose achieved goals tell episode and step."""
    replay = GoalReplay(1000, 2, 2, 1, RELABEL, device=device, seed=seed)
    for index in range(episodes):
        achieved = np.stack([np.full(steps + 1, index), np.arange(steps + 1)], axis=1)
        own = np.tile([index, -1.0], (steps + 1, 1))
        columns = (achieved, achieved, own, np.zeros((steps, 1)))
        replay.add(GoalEpisode(*(column.astype(np.float32) for column in columns)))
    return replay


@pytest.mark.parametrize("device", DEVICES)
def test_samples_on_a_device_keep_their_episode_and_are_distributed_as_on_the_cpu(device):
    size = 40_000
    batch = filled_replay(device).sample(size)
    assert {column.device.type for column in batch.values()} == {device}
    now, following, goal = (
        batch[name].cpu() for name in ("achieved_goal", "next_achieved_goal", "goal")
    )
    relabelled = batch["relabelled"].cpu()
    assert torch.equal(following, now + torch.tensor([0.0, 1.0]))
    assert torch.equal(goal[:, 0], now[:, 0])
    assert (goal[relabelled, 1] > now[relabelled, 1]).all()
    assert (goal[~relabelled, 1] == -1).all()

    expected = filled_replay("cpu", seed=1).sample(size)
    # Six standard errors of a difference of two shares or means of numbers up to ten.
    assert abs(relabelled.double().mean() - expected["relabelled"].double().mean()) < 0.017
    for column, other in ((now, expected["achieved_goal"]), (goal, expected["goal"])):
        error = column.double().std(0) * (2 / size) ** 0.5
        assert ((column.double().mean(0) - other.double().mean(0)).abs() < 6 * error).all()


@pytest.mark.parametrize("source", DEVICES)
@pytest.mark.parametrize("target", DEVICES)
def test_a_replay_saved_on_one_device_loads_on_another(source, target, tmp_path):
    saved, loaded = filled_replay(source), GoalReplay(1000, 2, 2, 1, RELABEL, device=target)
    saved.save(tmp_path / "replay.npz")
    loaded.load(tmp_path / "replay.npz")
    for before, after in zip(saved.episodes(), loaded.episodes(), strict=True):
        np.testing.assert_array_equal(before.achieved_goal, after.achieved_goal)
        np.testing.assert_array_equal(before.desired_goal, after.desired_goal)
    goals = loaded.sample(50)["goal"]
    assert goals.device.type == target
    if source == target:  # generators of different devices are not alike
        assert torch.equal(goals, saved.sample(50)["goal"])
