"""The env runner: whole episodes, actions beside the states they led to, exploration."""

from __future__ import annotations

import numpy as np
import pytest

from rllib_odac.env_runner import TRAINING_SEEDS, GoalEnvRunner
from tests.conftest import small_config


def make_runner(**settings):
    # Without walls each step moves the ball by the action itself.
    config = small_config(env_config={"walls": "none"}, **settings)
    config.evaluation(evaluation_interval=None)
    return GoalEnvRunner(config=config, worker_index=0)


def test_only_whole_episodes_leave_with_actions_that_explain_them():
    runner = make_runner(num_envs_per_env_runner=3)
    assert runner.sample(num_timesteps=120) == []  # 40 steps each: none has ended
    episodes = runner.sample(num_timesteps=240)
    assert len(episodes) == 6
    assert runner.env_steps == 360
    for episode in episodes:
        assert len(episode) == 50
        assert not episode.terminated
        assert episode.observation.dtype == episode.actions.dtype == np.float32
        assert np.array_equal(episode.observation, episode.achieved_goal)
        assert (episode.desired_goal == episode.desired_goal[0]).all()
        expected = np.clip(episode.observation[:-1] + episode.actions, -4, 4)
        assert np.allclose(episode.observation[1:], expected, atol=1e-6)
    starts = np.stack([episode.observation[0] for episode in episodes])
    assert len(np.unique(starts, axis=0)) == 6


def test_exploration_is_random_at_first_and_then_by_its_share():
    runner = make_runner(num_initial_random_steps=400, random_action_share=0.25)
    early = np.concatenate([e.actions for e in runner.sample(num_timesteps=400)])
    assert abs(early.mean()) < 0.1
    assert abs(early.var() - 1 / 3) < 0.05  # uniform on [−1, 1]
    for parameter in runner.module.networks.policy.parameters():
        parameter.data.zero_()  # mean 0 and log σ in the middle of its range
    runner.module.networks.policy.net[-1].bias.data[2:] = -100.0  # σ at its floor: next to no noise
    late = np.concatenate([e.actions for e in runner.sample(num_timesteps=4000)[8:]])
    assert np.mean(np.abs(late).max(-1) > 0.1) == pytest.approx(0.25 * 0.99, abs=0.03)
    assert np.abs(late).max() <= 1


def test_action_noise_stays_inside_the_bounds():
    runner = make_runner(num_initial_random_steps=0, random_action_share=0.0, action_noise=2.0)
    actions = np.concatenate([e.actions for e in runner.sample(num_timesteps=400)])
    assert np.abs(actions).max() == 1.0


def test_open_episodes_are_dropped():
    runner = make_runner(num_envs_per_env_runner=3)
    runner.sample(num_timesteps=60)
    assert runner.drop_open_episodes() == 3
    assert runner.drop_open_episodes() == 0
    episodes = runner.sample(num_episodes=3)
    assert [len(episode) for episode in episodes] == [50, 50, 50]


def test_evaluation_repeats_itself_whatever_the_number_of_environments():
    seeds = range(TRAINING_SEEDS, TRAINING_SEEDS + 7)
    first, second = make_runner(num_envs_per_env_runner=3), make_runner(num_envs_per_env_runner=5)
    second.module.set_state(first.module.get_state())
    ours, again, theirs = first.evaluate(seeds), first.evaluate(seeds), second.evaluate(seeds)
    assert len(ours["success"]) == 7
    for name in ours:
        assert np.array_equal(ours[name], again[name])
        assert np.allclose(ours[name], theirs[name], atol=1e-5)
    assert (ours["episode_length"] == 50).all()
    assert ((ours["final_distance"] < 0.6) == ours["success"].astype(bool)).all()


def test_random_actions_are_kept_for_as_long_as_asked():
    runner = make_runner(num_initial_random_steps=400, random_action_steps=5)
    for episode in runner.sample(num_timesteps=400):
        blocks = episode.actions.reshape(10, 5, -1)
        assert (blocks == blocks[:, :1]).all()
        assert len(np.unique(blocks[:, 0], axis=0)) == 10


def test_the_share_of_random_steps_is_kept_whatever_their_length():
    runner = make_runner(
        num_initial_random_steps=0, random_action_share=0.25, random_action_steps=5
    )
    for parameter in runner.module.networks.policy.parameters():
        parameter.data.zero_()
    runner.module.networks.policy.net[-1].bias.data[
        2:
    ] = -100.0  # no noise: the policy stands still
    actions = np.concatenate([e.actions for e in runner.sample(num_timesteps=8000)])
    assert np.mean(np.abs(actions).max(-1) > 0.1) == pytest.approx(0.25 * 0.99, abs=0.03)
