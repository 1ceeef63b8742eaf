"""Environments that step in threads give what they give one after the other."""

from __future__ import annotations

import threading
from functools import partial

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from rllib_odac import ODACConfig, make_env, make_vector_env
from rllib_odac.env_runner import GoalEnvRunner
from rllib_odac.envs.ant_vector import AntVectorEnv
from rllib_odac.envs.box2d import Box2DEnv
from rllib_odac.envs.threads import ThreadedVectorEnv


def trajectory(env, steps):
    """Everything that a vector environment gives, from seeds on."""
    env.action_space.seed(0)
    observation, infos = env.reset(seed=[3, 1, 4, 1, 5])
    given = [observation, infos]
    for _ in range(steps):
        observation, *rest, infos = env.step(env.action_space.sample())
        given += [observation, *rest, infos]
    env.close()
    return given


@pytest.mark.parametrize(
    ("env_id", "kind", "threads", "settings"),
    [
        ("FetchReach-v4", ThreadedVectorEnv, 3, {}),
        ("odac/Ant-v0", AntVectorEnv, 1, {}),
        ("odac/Ant-v0", AntVectorEnv, 3, {"goal": "pose"}),
    ],
)
def test_they_give_the_same_bit_for_bit_beyond_the_ends_of_episodes(
    env_id, kind, threads, settings
):
    settings = {"max_episode_steps": 12} | settings
    one = SyncVectorEnv(
        [partial(make_env, env_id, **settings)] * 5, autoreset_mode=AutoresetMode.NEXT_STEP
    )
    several = make_vector_env(env_id, 5, env_threads=threads, **settings)
    assert type(several) is kind
    for expected, got in zip(trajectory(one, 40), trajectory(several, 40), strict=True):
        if isinstance(expected, dict):
            assert expected.keys() == got.keys()
            for name, values in expected.items():
                np.testing.assert_array_equal(got[name], values)
        else:
            np.testing.assert_array_equal(got, expected)
    assert threading.active_count() < 10  # closed with the environment


class Meeting(Box2DEnv):
    """Steps when another one does, or not at all."""

    barrier = threading.Barrier(2, timeout=10)

    def step(self, action):
        self.barrier.wait()
        return super().step(action)


def test_they_step_at_the_same_time():
    env = make_vector_env(Meeting, 4, env_threads=2)
    env.reset(seed=0)
    for _ in range(3):
        env.step(env.action_space.sample())
    env.close()


class Failing(Box2DEnv):
    def step(self, action):
        raise OSError("the simulator is gone")


def test_an_error_reaches_the_caller_and_leaves_no_thread_at_work():
    env = make_vector_env(Failing, 4, env_threads=3)
    env.reset(seed=0)
    for _ in range(2):  # and the next step raises it again
        with pytest.raises(OSError, match="the simulator is gone"):
            env.step(env.action_space.sample())
    env.close()


def test_an_env_runner_collects_the_same_episodes():
    def sampled(threads):
        config = ODACConfig().environment("FetchReach-v4").debugging(seed=0)
        config.env_runners(num_envs_per_env_runner=3).training(env_threads=threads)
        runner = GoalEnvRunner(config=config, worker_index=0)
        assert isinstance(runner.env, ThreadedVectorEnv if threads > 1 else SyncVectorEnv)
        return runner.sample(num_episodes=3, random_actions=True)

    for one, other in zip(sampled(1), sampled(2), strict=True):
        np.testing.assert_array_equal(one.observation, other.observation)
        np.testing.assert_array_equal(one.actions, other.actions)
