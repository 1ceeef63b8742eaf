"""Shapes of environments that people bring: which run as they are, what is said of the others."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import (
    Box,
    Dict,
    Discrete,
    Graph,
    MultiBinary,
    MultiDiscrete,
    Sequence,
    Text,
    Tuple,
)
from gymnasium.spaces.utils import flatten

from rllib_odac import make_env
from tests.conftest import small_config


def box(*shape, dtype=np.float32, low=-1, high=1):
    return Box(low, high, shape, dtype)


class Made(gym.Env):
    """A goal environment with the spaces that it is told, which gives random values of them."""

    success_distance = 0.5

    def __init__(self, observation=None, goal=None, action=None, others=None, desired=None):
        goal = goal or box(2)
        spaces = {"observation": observation or box(3), "achieved_goal": goal}
        self.observation_space = Dict(spaces | {"desired_goal": desired or goal} | (others or {}))
        self.action_space = action or box(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        self.steps = 0
        return self.observation_space.sample(), {}

    def step(self, action):
        assert self.action_space.contains(action)
        self.steps += 1
        info = {"is_success": False}
        return self.observation_space.sample(), 0.0, False, self.steps == 10, info

    def compute_reward(self, achieved, desired, info):
        raise AssertionError("asked for with vectors")


PICTURE = box(8, 8, 3, dtype=np.uint8, low=0, high=255)
RUN = {  # observation and goal as vectors
    "vectors": ({}, 3, 2),
    "doubles": ({"observation": box(4, dtype=np.float64)}, 4, 2),
    "a matrix": ({"observation": box(2, 3)}, 6, 2),
    "a cube of numbers": ({"observation": box(2, 2, 2)}, 8, 2),
    "whole numbers": ({"observation": box(3, dtype=np.int64, low=-5, high=5)}, 3, 2),
    "bytes that are no picture": ({"observation": box(7, dtype=np.uint8, low=0, high=9)}, 7, 2),
    "no observation": ({"observation": box(0)}, 0, 2),
    "unbounded": ({"observation": box(3, low=-np.inf, high=np.inf)}, 3, 2),
    "a number": ({"observation": box()}, 1, 2),
    "bits": ({"observation": MultiBinary(5)}, 5, 2),
    "a matrix of bits": ({"observation": MultiBinary((2, 3))}, 6, 2),
    "one of four": ({"observation": Discrete(4)}, 4, 2),
    "one of four, from 3": ({"observation": Discrete(4, start=3)}, 4, 2),
    "several choices": ({"observation": MultiDiscrete([3, 4])}, 7, 2),
    "a mapping": ({"observation": Dict(q=box(3), v=box(2))}, 5, 2),
    "a deep mapping": ({"observation": Dict(a=Dict(b=Discrete(3)), c=MultiBinary(2))}, 5, 2),
    "a tuple": ({"observation": Tuple((Discrete(2), box(2)))}, 4, 2),
    "further entries": ({"others": {"camera": PICTURE, "note": Text(5)}}, 3, 2),
    "a goal of one": ({"goal": box(1)}, 3, 1),
    "a matrix as goal": ({"goal": box(2, 2)}, 3, 4),
    "a pose as goal": ({"goal": Dict(position=box(3), quaternion=box(4))}, 3, 7),
    "bits as goal": ({"goal": MultiBinary(6)}, 3, 6),
    "a place as goal": ({"goal": Discrete(5)}, 3, 5),
    "a cell as goal": ({"goal": MultiDiscrete([4, 4])}, 3, 8),
    "doubles as goal": ({"goal": box(2, dtype=np.float64)}, 3, 2),
    "all of it": ({"observation": Dict(b=MultiBinary(2), x=box(2)), "goal": Dict(y=box(1))}, 4, 1),
    "uneven action bounds": ({"action": Box(np.array([-2, 0]), np.array([1, 5.0]))}, 3, 2),
    "one of three as action": ({"action": Discrete(3)}, 3, 2),
    "one of three as action, from -1": ({"action": Discrete(3, start=-1)}, 3, 2),
    "choices as action": ({"action": MultiDiscrete([3, 4])}, 3, 2),
    "a matrix of choices as action": ({"action": MultiDiscrete([[2, 3], [2, 2]])}, 3, 2),
    "bits as action": ({"action": MultiBinary(3)}, 3, 2),
    "a matrix of actions": ({"action": box(2, 2)}, 3, 2),
    "a number as action": ({"action": box()}, 3, 2),
    "an action that is fixed": ({"action": Box(np.array([-1.0, 2]), np.array([1.0, 2]))}, 3, 2),
    "whole numbers as action": ({"action": box(2, dtype=np.int64, low=-3, high=3)}, 3, 2),
    "actions of a million": ({"action": box(2, low=-5e5, high=5e5)}, 3, 2),
    "actions in double": ({"action": box(3, dtype=np.float64)}, 3, 2),
}
REFUSED = {
    "a picture": ({"observation": PICTURE}, r"shows pictures: its 'observation' is \(8, 8, 3\) b"),
    "a grey picture": (
        {"observation": box(8, 8, dtype=np.uint8, low=0, high=255)},
        r"shows pictures: its 'observation' is \(8, 8\) bytes, but must be a vector",
    ),
    "a picture as goal": ({"goal": PICTURE}, "shows pictures: its 'achieved_goal'"),
    "a picture in a mapping": ({"observation": Dict(i=PICTURE)}, "'observation' is a Dict that is"),
    "a sequence": ({"observation": Sequence(box(2))}, "'observation' is a Sequence that is no vec"),
    "a graph": ({"observation": Graph(box(2), None)}, "'observation' is a Graph that is no vector"),
    "goals of two shapes": ({"desired": box(3)}, "goals of two shapes"),
    "a text as action": ({"action": Text(3)}, "Text actions, but ODAC needs a bounded Box"),
    "a mapping as action": ({"action": Dict(a=box(1))}, "Dict actions, but ODAC needs a bounded"),
    "no action": ({"action": box(0)}, r"actions of shape \(0,\): there is nothing to choose"),
    "too many bits as actions": ({"action": MultiBinary(11)}, "has 2,048 MultiBinary actions, but"),
    "too many choices": ({"action": MultiDiscrete([1000] * 7)}, "MultiDiscrete actions, but ODAC"),
    "actions without bounds": ({"action": box(2, high=np.inf)}, "an action with a range of inf"),
    "actions of any size": ({"action": box(2, low=-1e7, high=1e7)}, r"a range of 2e\+07, but ODAC"),
}


@pytest.mark.parametrize("shape", RUN)
def test_these_run_as_they_are(shape):
    spaces, width, goal_width = RUN[shape]
    env = make_env(lambda: Made(**spaces))
    own = Made(**spaces)
    state, _ = env.reset(seed=3)
    theirs, _ = own.reset(seed=3)
    for key, size in (("observation", width), ("achieved_goal", goal_width)):
        assert env.observation_space[key].contains(state[key]), key
        assert np.size(state[key]) == size, key
        flat = flatten(own.observation_space[key], theirs[key])
        assert np.allclose(np.ravel(state[key]), flat), key
    env.step(env.action_space.sample())
    config = small_config().environment(lambda: Made(**spaces))
    assert config._environment.widths["desired_goal"] == goal_width
    assert config.goals.success_distance == 0.5


@pytest.mark.parametrize("shape", REFUSED)
def test_these_are_refused_in_one_sentence(shape):
    spaces, sentence = REFUSED[shape]
    with pytest.raises(ValueError, match=sentence) as info:
        make_env(lambda: Made(**spaces))
    assert "\n" not in str(info.value)


def test_rewards_of_others_goals_are_asked_for_where_they_are_taken_as_they_are():
    for goal, pays in ((box(2), True), (Dict(position=box(2)), False)):
        config = small_config().environment(lambda goal=goal: Made(goal=goal))
        assert config.environment_pays == pays
