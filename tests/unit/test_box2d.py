"""Box 2D: its episodes, its two forms and its pictures."""

from __future__ import annotations

import pickle
import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

from rllib_odac.envs.box2d import HORIZON, Box2DEnv, Box2DVectorEnv
from rllib_odac.envs.box2d_room import BOUNDARY, SOLIDS, blocked_regions, is_blocked
from rllib_odac.envs.registry import OWN_ENVS, make_env, make_vector_env

WALLS = sorted(SOLIDS)


@pytest.mark.parametrize("walls", WALLS)
def test_environment_checker_passes(walls):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gym.make("odac/Box2D-v0", walls=walls, render_mode="rgb_array").unwrapped)


def test_spaces_and_attributes():
    env = make_env("odac/Box2D-v0")
    assert set(env.observation_space.spaces) == {"observation", "achieved_goal", "desired_goal"}
    for space in env.observation_space.values():
        assert space == gym.spaces.Box(-4, 4, (2,), np.float32)
    assert env.action_space == gym.spaces.Box(-1, 1, (2,), np.float32)
    goals = env.get_wrapper_attr("goals")
    assert (goals.scale, goals.success_distance) == (4.0, 0.6)
    observation, info = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    assert info["final_distance"] == pytest.approx(
        np.linalg.norm(observation["achieved_goal"] - observation["desired_goal"])
    )


# Episodes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("walls", WALLS)
def test_starts_and_goals_fill_the_free_space(walls):
    env = Box2DVectorEnv(4000, walls=walls)
    observation, _ = env.reset(seed=0)
    regions = blocked_regions(walls)
    grid = np.stack(np.meshgrid(*[np.linspace(-4, 4, 201)] * 2), -1).reshape(-1, 2)
    free = grid[~is_blocked(grid, regions)]
    for key in ("achieved_goal", "desired_goal"):
        xy = observation[key]
        assert not is_blocked(xy, regions).any()
        assert (np.abs(xy) <= BOUNDARY).all()
        # Uniform: each quarter of the room gets its share of the free space.
        for sx, sy in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
            share = np.mean((free * [sx, sy] > 0).all(-1)) / np.mean((free != 0).all(-1))
            assert np.mean((xy * [sx, sy] > 0).all(-1)) == pytest.approx(share, abs=0.03)


def rollout(env: gym.Env[Any, Any], seed: int, steps: int = HORIZON) -> list[Any]:
    """Observations, rewards and infos of random actions."""
    observation, info = env.reset(seed=seed)
    rng = np.random.default_rng(seed)
    record: list[Any] = [observation, info]
    for _ in range(steps):
        record.append(env.step(rng.uniform(-1, 1, 2).astype(np.float32)))
    return record


def test_seed_reproduces():
    first, second = rollout(Box2DEnv(), 5), rollout(Box2DEnv(), 5)
    np.testing.assert_equal(first, second)
    other = Box2DEnv().reset(seed=6)[0]
    assert not np.array_equal(first[0]["desired_goal"], other["desired_goal"])
    env = Box2DVectorEnv(3)
    np.testing.assert_equal(env.reset(seed=5), env.reset(seed=5))
    assert not np.array_equal(env.reset()[0]["desired_goal"], env.reset()[0]["desired_goal"])


def test_goals_of_successive_episodes_differ():
    env = make_env("odac/Box2D-v0")
    goals = [env.reset(seed=0 if i == 0 else None)[0]["desired_goal"] for i in range(5)]
    assert len({tuple(goal) for goal in goals}) == 5


@pytest.mark.parametrize("env", [Box2DEnv(walls="bar"), Box2DVectorEnv(3, walls="bar")])
def test_pickling_keeps_the_state(env):
    env.reset(seed=0)
    env.step(env.action_space.sample())
    copy = pickle.loads(pickle.dumps(env))
    action = env.action_space.sample()
    np.testing.assert_equal(env.step(action), copy.step(action))
    np.testing.assert_equal(env.reset(), copy.reset())


def test_truncates_after_fifty_steps_and_never_terminates():
    env = make_env("odac/Box2D-v0")
    record = rollout(env, 0)[2:]
    assert not any(terminated for _, _, terminated, _, _ in record)
    assert [truncated for *_, truncated, _ in record] == [False] * 49 + [True]
    env = make_env("odac/Box2D-v0", max_episode_steps=100, action_scale=0.25)
    assert [truncated for *_, truncated, _ in rollout(env, 0, 100)[2:]] == [False] * 99 + [True]


