"""`goal_env`: environments of other people as goal environments."""

from __future__ import annotations

import pickle
import tempfile
import warnings
from functools import partial
from typing import Any

import cloudpickle
import numpy as np
import pytest
from gymnasium.spaces import Box
from gymnasium.utils.env_checker import check_env
from gymnasium.wrappers import TimeLimit

from rllib_odac import goal_env
from rllib_odac.envs.adapter import AdaptedEnv
from tests.robots import HORIZON, PENDULUM, ROBOT, Robot, rollout


def kitchen_goal(key: str, observation: Any, env: Any) -> Any:
    return np.concatenate([observation[key][task] for task in ("microwave", "kettle")])


REACHER = {
    "observation": [0, 1, 2, 3, 6, 7],
    "achieved_goal": lambda observation, env: env.get_body_com("fingertip")[:2],
    "desired_goal": slice(4, 6),
    "success_distance": 0.02,
}
RELOCATE = {
    "observation": slice(0, 33),  # the hand, and the object relative to it
    "achieved_goal": lambda observation, env: env.data.xpos[env.obj_body_id],
    "desired_goal": lambda observation, env: env.data.site_xpos[env.target_obj_site_id],
    "success_distance": 0.1,
}
# The same from the observation alone: object minus target, to be 0.
RELOCATE_INDICES = {
    "achieved_goal": slice(-3, None),
    "desired_goal": lambda observation, env: np.zeros(3),
    "success_distance": 0.1,
}
CASES: dict[str, tuple[Any, dict[str, Any], int]] = {  # environment, arguments, G
    "own": (Robot, ROBOT | {"observation": slice(0, 2)}, 2),
    "pendulum": ("Pendulum-v1", PENDULUM, 2),
    "reacher": ("Reacher-v5", REACHER, 2),
    "inverted pendulum": (
        "InvertedPendulum-v5",
        {"achieved_goal": [0], "desired_goal": Box(-0.5, 0.5, (1,)), "success_distance": 0.1},
        1,
    ),
    "relocate": ("AdroitHandRelocate-v1", RELOCATE, 3),
    "relocate by indices": ("AdroitHandRelocate-v1", RELOCATE_INDICES, 3),
    "door": (
        "AdroitHandDoor-v1",
        {"achieved_goal": [28], "desired_goal": lambda o, env: [1.35], "success_distance": 0.1},
        1,
    ),
    "kitchen": (
        "FrankaKitchen-v1",
        {
            "achieved_goal": partial(kitchen_goal, "achieved_goal"),
            "desired_goal": partial(kitchen_goal, "desired_goal"),
            "success_distance": 0.3,
        },
        8,
    ),
    "PointMaze_UMaze-v3": ("gymnasium_robotics:PointMaze_UMaze-v3", {}, 2),
    "AntMaze_UMaze-v5": ("AntMaze_UMaze-v5", {}, 2),
    "FetchPickAndPlace-v4": ("FetchPickAndPlace-v4", {}, 3),
    "FetchSlide-v4": ("FetchSlide-v4", {}, 3),
    "HandReach-v3": ("HandReach-v3", {}, 15),
    "HandManipulateBlock-v1": ("HandManipulateBlock-v1", {}, 7),
    "HandManipulatePen-v1": ("HandManipulatePen-v1", {}, 7),
}
OF_ROBOTICS = {"relocate", "relocate by indices", "door", "kitchen"} | {
    c for c in CASES if "-" in c
}
WITH_GOALS = [c for c in CASES if "-" in c]
FALLING = {"inverted pendulum"}


@pytest.fixture(scope="module")
def made():
    """Environments of `CASES` by name, each made once."""
    envs: dict[str, Any] = {}

    def make(case: str) -> Any:
        if case in OF_ROBOTICS:
            pytest.importorskip("gymnasium_robotics")
        elif case in {"reacher", "inverted pendulum"}:
            pytest.importorskip("mujoco")
        if case not in envs:
            env, arguments, _ = CASES[case]
            envs[case] = goal_env(env, max_episode_steps=HORIZON, **arguments)
        return envs[case]

    yield make
    for env in envs.values():
        env.close()


