"""Bad settings and environments: one sentence that names the key, the value and what is allowed."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import gymnasium as gym
import numpy as np
import pytest

from rllib_odac import ODACConfig, make_env, tuned
from rllib_odac.agent.objectives import OBJECTIVES
from rllib_odac.envs.registry import OWN_ENVS
from rllib_odac.experiments.spec import RunSpec, read_spec
from tests.conftest import small_config
from tests.unit.test_exploration_goals import Ending


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("prior_discount", 1.0, "prior_discount is 1.0, but must be a number strictly between"),
        ("max_discount", 1.5, "max_discount is 1.5, but must be .* or None"),
        ("tau", 0, r"tau is 0, but must be a number in \(0, 1\]"),
        ("kl_weight", -0.1, 'kl_weight is -0.1, but must be a number of at least 0, or "auto"'),
        ("kl_weight", "automatic", "kl_weight is 'automatic'"),
        ("goal_scale", 0, "goal_scale is 0, but must be a positive number"),
        ("replay_capacity", -5, "replay_capacity is -5, but must be a whole number of at least 1"),
        ("replay_capacity", 1e6, "replay_capacity is 1000000.0, but must be a whole number"),
        ("train_batch_size_per_learner", 0, "train_batch_size_per_learner is 0"),
        ("updates_per_env_step", float("nan"), "updates_per_env_step is nan"),
        ("random_action_share", 2, r"random_action_share is 2, but must be a number in \[0, 1\]"),
        ("matmul_precision", "low", 'matmul_precision is \'low\', but must be "auto", "highest"'),
        ("hidden", [], r"hidden is \[\], but must be a non-empty list"),
        ("hidden", "256", "hidden is '256'"),
        ("lr", -1.0, "lr is -1.0, but must be a positive number"),
        ("objective_settings", {"speed": 1}, "objective_settings do not fit ODACObjective"),
        ("objective_settings", {"prior_discount": 0.9}, "objective_settings has 'prior_discount'"),
        ("learn_discount", "yes", "learn_discount is 'yes', but must be True or False"),
        ("dynamics_distribution", "cauchy", 'must be "laplace" or "gaussian"'),
        ("relabel", {"future": 0.8, "own": 0.3}, "sum to 1.1, but must sum to 1"),
        ("relabel", {"future": 1.5, "own": -0.5}, r"relabel\['future'\] is 1.5"),
        ("relabel", "future", "relabel is 'future', but must be a mixture"),
        ("objective", "her2", "objective is 'her2', but must be one of"),
        ("objective", 5, "objective is 5, but must be one of"),
    ],
)
def test_bad_setting(name, value, sentence):
    config = ODACConfig().environment("odac/Box2D-v0").training(**{name: value})
    with pytest.raises(ValueError, match=sentence) as info:
        config.validate()
    assert "\n" not in str(info.value)


def test_unknown_setting_is_answered_with_near_ones():
    with pytest.raises(ValueError, match="no setting 'prior_discont'; did you mean prior_discount"):
        ODACConfig().apply_settings({"prior_discont": 0.9})


class Writing(gym.Env):
    """A goal environment whose actions are texts."""

    action_space = gym.spaces.Text(3)
    observation_space = gym.spaces.Dict(
        {
            name: gym.spaces.Box(-1, 1, (2,), np.float32)
            for name in ("observation", "achieved_goal", "desired_goal")
        }
    )

    def __init__(self, settings=None):
        pass


class MismatchedGoals(Writing):
    """Goals of two shapes."""

    action_space = gym.spaces.Box(-1, 1, (2,), np.float32)
    observation_space = gym.spaces.Dict(
        Writing.observation_space.spaces | {"desired_goal": gym.spaces.Box(-1, 1, (3,))}
    )


@pytest.mark.parametrize(
    ("env", "sentence"),
    [
        ("FetchReech-v4", "no environment 'FetchReech-v4'; did you mean FetchReach-v4"),
        ("CartPole-v1", "CartPole-v1 carries no goals"),
        (Writing, "has Text actions, but ODAC needs a bounded Box"),
        (MismatchedGoals, r"'achieved_goal' is \(2,\) and 'desired_goal' is \(3,\)"),
    ],
)
def test_bad_environment(env, sentence):
    with pytest.raises(ValueError, match=sentence) as info:
        ODACConfig().environment(env).validate()
    assert "\n" not in str(info.value)


def test_chained_sections_are_rllibs_own():
    config = (
        ODACConfig()
        .environment("odac/Box2D-v0")
        .training(prior_discount=0.9, lr=3e-4, relabel={"future": 1.0})
        .env_runners(num_env_runners=2)
    )
    config.validate()
    assert (config.prior_discount, config.lr, config.num_env_runners) == (0.9, 3e-4, 2)
    assert config.build_objective().prior_discount == 0.9


def test_unit_and_success_come_from_the_environment_unless_they_are_set():
    config = small_config("odac/Box2D-v0").training(objective="her")
    assert config.goals.scale == 4.0
    assert config.build_objective().goals.success_distance == 0.6
    assert config.training(success_distance=0.1).build_objective().goals.success_distance == 0.1
    config = small_config("FetchReach-v4").training(objective="her")
    assert config.goals.scale is None
    assert config.build_objective().goals.success_distance == 0.05
    assert config.environment("odac/Box2D-v0").build_objective().goals.success_distance == 0.6


def test_an_environment_that_says_nothing_needs_a_success_distance():
    assert small_config("PointMaze_UMaze-v3").goals.success_distance == 0.45
    config = small_config().environment(partial(Ending)).training(objective="her")
    with pytest.raises(ValueError, match="success_distance is 'auto', but the environment names"):
        config.build_objective()


CONFIGS = sorted(tuned.DIRECTORY.glob("*.json"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_tuned_configurations_are_valid_with_every_objective_they_are_compared_with(path):
    spec = RunSpec(**read_spec(path))
    module, registers, _ = str(spec.env).partition(":")
    if registers:
        pytest.importorskip(module)
    for objective in OBJECTIVES:
        replace(spec, objective=objective).config()


def test_the_method_is_a_field_of_the_run():
    with pytest.raises(ValueError, match="settings has objective 'her', but must leave it"):
        RunSpec("odac/Box2D-v0", settings={"objective": "her"}).config()


def test_there_is_a_tuned_configuration_for_each_task():
    of = {read_spec(path)["env"] for path in CONFIGS}
    assert of >= set(OWN_ENVS) - {"odac/MetaWorld-v0"}  # which is many tasks
    assert all(tuned.tuned_fields(env)["env"] == env for env in of)
    assert tuned.tuned_fields("FetchSlide-v4") == {}


def test_functions_are_not_mixed_up_and_need_no_name():
    first = small_config().environment(lambda **settings: make_env("odac/Box2D-v0", **settings))
    assert first.goals.success_distance == 0.6
    second = first.copy(copy_frozen=False)
    second.environment(lambda **settings: make_env("FetchReach-v4", **settings))
    assert first.make_env().observation_space["achieved_goal"].shape == (2,)
    assert second.make_env().observation_space["achieved_goal"].shape == (3,)
    assert second.goals.success_distance == 0.05
    third = second.copy(copy_frozen=False).environment(partial(make_env, "odac/Box2D-v0"))
    assert third.goals.success_distance == 0.6
    assert third.environment("FetchReach-v4").goals.success_distance == 0.05
    restored = ODACConfig.from_state(first.get_state())
    assert restored.make_env().observation_space["achieved_goal"].shape == (2,)


def test_messages_name_the_users_function():
    def make_cart_pole():
        return gym.make("CartPole-v1")

    with pytest.raises(ValueError, match=r"made by .*make_cart_pole carries no goals"):
        small_config().environment(make_cart_pole).check_environment()


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"steps": "many"}, "steps is 'many', but must be a whole number"),
        ({"seed": None}, "seed is None, but must be a whole number"),
        ({"env": 3}, "env is 3, but must be the id of an environment, or None"),
        ({"checkpoint_every": 0}, "checkpoint_every is 0, but must be a whole number of at"),
        ({"checkpoint_every": 499}, "checkpoint_every is 499, but must be at least 500: a ch"),
        ({"stop_success": "often"}, "stop_success is 'often', but must be a number in"),
    ],
)
def test_runs_say_what_is_wrong_with_a_field(fields, sentence):
    with pytest.raises(ValueError, match=sentence):
        RunSpec(**{"env": "odac/Box2D-v0"} | fields).config()


def test_a_checkpoint_comes_less_often_than_environments_end_an_episode():
    """A checkpoint drops what goes on: every 1,000 steps ten environments of 200 would end none."""
    for fields, interval in (
        ({}, 1000),
        ({"steps": 500_000}, 10_000),
        ({"settings": {"num_envs_per_env_runner": 30}}, 3000),
        ({"settings": {"num_envs_per_env_runner": 30}, "num_env_runners": 1}, 1000),
        ({"env": "odac/SawyerPush-v0", "steps": 9000}, 2000),
        ({"checkpoint_every": 500}, 500),
    ):
        spec = RunSpec(**{"env": "odac/Box2D-v0", "steps": 9000} | fields)
        assert spec.checkpoint_interval_with(spec.config()) == interval
