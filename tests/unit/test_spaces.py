"""Shapes of environments that people bring: which run as they are, what is said of the others.

Many come from reports of bugs in other libraries, which are named beside them.
"""

from __future__ import annotations

from functools import partial

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
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from ray.rllib.core import DEFAULT_MODULE_ID

from rllib_odac import make_env, make_vector_env
from rllib_odac.env_runner import GoalEnvRunner
from tests.conftest import small_config


def box(*shape, dtype=np.float32, low=-1, high=1):
    return Box(low, high, shape, dtype)


class Made(gym.Env):
    """A goal environment with the spaces that it is told, which gives random values of them."""

    success_distance = 0.5

    def __init__(
        self,
        observation=None,
        goal=None,
        action=None,
        others=None,
        desired=None,
        end=lambda step: (False, step == 10),
        info=None,
    ):
        goal = goal or box(2)
        spaces = {"observation": observation or box(3), "achieved_goal": goal}
        self.observation_space = Dict(spaces | {"desired_goal": desired or goal} | (others or {}))
        self.action_space = action or box(2)
        self.end = end
        self.info = info or {"is_success": False}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        self.steps = 0
        return self.observation_space.sample(), dict(self.info)

    def step(self, action):
        assert self.action_space.contains(action)
        self.steps += 1
        return self.observation_space.sample(), 0.0, *self.end(self.steps), dict(self.info)

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
    "one of three as action": ({"action": Discrete(3)}, 3, 2),  # AboudyKreidieh/h-baselines#249
    # DLR-RM/stable-baselines3#913, #1197, #1295
    "one of three as action, from -1": ({"action": Discrete(3, start=-1)}, 3, 2),
    # DLR-RM/stable-baselines3#2241
    "the only action there is, 2": ({"action": Discrete(1, start=2)}, 3, 2),
    "choices as action": ({"action": MultiDiscrete([2, 4])}, 3, 2),  # ray-project/ray#6372, #39421
    # ray-project/ray#39571
    "choices as action, one of one": ({"action": MultiDiscrete([11, 5, 1, 2])}, 3, 2),
    # DLR-RM/stable-baselines3#2207
    "a column of choices as action": ({"action": MultiDiscrete([[2], [2]])}, 3, 2),
    "a matrix of choices as action": ({"action": MultiDiscrete([[2, 3], [2, 2]])}, 3, 2),
    "bits as action": ({"action": MultiBinary(3)}, 3, 2),  # ray-project/ray#1519
    # IsaacLab's wrapper for Stable-Baselines3, isaac-sim/IsaacLab#5080
    "actions of a hundred": ({"action": box(2, low=-100, high=100)}, 3, 2),
    # Anjum48/rl-examples#3, openai/spinningup#125
    "a car's actions": ({"action": Box(np.array([-1.0, 0, 0]), np.array([1.0, 1, 1]))}, 3, 2),
    # ray-project/ray#16860
    "bounds of its own for each": ({"action": Box(np.array([-1.0, -2]), np.array([2.0, 4]))}, 3, 2),
    "a matrix of actions": ({"action": box(2, 2)}, 3, 2),
    "a number as action": ({"action": box()}, 3, 2),
    # Farama-Foundation/Gymnasium#1665
    "an action that is fixed": ({"action": Box(np.array([-1.0, 2]), np.array([1.0, 2]))}, 3, 2),
    "whole numbers as action": ({"action": box(2, dtype=np.int64, low=-3, high=3)}, 3, 2),
    "actions of a million": ({"action": box(2, low=-5e5, high=5e5)}, 3, 2),
    "actions in double": ({"action": box(3, dtype=np.float64)}, 3, 2),  # stable-baselines3#1145
    # DLR-RM/stable-baselines3#1797
    "one of nineteen, from 2": ({"observation": Discrete(19, start=2)}, 19, 2),
    # DLR-RM/stable-baselines3#1836
    "a matrix of choices": ({"observation": MultiDiscrete([[2, 3], [3, 2]])}, 10, 2),
    # ray-project/ray#31525
    "a choice beside numbers": ({"observation": Dict(a=Discrete(3), b=box(4))}, 7, 2),
    # ray-project/ray#59849
    "mappings and tuples": (
        {
            "observation": Dict(
                a=box(),
                b=Tuple((Discrete(2), box(2, 1))),
                c=MultiDiscrete([2, 3]),
                d=Dict(e=Discrete(2), f=Dict(g=box(2, 2))),
            )
        },
        *(1 + 4 + 5 + 6, 2),
    ),
    # hill-a/stable-baselines#670
    "choices as observation and goal": (
        {"observation": MultiDiscrete([2, 3]), "goal": MultiDiscrete([2, 3])},
        *(5, 5),
    ),
    "a deep mapping as goal": ({"goal": Dict(a=Dict(b=Dict(c=box(2))), d=Discrete(2))}, 3, 4),
    "nothing but the goal": ({"observation": box(0), "action": Discrete(2)}, 0, 2),
}
REFUSED = {
    "a picture": ({"observation": PICTURE}, r"shows pictures: its 'observation' is \(8, 8, 3\) b"),
    "a grey picture": (
        {"observation": box(8, 8, dtype=np.uint8, low=0, high=255)},
        r"shows pictures: its 'observation' is \(8, 8\) bytes, but must be a vector",
    ),
    "a picture as goal": ({"goal": PICTURE}, "shows pictures: its 'achieved_goal'"),
    # DLR-RM/stable-baselines3#1335
    "a picture in a mapping": ({"observation": Dict(i=PICTURE)}, "'observation' is a Dict that is"),
    # DLR-RM/stable-baselines3 `BitFlippingEnv(image_obs_space=True)`
    "a picture, channels first": (
        {"observation": box(1, 36, 36, dtype=np.uint8, low=0, high=255)},
        r"shows pictures: its 'observation' is \(1, 36, 36\) bytes",
    ),
    # ray-project/ray#14249
    "nine choices of ten": (
        {"action": MultiDiscrete([[10] * 3] * 3)},
        "has 1,000,000,000 MultiDiscrete actions, but ODAC takes at most 1,024",
    ),
    "a tuple as action": (
        {"action": Tuple((Discrete(2), box(1)))},
        "Tuple actions, but ODAC needs",
    ),
    "a sequence": ({"observation": Sequence(box(2))}, "'observation' is a Sequence that is no vec"),
    "a graph": ({"observation": Graph(box(2), None)}, "'observation' is a Graph that is no vector"),
    "goals of two shapes": ({"desired": box(3)}, "goals of two shapes"),
    "a text as action": ({"action": Text(3)}, "Text actions, but ODAC needs a bounded Box"),
    "a mapping as action": ({"action": Dict(a=box(1))}, "Dict actions, but ODAC needs a bounded"),
    "no action": ({"action": box(0)}, r"actions of shape \(0,\): there is nothing to choose"),
    "too many bits as actions": ({"action": MultiBinary(11)}, "has 2,048 MultiBinary actions, but"),
    "too many choices": ({"action": MultiDiscrete([1000] * 7)}, "MultiDiscrete actions, but ODAC"),
    # DLR-RM/stable-baselines3#897, #1850, tensorforce/tensorforce#696
    "actions without bounds": ({"action": box(2, high=np.inf)}, "an action with a range of inf"),
    # PCCproject/PCC-RL#13
    "actions of any size": ({"action": box(2, low=-1e12, high=1e12)}, r"a range of 2e\+12, but"),
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


EPISODES = {  # how they end, what their info says, and how many steps the episodes have
    # hill-a/stable-baselines#578, PKU-MARL/HARL#33
    "ends at once": ({"end": lambda step: (True, False)}, 1),
    "is cut at once": ({"end": lambda step: (False, True)}, 1),
    "ends and is cut at once": ({"end": lambda step: (True, True)}, 1),
    "ends at its second step": ({"end": lambda step: (step == 2, False)}, 2),
    "ends with flags of NumPy": ({"end": lambda step: (np.bool_(step == 3), np.False_)}, 3),
    # openai/gym#1534: the goal ends nothing
    "has no end": ({"end": lambda step: (False, False)}, 20),
    "says success as a number": ({"info": {"is_success": np.float32(1)}}, 10),
    "calls it success": ({"info": {"success": True, "final_distance": 0.5}}, 10),
    "says a great deal": ({"info": {"is_success": False, "deep": {"a": [1]}, "text": "x"}}, 10),
}
IN_USE = {name: (spaces, 10) for name, (spaces, *_) in RUN.items()} | EPISODES


@pytest.mark.parametrize("shape", IN_USE)
def test_they_are_acted_in_and_learned_from(shape):
    arguments, length = IN_USE[shape]
    config = small_config(hidden=(8,), num_initial_random_steps=10, max_episode_steps=20)
    config.environment(partial(Made, **arguments)).evaluation(evaluation_interval=None)
    config.num_envs_per_env_runner = 2  # DLR-RM/stable-baselines3#950
    config.validate()
    runner = GoalEnvRunner(config=config, worker_index=0)
    episodes = runner.sample(num_episodes=6)
    assert {len(episode) for episode in episodes} == {length}
    env = config.make_env()
    spaces = {DEFAULT_MODULE_ID: (env.observation_space, env.action_space)}
    learned = config.build_learner(spaces=spaces).update(episodes=episodes, num_updates=1)
    assert np.isfinite(float(learned[DEFAULT_MODULE_ID]["total_loss"]))
    assert runner.evaluate([1, 2])["episode_length"].tolist() == [length, length]


@pytest.mark.slow
def test_an_episode_of_ten_thousand_steps():
    config = small_config(replay_capacity=10_001, num_initial_random_steps=10**6)
    config.training(max_episode_steps=10_000)  # an episode is tried no longer than 1,000
    config.environment(partial(Made, end=lambda step: (False, step == 10_000)))
    config.num_envs_per_env_runner = 1
    config.evaluation(evaluation_interval=None).validate()
    [episode] = GoalEnvRunner(config=config, worker_index=0).sample(num_episodes=1)
    assert len(episode) == 10_000


def test_a_horizon_is_asked_for_before_anything_starts():
    gym.register("Endless-v0", entry_point=partial(Made, end=lambda step: (False, False)))
    with pytest.raises(ValueError, match=r"^max_episode_steps is None, but 'Endless-v0' has no"):
        small_config("Endless-v0").validate()
    small_config("Endless-v0", max_episode_steps=5).validate()
    gym.registry.pop("Endless-v0")


class OneGoal(Made):
    """The same goal in every episode, as in Stable-Baselines3's `BitFlippingEnv`, and no unit."""

    goal_scale = None

    def reset(self, *, seed=None, options=None):
        observation, info = super().reset(seed=seed)
        return observation | {"desired_goal": np.ones(2, np.float32)}, info

    def step(self, action):
        observation, *rest = super().step(action)
        return observation | {"desired_goal": np.ones(2, np.float32)}, *rest


def test_where_there_is_one_goal_the_unit_is_that_of_what_is_reached():
    config = small_config(hidden=(8,)).environment(OneGoal).evaluation(evaluation_interval=None)
    episodes = GoalEnvRunner(config=config, worker_index=0).sample(num_episodes=200)
    env = config.make_env()
    spaces = {DEFAULT_MODULE_ID: (env.observation_space, env.action_space)}
    learner = config.build_learner(spaces=spaces)
    learner.update(episodes=episodes, num_updates=1)
    assert abs(learner.networks.goal_center).max() < 0.2
    assert float(learner.networks.goal_scale) == pytest.approx(1, abs=0.15)  # uniform in [−1, 1]


def resetting_by(mode, num_envs, **kwargs):
    return SyncVectorEnv([Made] * num_envs, autoreset_mode=mode)


@pytest.mark.parametrize("mode", AutoresetMode)  # vwxyzjn/cleanrl#499, #567
@pytest.mark.parametrize("has_single_form", [True, False])
def test_a_vector_form_that_resets_otherwise_is_not_used(
    mode, has_single_form
):  # cleanrl#499, #567
    single = Made if has_single_form else None
    gym.register("Resets-v0", single, vector_entry_point=partial(resetting_by, mode))
    try:
        if mode == AutoresetMode.NEXT_STEP or has_single_form:
            env = make_vector_env("Resets-v0", 2)
            assert env.metadata["autoreset_mode"] == AutoresetMode.NEXT_STEP
        else:
            sentence = f"^Resets-v0 has autoreset {mode.value}, but ODAC needs NextStep, or a form"
            with pytest.raises(ValueError, match=sentence):
                make_vector_env("Resets-v0", 2)
    finally:
        gym.registry.pop("Resets-v0")