def test_reward_success_and_distance():
    env = Box2DEnv()
    env.reset(options={"start": (3, 3), "goal": (3, 3.75)})
    for move, distance in (((0, 0), 0.75), ((0, 0.15), 0.6), ((0, 0.01), 0.59), ((0, -0.5), 1.09)):
        observation, reward, _, _, info = env.step(np.array(move, np.float32))
        actual = float(np.float64(3.75) - observation["achieved_goal"][1])
        assert info["final_distance"] == pytest.approx(distance, abs=1e-6) == actual
        assert info["is_success"] == (actual < 0.6)  # strictly within
        assert reward == (0.0 if info["is_success"] else -1.0)
        goals = observation["achieved_goal"], observation["desired_goal"]
        assert reward == env.compute_reward(*goals, info)


def test_compute_reward_is_batched_and_equals_the_steps():
    env = Box2DVectorEnv(64)
    env.reset(seed=0)
    achieved, desired, rewards = [], [], []
    for _ in range(HORIZON):
        observation, reward, *_ = env.step(env.action_space.sample())
        achieved.append(observation["achieved_goal"])
        desired.append(observation["desired_goal"])
        rewards.append(reward)
    rewards = np.stack(rewards)
    assert 0 < np.mean(rewards == 0) < 1
    for dtype in (np.float32, np.float64):
        batch = np.stack(achieved).astype(dtype), np.stack(desired).astype(dtype)
        computed = env.compute_reward(*batch, {})
        assert computed.dtype == np.float32
        np.testing.assert_array_equal(computed, rewards)


def test_actions_are_clipped_and_scaled():
    env = Box2DEnv(walls="none", action_scale=0.25)
    env.reset(options={"start": (0, 0)})
    observation, *_ = env.step(np.array([5, -0.5]))
    assert observation["observation"].tolist() == [0.25, -0.125]


