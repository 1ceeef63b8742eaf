"""Sampling and learning that overlap: bounded leads, whole accounts, and a driver without data."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import ray
from ray import cloudpickle

from rllib_odac.episodes import GoalEpisode
from rllib_odac.learner import ODACTorchLearner
from tests.conftest import small_config

pytestmark = pytest.mark.distributed
cloudpickle.register_pickle_by_value(sys.modules[__name__])  # actors cannot import the tests


def networks(learner: ODACTorchLearner):
    return {name: value.cpu().numpy() for name, value in learner.goal_module.state_dict().items()}


def transitions(algorithm):
    results = algorithm.learner_group.foreach_learner(lambda learner: len(learner.replay))
    return [result.get() for result in results]


@pytest.mark.parametrize("num_learners", [0, 2])
def test_neither_side_gets_farther_ahead_than_it_may(ray_cluster, num_learners):
    config = small_config(max_weight_lag=30, updates_per_env_step=0.25)
    config.env_runners(num_env_runners=2).learners(num_learners=num_learners)
    algorithm = config.build_algo()
    lags = []
    while algorithm.env_steps < 4000:
        algorithm.training_step()
        assert algorithm.updates <= algorithm._updates_due(algorithm.env_steps)
        if algorithm._replay_ready:
            promised = algorithm.env_steps + algorithm._sampling.env_steps_in_flight
            lags.append(algorithm._updates_due(promised) - algorithm.updates)
    # what was owed from before there was anything to learn from takes its time
    assert max(lags[len(lags) // 2 :]) <= 30
    assert max(lags) > 10  # two requests of 10 updates each are under way at once
    algorithm.train()
    assert 0 <= algorithm.train()["weight_lag"] <= 30  # of this iteration
    algorithm.drain()
    assert algorithm.updates == int((algorithm.env_steps - 200) * 0.25)
    algorithm.stop()


@pytest.mark.parametrize("num_learners", [0, 1])
def test_a_lag_of_nothing_takes_turns(ray_cluster, num_learners):
    config = small_config(max_weight_lag=0, updates_per_env_step=0.25, asynchronous=True)
    config.env_runners(num_env_runners=2).learners(num_learners=num_learners)
    algorithm = config.build_algo()
    while algorithm.env_steps < 1000:
        algorithm.training_step()
        if algorithm.updates > 50:  # what was asked for before there was anything to learn from
            assert len(algorithm._sampling.references) + algorithm._learning.num_calls <= 2
            if algorithm._sampling.references:
                assert algorithm._learning.updates_in_flight == 0
    assert algorithm.updates > 100
    algorithm.stop()


def test_no_transition_enters_the_driver(ray_cluster, monkeypatch):
    def refuse(*_):
        raise AssertionError("an episode was unpickled in the driver")

    monkeypatch.setattr(GoalEpisode, "__setstate__", refuse, raising=False)
    config = small_config().env_runners(num_env_runners=2).learners(num_learners=1)
    algorithm = config.build_algo()
    reference = algorithm.env_runner_group.foreach_env_runner(
        lambda runner: ray.put(runner.sample(num_episodes=1)), local_env_runner=False
    )[0]
    with pytest.raises(Exception, match="unpickled in the driver"):
        ray.get(reference)
    algorithm.train()
    algorithm.train()
    assert transitions(algorithm)[0] >= 200
    algorithm.stop()


def test_every_episode_that_ended_is_learned_from(ray_cluster):
    config = small_config().env_runners(num_env_runners=2).learners(num_learners=2)
    algorithm = config.build_algo()
    for _ in range(3):
        algorithm.train()
    algorithm.drain()
    ended = algorithm.env_runner_group.foreach_env_runner(
        lambda runner: (runner.env_steps, runner._open.lengths.sum()), local_env_runner=False
    )
    steps, still_open = np.sum(ended, axis=0)
    assert algorithm.env_steps == steps
    assert sum(transitions(algorithm)) == steps - still_open
    algorithm.stop()


def test_synchronous_runs_can_be_repeated(ray_cluster):
    runs = []
    for _ in range(2):
        config = small_config(asynchronous=False).env_runners(num_env_runners=2)
        algorithm = config.build_algo()
        algorithm.train()
        algorithm.train()
        runs.append((algorithm.updates, networks(algorithm.learner_group._learner)))
        algorithm.stop()
    assert runs[0][0] == runs[1][0] > 0
    assert all(np.array_equal(runs[0][1][name], runs[1][1][name]) for name in runs[0][1])


def test_sampling_survives_an_env_runner_that_is_killed(ray_cluster):
    algorithm = small_config().env_runners(num_env_runners=2).build_algo()
    algorithm.train()
    victim = algorithm.env_runner_group._worker_manager.actors()[1]
    ray.kill(victim, no_restart=False)
    before = algorithm.env_steps
    for _ in range(4):
        algorithm.train()
    assert algorithm.env_steps >= before + 1600
    algorithm.drain()
    assert algorithm.updates == int((algorithm.env_steps - 200) * 0.1)
    assert algorithm.env_runner_group.num_healthy_remote_env_runners() == 2
    algorithm.stop()


def test_an_error_of_one_learner_ends_the_run(ray_cluster):
    config = small_config().env_runners(num_env_runners=1).learners(num_learners=2)
    algorithm = config.build_algo()
    algorithm.train()

    def spoil(learner: ODACTorchLearner) -> None:
        if learner._learner_index == 1:
            learner.replay.sample = None  # the next update raises a TypeError

    algorithm.learner_group.foreach_learner(spoil)
    with pytest.raises(TypeError, match="not callable"):
        algorithm.train()
    algorithm.stop()


def test_a_run_in_a_directory_ends_within_its_budget(ray_cluster, tmp_path):
    from rllib_odac.runs import Run, RunSpec

    spec = RunSpec(
        "odac/Box2D-v0",
        steps=2030,
        settings={"hidden": [32, 32], "updates_per_env_step": 0.2, "num_envs_per_env_runner": 10},
        num_env_runners=3,
        evaluate_every=500,
        evaluation_episodes=4,
        final_episodes=4,
    )
    summary = Run(spec, tmp_path / "run").train()
    assert 2030 <= summary["env_steps"] <= 2130
    assert summary["updates"] == int((summary["env_steps"] - 500) * 0.2)
