"""What `goal_env` says of arguments and environments that it cannot take."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Text

from rllib_odac import goal_env
from tests.robots import ROBOT, Robot

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