def test_options_fix_start_or_goal_and_leave_the_other_random():
    env = Box2DEnv()
    plain = env.reset(seed=3)[0]
    fixed = env.reset(seed=3, options={"start": (3, -3)})[0]
    assert fixed["observation"].tolist() == [3, -3]
    np.testing.assert_array_equal(fixed["desired_goal"], plain["desired_goal"])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Box2DEnv(walls="maze"), "knows no walls 'maze'"),
        (lambda: Box2DEnv(action_scale=0), "action_scale must be a positive number"),
        (lambda: Box2DEnv(render_mode="human"), "not 'human'"),
        (lambda: Box2DEnv().reset(options={"start": (0, 0)}), "start .* lies in a wall"),
        (lambda: Box2DEnv().reset(options={"goal": (9, 0)}), "outside the room"),
        (lambda: Box2DEnv().reset(options={"target": (3, 3)}), "options start and goal"),
        (lambda: Box2DVectorEnv(0), "at least 1"),
        (lambda: Box2DVectorEnv(2).reset(seed=[1, 2, 3]), "2 rooms need as many seeds"),
    ],
)
def test_bad_input_is_a_value_error(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("action", [[np.nan, 0], [0, np.inf], [0], [0, 0, 0]])
def test_bad_actions_are_refused(action):
    env = Box2DEnv()
    with pytest.raises(gym.error.ResetNeeded):
        env.step([0, 0])
    env.reset(seed=0)
    with pytest.raises(ValueError, match="finite actions of shape"):
        env.step(action)


# Many rooms at once ---------------------------------------------------------------------------


@pytest.mark.parametrize("walls", WALLS)
def test_vector_equals_single(walls):
    count, scale = 20, 0.7
    vector = Box2DVectorEnv(count, walls=walls, action_scale=scale)
    singles = [Box2DEnv(walls=walls, action_scale=scale) for _ in range(count)]
    batch, infos = vector.reset(seed=7)
    rng = np.random.default_rng(0)
    for i, env in enumerate(singles):
        observation, info = env.reset(seed=7 + i)
        np.testing.assert_equal(observation, {key: batch[key][i] for key in batch})
        assert info["final_distance"] == infos["final_distance"][i]
    for _ in range(HORIZON):
        actions = rng.uniform(-1.2, 1.2, (count, 2)).astype(np.float32)
        batch, rewards, terminated, truncated, infos = vector.step(actions)
        for i, env in enumerate(singles):
            observation, reward, _, _, info = env.step(actions[i])
            np.testing.assert_equal(observation, {key: batch[key][i] for key in batch})
            assert reward == rewards[i]
            assert info == {key: infos[key][i] for key in ("is_success", "final_distance")}
    assert truncated.all()
    assert not terminated.any()


def test_vector_env_takes_a_list_of_seeds():
    env = Box2DVectorEnv(3)
    observation, _ = env.reset(seed=[11, 5, 5])
    assert observation["desired_goal"][1].tolist() == observation["desired_goal"][2].tolist()
    alone, _ = Box2DEnv().reset(seed=11)
    np.testing.assert_array_equal(alone["desired_goal"], observation["desired_goal"][0])


def test_vector_autoreset_is_next_step():
    env = make_vector_env("odac/Box2D-v0", 5, max_episode_steps=3)
    assert env.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    first, _ = env.reset(seed=0)
    for t in (1, 2, 3):
        last, reward, _, truncated, _ = env.step(np.ones((5, 2), np.float32))
        assert truncated.all() == (t == 3)
    np.testing.assert_array_equal(last["desired_goal"], first["desired_goal"])
    fresh, reward, terminated, truncated, info = env.step(np.full((5, 2), np.float32(1)))
    assert not np.array_equal(fresh["desired_goal"], first["desired_goal"])
    assert not is_blocked(fresh["observation"], blocked_regions("box")).any()
    assert (reward == 0).all()
    assert not (terminated | truncated).any()
    np.testing.assert_allclose(
        info["final_distance"],
        np.linalg.norm(fresh["achieved_goal"] - fresh["desired_goal"], axis=-1),
        rtol=1e-6,
    )
    # The next episode is as long, and earlier observations have kept their values.
    ends = [env.step(np.ones((5, 2), np.float32))[3].all() for _ in range(3)]
    assert ends == [False, False, True]
    np.testing.assert_array_equal(first["observation"], env_start(0, 5))


def env_start(seed: int, count: int) -> Any:
    return np.stack([Box2DEnv().reset(seed=seed + i)[0]["observation"] for i in range(count)])


def test_changing_an_observation_does_not_move_the_ball():
    for env in (Box2DEnv(), Box2DVectorEnv(2)):
        observation, _ = env.reset(seed=0)
        before = {key: value.copy() for key, value in observation.items()}
        for value in observation.values():
            value[...] = 1
        after, *_ = env.step(np.zeros(env.action_space.shape, np.float32))
        np.testing.assert_equal(after, before)


def test_registered_horizon_is_the_modules():
    assert OWN_ENVS["odac/Box2D-v0"]["max_episode_steps"] == HORIZON
    assert gym.make_vec("odac/Box2D-v0", num_envs=2).unwrapped.max_episode_steps == HORIZON


def test_gymnasium_vectorises_the_single_form_alike():
    sync = gym.make_vec("odac/Box2D-v0", num_envs=3, vectorization_mode="sync")
    native = gym.make_vec("odac/Box2D-v0", num_envs=3)
    assert isinstance(native, Box2DVectorEnv)
    assert sync.observation_space == native.observation_space
    assert sync.action_space == native.action_space
    np.testing.assert_equal(sync.reset(seed=4), native.reset(seed=4))
    for _ in range(HORIZON):
        actions = native.action_space.sample()
        np.testing.assert_equal(sync.step(actions), native.step(actions))


# How hard it is -------------------------------------------------------------------------------


def success_rate(policy: Any, episodes: int = 1000) -> float:
    env = Box2DVectorEnv(episodes)
    observation, _ = env.reset(seed=0)
    for _ in range(HORIZON):
        observation, _, _, _, info = env.step(policy(observation))
    return float(info["is_success"].mean())


def test_straight_line_mostly_succeeds_and_random_walk_does_not():
    rng = np.random.default_rng(0)
    straight = success_rate(lambda o: o["desired_goal"] - o["achieved_goal"])
    assert 0.70 < straight < 0.86
    assert success_rate(lambda o: rng.uniform(-1, 1, o["observation"].shape)) < 0.04


# Pictures -------------------------------------------------------------------------------------


@pytest.mark.parametrize("walls", WALLS)
def test_picture(walls):
    env = Box2DEnv(walls=walls, render_mode="rgb_array")
    env.reset(seed=0, options={"start": (-3.5, 3.5), "goal": (3.2, -3.2)})
    before = env.render()
    assert before.shape == (400, 400, 3)
    assert before.dtype == np.uint8
    np.testing.assert_array_equal(before, env.render())
    env.step([0, -1])
    assert not np.array_equal(before, env.render())
    blue, orange = before[43, 36], before[337 + 20, 338]  # in pixels: y points up
    assert blue[2] > blue[0] + 100
    assert orange[0] > orange[2] + 30
    assert Box2DEnv().render() is None


def test_vector_pictures_show_each_rooms_own_episode():
    vector = make_vector_env("odac/Box2D-v0", 2, render_mode="rgb_array", max_episode_steps=3)
    single = Box2DEnv(render_mode="rgb_array")
    vector.reset(seed=8)
    single.reset(seed=9)
    for _ in range(2):
        vector.step(np.ones((2, 2), np.float32))
        single.step(np.ones(2, np.float32))
    frames = vector.render()
    assert len(frames) == 2
    np.testing.assert_array_equal(frames[1], single.render())
    for _ in range(2):
        observation, *_ = vector.step(np.ones((2, 2), np.float32))
    single.reset(
        options={"start": observation["observation"][1], "goal": observation["desired_goal"][1]}
    )
    np.testing.assert_array_equal(vector.render()[1], single.render())
    assert Box2DVectorEnv(2).render() is None
