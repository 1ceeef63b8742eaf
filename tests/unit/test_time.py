"""Time as a part of what is observed, and the objective that needs it."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch

from rllib_odac import make_env, make_vector_env
from rllib_odac.envs.goals import goals_of
from tests.conftest import small_config
from tests.made_up import judge
from tests.unit.test_env_runner import make_runner


@pytest.mark.parametrize("env_id", ["odac/Box2D-v0", "FetchReach-v4"])
def test_the_last_number_is_the_share_of_the_time_that_is_gone(env_id):
    plain, timed = make_env(env_id), make_env(env_id, shows_time=True)
    for _ in range(2):  # it begins anew with each episode
        ours, _ = timed.reset(seed=0)
        theirs, _ = plain.reset(seed=0)
        seen, ended = [], False
        while not ended:
            assert timed.observation_space.contains(ours)
            assert np.array_equal(ours["observation"][:-1], theirs["observation"])
            assert np.array_equal(ours["achieved_goal"], theirs["achieved_goal"])
            seen.append(float(ours["observation"][-1]))
            action = plain.action_space.sample()
            ours, _, _, ended, _ = timed.step(action)
            theirs, *_ = plain.step(action)
        assert seen == pytest.approx(np.arange(50) / 50)
        assert ours["observation"][-1] == 1
    assert goals_of(timed) == goals_of(plain)


def test_vector_environments_show_it_too():
    vector = make_vector_env("odac/Box2D-v0", 3, shows_time=True)
    observation, _ = vector.reset(seed=0)
    assert observation["observation"].shape == (3, 3)
    for step in range(1, 4):
        observation, *_ = vector.step(vector.action_space.sample())
        assert observation["observation"][:, -1] == pytest.approx(step / 50)
    vector.close()


def test_there_is_no_share_without_a_limit():
    def endless():
        return make_env("odac/Box2D-v0").unwrapped

    with pytest.raises(ValueError, match="shows_time is True, but must be False for"):
        make_env(lambda: gym.wrappers.OrderEnforcing(EndlessBox(endless())), shows_time=True)


class EndlessBox(gym.Wrapper):
    spec = None


def test_the_objective_asks_for_it():
    config = small_config(objective="horizon")
    assert config.env_arguments == {"shows_time": True}
    assert config.make_env().observation_space["observation"].shape == (3,)
    assert small_config().env_arguments == {}
    episode = make_runner(objective="horizon").sample(num_episodes=1)[0]
    assert episode.observation[:, -1] == pytest.approx(np.arange(51) / 50)


def test_only_the_last_step_is_paid():
    objective = small_config(objective="horizon").build_objective()
    times = torch.tensor([[0.0, 0.98], [0.0, 1.0]])
    batch = judge(torch.zeros(2, 2), torch.tensor([-3.0, -3.0]), next_observation=times)
    backup = objective.reward_and_discount(batch, torch.zeros(2))
    assert backup.reward.tolist() == [0.0, -3.0]
    assert backup.discount.tolist() == [1.0, 0.0]
    assert objective.value_of_staying(batch).tolist() == [-3.0, -3.0]