# What holds for each of them ----------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
def test_it_is_a_goal_environment(made, case):
    env = made(case)
    assert isinstance(env, TimeLimit)
    assert type(env.unwrapped) is AdaptedEnv
    assert env.spec.max_episode_steps == HORIZON
    goal_dim = CASES[case][2]
    observation, info = env.reset(seed=0)
    for key, value in observation.items():
        assert value.dtype == np.float32
        assert env.observation_space[key].contains(value)
    assert observation["desired_goal"].shape == observation["achieved_goal"].shape == (goal_dim,)
    assert type(info["is_success"]) is bool
    assert type(info["final_distance"]) is float
    assert env.unwrapped.goals.success_distance > 0
    assert env.unwrapped.goals.scale is None
    assert env.unwrapped.goals.units.startswith("m")


@pytest.mark.parametrize("case", CASES)
def test_rewards_and_ends(made, case):
    env = made(case)
    episode = rollout(env, seed=1)
    achieved, desired = episode["achieved_goal"][1:], episode["desired_goal"][1:]
    assert (desired == desired[0]).all()
    batched = env.unwrapped.compute_reward(achieved, desired, {})
    assert batched.dtype == np.float32
    assert np.array_equal(batched, episode["reward"])
    assert np.array_equal(batched == 0, episode["is_success"])
    one = env.unwrapped.compute_reward(achieved[0], desired[0], {})
    assert one.shape == ()
    assert one == episode["reward"][0]
    assert (env.unwrapped.compute_reward(achieved, achieved, {}) == 0).all()
    assert (env.unwrapped.compute_reward(achieved + 100, desired, {}) == -1).all()
    distance = np.linalg.norm((achieved - desired).astype(np.float64), axis=-1)
    assert episode["final_distance"] == pytest.approx(distance, abs=1e-5)
    assert not (episode["terminated"][:-1] | episode["truncated"][:-1]).any()
    if case in FALLING:
        assert episode["terminated"][-1]
    else:
        assert len(episode["reward"]) == HORIZON
        assert episode["truncated"][-1]
        assert not episode["terminated"][-1]


@pytest.mark.parametrize("case", CASES)
def test_seeding_reproduces(made, case):
    env = made(case)
    first, again, other = (rollout(env, seed) for seed in (5, 5, 6))
    for key in first:  # on some processors MuJoCo's velocities of a hand differ in their last bit
        np.testing.assert_allclose(first[key], again[key], rtol=0, atol=1e-12, err_msg=key)
    goals = [np.concatenate([e["observation"][0], e["desired_goal"][0]]) for e in (first, other)]
    assert not np.array_equal(*goals)
    copy = cloudpickle.loads(cloudpickle.dumps(env))
    assert type(copy.unwrapped) is AdaptedEnv
    third = rollout(copy, 5)
    # MuJoCo's warm start outlives a reset of the hands.
    assert all(np.allclose(first[key], third[key], atol=1e-6) for key in first)
    copy.close()


@pytest.mark.parametrize("case", CASES)
def test_gymnasium_has_nothing_to_say(made, case):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_env(made(case).unwrapped, skip_render_check=True)
    messages = [str(warning.message) for warning in caught]
    opinions = ("infinity", "symmetric and normalized")  # about spaces
    assert [m for m in messages if not any(part in m for part in opinions)] == []


# Environments that have goals ---------------------------------------------------------------------


@pytest.mark.parametrize("case", WITH_GOALS)
def test_success_is_the_environments_own(made, case):
    env = made(case).unwrapped
    goal = env.reset(seed=2)[0]["desired_goal"].astype(np.float64)
    direction = np.zeros_like(goal)
    direction[:2] = 1 / np.sqrt(2)
    for share in (0.1, 0.9, 1.1, 5):
        achieved = goal + share * env.goals.success_distance * direction
        own = env.simulator.compute_reward(achieved, goal, {}) == (1 if "Maze" in case else 0)
        assert env.is_success(achieved, goal) == own == (share < 1)


def test_a_hand_must_turn_its_object_too(made):
    env = made("HandManipulateBlock-v1").unwrapped
    assert env.goals.success_distance == 0.01
    assert env.goals.units == "m and quaternion"
    goal = np.array([1, 1, 0.2, 1, 0, 0, 0])
    angles = np.array([0.05, 0.3])  # radians; up to 0.1 counts
    turned = np.tile(goal, (2, 1))
    turned[:, 3], turned[:, 6] = np.cos(angles / 2), np.sin(angles / 2)
    assert env.is_success(turned, goal).tolist() == [True, False]
    assert env.goal_distance(turned[0], goal) > env.goals.success_distance
    turned[:, 0] += 0.02
    assert env.is_success(turned, goal).tolist() == [False, False]
    assert env.is_success(turned[:0], goal).shape == (0,)
    of_position = goal_env(
        "HandManipulateBlock-v1", achieved_goal=slice(3), desired_goal=slice(3)
    ).unwrapped
    assert of_position.is_success(goal[:3], goal[:3] + 0.005)
    assert of_position.goals.units == "m"
    plain = goal_env("HandManipulateBlock-v1", success_distance=1).unwrapped
    assert plain.is_success(turned, goal).all()


