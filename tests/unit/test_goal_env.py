"""`goal_env`: environments of other people as goal environments."""

from __future__ import annotations

import pickle
import tempfile
import warnings
from functools import partial
from typing import Any

import cloudpickle
import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Text
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import SyncVectorEnv
from gymnasium.wrappers import (
    FlattenObservation,
    OrderEnforcing,
    PassiveEnvChecker,
    RescaleAction,
    TimeLimit,
)

from rllib_odac import goal_env, make_env, make_vector_env
from rllib_odac.envs.adapter import AdaptedEnv
from rllib_odac.envs.base import GoalEnv

HORIZON = 12


class Robot(gym.Env):
    """A point (x, y) that sees itself and a target; it falls where x is above `edge`."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012

    def __init__(self, edge: float = 9.0, render_mode: str | None = None):
        self.observation_space = Box(-np.inf, np.inf, (4,), np.float64)
        self.action_space = Box(-1.0, 1.0, (2,), np.float32)
        self.edge, self.render_mode = edge, render_mode
        self.closed = False

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.xy, self.target = self.np_random.uniform(-1, 1, size=(2, 2))
        return np.concatenate([self.xy, self.target]), {"mine": 1}

    def step(self, action):
        self.xy = self.xy + 0.3 * action
        observation, info = np.concatenate([self.xy, self.target]), {"is_success": 2, "mine": 3}
        return observation, 5.0, self.xy[0] > self.edge, False, info

    def render(self):
        return np.zeros((2, 2, 3), np.uint8)

    def close(self):
        self.closed = True


def first_two(observation: Any, env: Any) -> Any:
    return observation[:2]


def kitchen_goal(key: str, observation: Any, env: Any) -> Any:
    return np.concatenate([observation[key][task] for task in ("microwave", "kettle")])


ROBOT = {"achieved_goal": slice(0, 2), "desired_goal": slice(2, 4), "success_distance": 0.5}
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
    "pendulum": (
        "Pendulum-v1",
        {"achieved_goal": [0, 1], "desired_goal": Box(-1, 1, (2,)), "success_distance": 0.3},
        2,
    ),
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


def rollout(env: gym.Env, seed: int) -> dict[str, np.ndarray]:
    """One episode of random actions: rows of observations, and what each step gave."""
    env.action_space.seed(seed)
    observation, info = env.reset(seed=seed)
    observations, steps = [observation], []
    while not steps or not (steps[-1][1] or steps[-1][2]):
        observation, *step, info = env.step(env.action_space.sample())
        observations.append(observation)
        steps.append([*step, info["is_success"], info["final_distance"]])
    columns = {key: np.stack([o[key] for o in observations]) for key in observations[0]}
    names = ("reward", "terminated", "truncated", "is_success", "final_distance")
    return columns | {name: np.array(column) for name, *column in zip(names, *steps, strict=True)}


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


# One's own ----------------------------------------------------------------------------------------


def make_robot(**kwargs: Any) -> gym.Env:
    return goal_env(Robot, **ROBOT, **kwargs)


def make_limited(**kwargs: Any) -> gym.Env:
    return goal_env(Robot, **ROBOT, max_episode_steps=HORIZON, **kwargs)


@pytest.fixture(params=["callable", "id"])
def specifier(request):
    """`make_limited` in the two ways in which a user hands it on."""
    if request.param == "callable":
        yield make_limited
        return
    gym.register("test/Robot-v0", entry_point=make_limited)
    yield "test/Robot-v0"
    del gym.registry["test/Robot-v0"]


def test_through_make_env(specifier):
    env = make_env(specifier, render_mode="rgb_array", edge=8.0)
    assert type(env.unwrapped) is AdaptedEnv
    assert env.unwrapped.simulator.edge == 8.0
    assert env.spec.max_episode_steps == HORIZON
    assert env.render_mode == "rgb_array"
    env.reset(seed=0)
    assert env.render().shape == (2, 2, 3)
    assert len(rollout(env, seed=0)["reward"]) == HORIZON
    env.close()
    assert env.unwrapped.simulator.closed


def test_through_make_vector_env(specifier):
    env = make_vector_env(specifier, 3)
    assert isinstance(env, SyncVectorEnv)
    observation, _ = env.reset(seed=0)
    assert observation["desired_goal"].shape == (3, 2)
    for i in range(HORIZON):
        _, reward, terminated, truncated, _ = env.step(np.zeros((3, 2), np.float32))
        assert reward.shape == (3,)
        assert not terminated.any()
        assert truncated.all() == (i == HORIZON - 1)


def test_configuration_asks_for_a_horizon():
    from rllib_odac import ODACConfig

    ODACConfig().environment(make_limited).check_environment()
    with pytest.raises(ValueError, match="has no time limit"):
        ODACConfig().environment(make_robot, env_config={"edge": np.inf}).check_environment()


def test_falls_are_passed_on():
    env = goal_env(Robot, **ROBOT, edge=2.0)
    assert env.unwrapped is env  # no horizon, no limit
    env.reset(seed=0)
    falls = [env.step(np.array([1.0, 0.0]))[2] for _ in range(20)]
    assert falls[-1]
    assert not falls[0]
    assert type(falls[0]) is bool


def test_goals_from_a_box():
    low, high = np.array([-1.0, 0.1]), np.array([1.0, 0.7])
    arguments = ROBOT | {"desired_goal": Box(low, high, dtype=np.float64)}
    env = goal_env(Robot, **arguments)
    assert np.allclose(env.observation_space["desired_goal"].low, low)
    resets = [env.reset(seed=seed)[0] for seed in range(200)]
    goals, starts = (np.stack([o[k] for o in resets]) for k in ("desired_goal", "achieved_goal"))
    assert all(env.observation_space["desired_goal"].contains(goal) for goal in goals)
    assert goals.std(0) == pytest.approx((high - low) / np.sqrt(12), rel=0.15)
    # The simulator has the same seed, but goals may not go along with where it starts.
    assert abs(np.corrcoef(goals[:, 0], starts[:, 0])[0, 1]) < 0.25
    env.reset(seed=0)
    unseeded = [env.reset()[0]["desired_goal"] for _ in range(2)]
    assert not np.array_equal(*unseeded)
    env.reset(seed=0)
    assert np.array_equal(unseeded, [env.reset()[0]["desired_goal"] for _ in range(2)])
    env.reset(options={"goal": [0.0, 0.5]})
    with pytest.raises(ValueError, match="is outside the goal space"):
        env.reset(options={"goal": [0.0, 0.9]})


def test_info_of_the_environment_comes_along():
    env = goal_env(Robot, **ROBOT)
    env.reset(seed=0)
    info = env.step(np.zeros(2))[4]
    assert info.keys() == {"mine", "is_success", "final_distance"}
    assert info["is_success"] is False  # judged here


def test_units_and_scale():
    env = goal_env(Robot, **ROBOT, goal_scale=2, units="cm").unwrapped
    assert (env.goals.success_distance, env.goals.scale, env.goals.units) == (0.5, 2, "cm")


def test_pickle_needs_only_functions_of_modules():
    env = goal_env(Robot, **ROBOT | {"observation": first_two}, edge=7.0, max_episode_steps=3)
    copy = pickle.loads(pickle.dumps(env))
    assert copy.unwrapped.simulator.edge == 7.0
    assert np.array_equal(rollout(env, 0)["observation"], rollout(copy, 0)["observation"])
    with pytest.raises((pickle.PicklingError, AttributeError)):
        pickle.dumps(goal_env(lambda edge=1.0: Robot(edge), **ROBOT))


# Which wrappers stay ------------------------------------------------------------------------------


def test_the_horizon_is_the_environments_own():
    arguments = CASES["pendulum"][1]
    env = goal_env("Pendulum-v1", **arguments)
    assert isinstance(env, TimeLimit)
    assert env.spec.max_episode_steps == 200
    assert env.unwrapped.simulator.unwrapped is env.unwrapped.simulator
    assert len(rollout(env, seed=0)["reward"]) == 200
    # A longer one than the environment's.
    assert (
        len(rollout(goal_env("Pendulum-v1", max_episode_steps=210, **arguments), 0)["reward"])
        == 210
    )


@pytest.mark.parametrize("as_instance", [False, True])
def test_users_wrappers_stay(as_instance):
    inner = OrderEnforcing(PassiveEnvChecker(Robot()))
    wrapped = TimeLimit(RescaleAction(FlattenObservation(inner), np.float32(-3), np.float32(3)), 7)
    env = goal_env(wrapped if as_instance else lambda: wrapped, **ROBOT)
    assert isinstance(env, TimeLimit)
    assert isinstance(env.unwrapped.simulator, RescaleAction)  # but for our limit, no other
    assert env.action_space.high.tolist() == [3, 3]
    before = env.reset(seed=0)[0]["achieved_goal"]
    after = env.step(np.array([3.0, 0.0], np.float32))[0]["achieved_goal"]
    assert after - before == pytest.approx([0.3, 0], abs=1e-6)
    assert len(rollout(env, seed=0)["reward"]) == 7
    assert (env.spec is None) == as_instance


def test_an_instance_takes_no_arguments():
    robot = Robot()
    with pytest.raises(ValueError, match="is made already and takes no argument 'render_mode'"):
        goal_env(robot, **ROBOT, render_mode="rgb_array")
    with pytest.raises(ValueError, match="goal_env needs"):
        goal_env(robot)
    assert not robot.closed  # it is the caller's


# What users read ----------------------------------------------------------------------------------

IMAGES = Box(0, 255, (4, 4, 3), np.uint8)


class Blind(Robot):
    """A robot with spaces of one's choice."""

    def __init__(self, observation_space: Any, action_space: Any = None):
        super().__init__()
        self.observation_space = observation_space
        self.action_space = action_space or self.action_space


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"achieved_goal": "xy"}, "achieved_goal is 'xy', but must be a slice, a list of indices"),
        ({"achieved_goal": 2}, "achieved_goal is 2, but must be a slice, a list of indices or a "),
        ({"achieved_goal": [True, False]}, "achieved_goal is [True, False], but must be a slice"),
        ({"achieved_goal": Box(-1, 1, (2,))}, "but must be a slice, a list of indices or a call"),
        ({"desired_goal": "xy"}, "must be a slice, a list of indices, a bounded Box or a callable"),
        ({"observation": [0.5]}, "observation is [0.5], but must be a slice"),
        (
            {"observation": slice(0, 5)},
            "slice(0, 5, None), which reaches out of a vector of size 4",
        ),
        ({"observation": slice(-5, 2)}, "which reaches out of a vector of size 4."),
        ({"desired_goal": [3, 4]}, "desired_goal is [3, 4], which reaches out of a vector of size"),
        ({"achieved_goal": slice(2, 2)}, "which takes nothing from a vector of size 4."),
        ({"achieved_goal": []}, "achieved_goal is [], which takes nothing from a vector of size 4"),
        (
            {"achieved_goal": lambda o, e: 1.0},
            "has shape (), but must have (n,), that of a vector.",
        ),
        ({"achieved_goal": lambda o, e: []}, "has shape (0,), but must have (n,)"),
        ({"achieved_goal": lambda o, e: {}}, "is a dict, but must be a vector."),
        ({"achieved_goal": lambda o, e: [0, np.nan]}, "is not finite: [0.0, nan]."),
        (
            {"achieved_goal": [0]},
            "has size 1 and desired_goal has size 2, but they must have the s",
        ),
        ({"desired_goal": Box(-1, 1, (3,))}, "has size 2 and desired_goal has size 3, but they"),
        ({"desired_goal": Box(-np.inf, 1, (2,))}, "but must be a bounded Box of shape (G,)."),
        ({"desired_goal": Box(0, 1, (2, 2))}, "but must be a bounded Box of shape (G,)."),
        ({"success_distance": 0}, "success_distance is 0, but must be a positive number."),
        (
            {"success_distance": "near"},
            "success_distance is 'near', but must be a positive number.",
        ),
        ({"success_distance": np.inf}, "success_distance is inf, but must be a positive number."),
        ({"goal_scale": -1.0}, "goal_scale is -1.0, but must be a positive number."),
        ({"max_episode_steps": 0}, "max_episode_steps is 0, but must be a positive whole number."),
        ({"max_episode_steps": 2.5}, "max_episode_steps is 2.5, but must be a positive whole num"),
        ({"achieved_goal": None}, "goal_env needs achieved_goal for The environment made by Robot"),
        (
            dict.fromkeys(ROBOT),
            "goal_env needs achieved_goal and desired_goal and success_distance for",
        ),
        ({"edges": 3}, "Robot cannot be made from {'edges': 3}: got an unexpected keyword"),
    ],
)
def test_bad_arguments_are_explained(arguments, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        goal_env(Robot, **(ROBOT | arguments))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("env", "arguments", "message"),
    [
        ("Pendulum-v1", {}, "success_distance for Pendulum-v1, which has none of its own."),
        ("FrankaKitchen-v1", {}, "goal_env needs achieved_goal and desired_goal and success_dist"),
        (
            "FrankaKitchen-v1",
            ROBOT,
            "achieved_goal of FrankaKitchen-v1 must be a callable f(observation, env), as there is",
        ),
        (partial(Blind, IMAGES), ROBOT, "observation of The environment made by functools.partial"),
        (lambda: Blind(IMAGES), ROBOT, "its observations are a Box."),
        (lambda: Blind(Dict({"a": IMAGES})), ROBOT, "its observations are a Dict."),
        ("Pendulum", {}, "There is no environment 'Pendulum'; did you mean"),
        ("no_such_module:Env-v0", {}, "no_such_module:Env-v0 needs the package 'no_such_module'"),
        (
            lambda: Blind(Box(-1, 1, (4,)), Text(3)),
            ROBOT,
            "has Text actions, but ODAC needs a bounded Box",
        ),
        (lambda: 3, ROBOT, "is no gymnasium.Env but of type int."),
        (3, ROBOT, "An environment is an id or a callable that makes one, not 3."),
    ],
)
def test_bad_environments_are_explained(env, arguments, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        goal_env(env, **arguments)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bad_vectors_are_noticed_later_too():
    shown: list[Any] = [0.0, 0.0]
    env = goal_env(Robot, **ROBOT | {"achieved_goal": lambda observation, env: shown})
    env.reset(seed=0)
    for wrong, message in (
        ([0.0], r"achieved_goal of .* has shape \(1,\), but must have \(2,\)\."),
        ([0.0, np.inf], r"achieved_goal of .* is not finite: \[0\.0, inf\]\."),
    ):
        shown[:] = wrong
        with pytest.raises(ValueError, match=message):
            env.step(np.zeros(2))


def test_refused_environments_are_closed():
    robot = Robot()
    with pytest.raises(ValueError, match="goal_env needs"):
        goal_env(lambda: robot)
    assert robot.closed
    writing = Blind(robot.observation_space, Text(3))
    with pytest.raises(ValueError, match="has Text actions"):
        goal_env(lambda: writing, **ROBOT)
    assert writing.closed


def test_it_is_a_goal_env_of_ours():
    assert isinstance(make_robot(), GoalEnv)


def test_a_robots_own_methods_are_left_alone():
    class Own(gym.Env):
        observation_space = gym.spaces.Box(-1, 1, (3,))
        action_space = gym.spaces.Box(-1, 1, (1,))

        def reset_target(self):
            return np.zeros(3, np.float32)

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            return self.reset_target(), {}

    pick = {"achieved_goal": slice(0, 1), "desired_goal": slice(1, 2)}
    env = goal_env(Own(), **pick, success_distance=0.1)
    assert env.reset(seed=0)[0]["observation"].tolist() == [0, 0, 0]


def test_what_the_task_says_of_its_observation_holds_for_the_whole_one_only():
    whole, part = goal_env("odac/FetchPush-v0"), goal_env("odac/FetchPush-v0", observation=slice(6))
    assert whole.unwrapped.goals.hand_object == (slice(0, 3), slice(3, 6))
    assert part.unwrapped.goals.hand_object is None
