"""A GPU does as the CPU does: replay and update.

Each is also held against itself on the CPU, which shows, where there is no GPU, that it can pass.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ray.rllib.core import DEFAULT_MODULE_ID

from rllib_odac.agent.batch import make_batches
from rllib_odac.replay.buffer import GoalReplay
from rllib_odac.replay.episodes import GoalEpisode
from tests.conftest import DEVICES
from tests.made_up import episode, make_learner
from tests.unit.test_replay import load, save

RELABEL = {"future": 0.8, "own": 0.2}


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
    assert {column.device.type for column in batch if column is not None} == {device}
    batch = batch.map(torch.Tensor.cpu)
    now, following, goal = batch.achieved_goal, batch.next_achieved_goal, batch.goal
    relabelled = batch.relabelled
    assert torch.equal(following, now + torch.tensor([0.0, 1.0]))
    assert torch.equal(goal[:, 0], now[:, 0])
    assert (goal[relabelled, 1] > now[relabelled, 1]).all()
    assert (goal[~relabelled, 1] == -1).all()

    expected = filled_replay("cpu", seed=1).sample(size)
    # Six standard errors of a difference of two shares or means of numbers up to ten.
    assert abs(relabelled.double().mean() - expected.relabelled.double().mean()) < 0.017
    for column, other in ((now, expected.achieved_goal), (goal, expected.goal)):
        error = column.double().std(0) * (2 / size) ** 0.5
        assert ((column.double().mean(0) - other.double().mean(0)).abs() < 6 * error).all()


@pytest.mark.parametrize("source", DEVICES)
@pytest.mark.parametrize("target", DEVICES)
def test_a_replay_saved_on_one_device_loads_on_another(source, target, tmp_path):
    saved, loaded = filled_replay(source), GoalReplay(1000, 2, 2, 1, RELABEL, device=target)
    save(saved, tmp_path / "replay.npz")
    load(loaded, tmp_path / "replay.npz")
    for before, after in zip(saved.episodes(), loaded.episodes(), strict=True):
        np.testing.assert_array_equal(before.achieved_goal, after.achieved_goal)
        np.testing.assert_array_equal(before.desired_goal, after.desired_goal)
    goals = loaded.sample(50).goal
    assert goals.device.type == target
    if source == target:  # generators of different devices are not alike
        assert torch.equal(goals, saved.sample(50).goal)


def learner_on(device, **settings):
    """A learner with four episodes of its own making in its replay."""
    exact = {"matmul_precision": "highest", "num_gpus_per_learner": int(device == "cuda")}
    learner = make_learner(**exact, **settings)
    assert learner._device.type == learner.replay.device.type == device
    assert {parameter.device.type for parameter in learner.networks.parameters()} == {device}
    return learner


def drawn_batch(learner, size=256):
    """A batch with its noise, on the CPU."""
    draw = learner.replay.sample(size).map(torch.Tensor.cpu)
    generator = torch.Generator().manual_seed(0)
    [batch] = make_batches(learner.networks, [draw], size, generator)
    return batch


def updated_from(learner, batch, times):
    """The losses of `times` updates, and the gradients of the first."""
    losses, gradients = [], {}
    batch = torch.utils._pytree.tree_map_only(
        torch.Tensor, lambda column: column.to(learner._device), batch
    )
    for _ in range(times):
        losses.append(float(learner._step(batch).total_loss.detach()))
        if not gradients:
            named = learner.networks.named_parameters()
            gradients = {n: p.grad.cpu().clone() for n, p in named if p.requires_grad}
    return losses, gradients


@pytest.mark.parametrize("objective", ["odac", "her", "discern", "uvd"])
@pytest.mark.parametrize("device", DEVICES)
def test_updates_on_a_device_are_those_of_the_cpu(device, objective):
    reference = learner_on("cpu", objective=objective)
    learner = learner_on(device, objective=objective)
    learner.networks.load_state_dict(reference.networks.state_dict())
    batch = drawn_batch(reference)
    expected, expected_gradients = updated_from(reference, batch, times=20)
    losses, gradients = updated_from(learner, batch, times=20)
    assert losses[0] != losses[-1]
    assert losses == pytest.approx(expected, rel=1e-3)  # twenty steps of Adam multiply rounding
    assert gradients.keys() == expected_gradients.keys()
    for name, gradient in gradients.items():
        size = expected_gradients[name].abs().max()
        assert (gradient - expected_gradients[name]).abs().max() <= 1e-4 * size, name


@pytest.mark.parametrize("device", DEVICES)
def test_a_call_on_a_device_takes_episodes_makes_its_updates_and_tells_of_them(device):
    learner = learner_on(device)
    told = learner.update(episodes=[episode(9)], num_updates=20)[DEFAULT_MODULE_ID]
    assert learner.num_updates == 20
    assert len(learner.replay) == 100
    assert all(np.isfinite(float(value)) for value in told.values())