@pytest.mark.parametrize("case", ["PointMaze_UMaze-v3", "AntMaze_UMaze-v5", "FetchPickAndPlace-v4"])
def test_asked_goals_are_the_simulators_too(made, case):
    env = made(case)
    start = env.reset(seed=3)[0]["achieved_goal"]
    observation, info = env.reset(seed=3, options={"goal": start})
    assert np.array_equal(observation["desired_goal"], start)
    assert info["is_success"]
    observation, reward, terminated, _, info = env.step(np.zeros(env.action_space.shape))
    assert reward == 0
    assert not terminated
    assert info.get("success", True)  # the maze's own opinion
    assert np.array_equal(observation["desired_goal"], start)
    assert np.array_equal(env.unwrapped.simulator.goal, start.astype(np.float64))
    with pytest.raises(ValueError, match=r"The goal has shape \(1,\), but must have"):
        env.reset(options={"goal": [0.0]})


def test_reaching_the_goal_ends_nothing(made):
    pytest.importorskip("gymnasium_robotics")
    for arguments in ({"continuing_task": False}, {"reset_target": True}):
        env = goal_env("PointMaze_UMaze-v3", **arguments)
        start = env.reset(seed=0)[0]["achieved_goal"]
        env.reset(seed=0, options={"goal": start})
        observation, reward, terminated, _, _ = env.step(np.zeros(2))
        assert (reward, terminated) == (0, False)
        assert np.array_equal(observation["desired_goal"], start)
    assert not made("kitchen").unwrapped.simulator.terminate_on_tasks_completed


@pytest.mark.parametrize("case", ["relocate", "relocate by indices"])
def test_relocation_succeeds_where_the_environment_says_so(made, case):
    env = made(case).unwrapped
    hand = env.simulator
    env.reset(seed=0)
    place = hand.data.xpos[hand.obj_body_id].copy()
    env.reset(seed=0, options={"goal": place if case == "relocate" else np.zeros(3)})
    for is_there in (False, True):
        if is_there:
            hand.model.site_pos[hand.target_obj_site_id] = place
        _, _, _, _, info = env.step(np.zeros(env.action_space.shape))
        assert info["success"] == is_there
        assert info["is_success"] == (is_there or case == "relocate")


def test_part_of_a_goal(made):
    pytest.importorskip("gymnasium_robotics")
    xy = {"achieved_goal": slice(0, 2), "desired_goal": [0, 1]}
    env = goal_env("FetchPickAndPlace-v4", **xy)
    observation, _ = env.reset(seed=0)
    whole, _ = made("FetchPickAndPlace-v4").reset(seed=0)
    for key in xy:
        assert np.array_equal(observation[key], whole[key][:2])
    assert env.unwrapped.goals.success_distance == 0.05


def test_our_own_goals_keep_their_measure():
    pytest.importorskip("gymnasium_robotics")
    env = goal_env("odac/FetchPush-v0", goal="hand_object")
    observation, info = env.reset(seed=0)
    achieved, desired = observation["achieved_goal"], observation["desired_goal"]
    assert info["final_distance"] == pytest.approx(np.linalg.norm((achieved - desired)[3:]))
    assert env.spec.max_episode_steps == 50


def test_mazes_leave_no_file(monkeypatch, tmp_path):
    pytest.importorskip("gymnasium_robotics")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for env_id in ("AntMaze_UMaze-v5", "PointMaze_UMaze-v3"):
        pickle.loads(pickle.dumps(goal_env(env_id)))
    assert list(tmp_path.iterdir()) == []


def test_what_the_task_says_of_its_observation_holds_for_the_whole_one_only():
    whole, part = goal_env("odac/FetchPush-v0"), goal_env("odac/FetchPush-v0", observation=slice(6))
    assert whole.unwrapped.goals.hand_object == (slice(0, 3), slice(3, 6))
    assert part.unwrapped.goals.hand_object is None
