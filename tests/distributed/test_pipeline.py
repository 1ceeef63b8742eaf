"""Sampling and learning that overlap: bounded leads, whole accounts, and a driver without data."""

from __future__ import annotations

import sys
import time

import gymnasium as gym
import numpy as np
import pytest
import ray
from ray import cloudpickle

from rllib_odac import make_env
from rllib_odac.checkpoints.manifest import read_manifest
from rllib_odac.learner import ODACTorchLearner
from rllib_odac.ray_compat import was_restarted
from rllib_odac.replay.episodes import GoalEpisode
from tests.conftest import small_config

pytestmark = pytest.mark.distributed
cloudpickle.register_pickle_by_value(sys.modules[__name__])  # actors cannot import the tests


def networks(learner: ODACTorchLearner):
    return {name: value.cpu().numpy() for name, value in learner.networks.state_dict().items()}


def transitions(algorithm):
    results = algorithm.learner_group.foreach_learner(lambda learner: len(learner.replay))
    return [result.get() for result in results]


@pytest.mark.parametrize("num_learners", [pytest.param(0, marks=pytest.mark.slow), 2])
def test_neither_side_gets_farther_ahead_than_it_may(ray_cluster, num_learners):
    config = small_config(max_weight_lag=30, updates_per_env_step=0.25)
    config.env_runners(num_env_runners=2).learners(num_learners=num_learners)
    algorithm = config.build_algo()
    lags = []
    while algorithm.env_steps < 4000:
        algorithm.training_step()
        assert algorithm.updates <= algorithm._training._updates_due(algorithm.env_steps)
        if algorithm._training._replay_ready:
            promised = algorithm.env_steps + algorithm._training.requests.env_steps_expected
            lags.append(algorithm._training._updates_due(promised) - algorithm.updates)
    # what was owed from before there was anything to learn from takes its time
    assert max(lags[len(lags) // 2 :]) <= 30
    assert max(lags) > 10  # two requests of 10 updates each are under way at once
    assert algorithm.train()["weight_lag"] >= 0
    algorithm.drain()
    assert algorithm.updates == int((algorithm.env_steps - 200) * 0.25)
    algorithm.stop()


@pytest.mark.slow
@pytest.mark.parametrize("num_learners", [0, 1])
def test_a_lag_of_nothing_takes_turns(ray_cluster, num_learners):
    config = small_config(max_weight_lag=0, updates_per_env_step=0.25, asynchronous=True)
    config.env_runners(num_env_runners=2).learners(num_learners=num_learners)
    algorithm = config.build_algo()
    while algorithm.env_steps < 1000:
        algorithm.training_step()
        if algorithm.updates > 50:  # what was asked for before there was anything to learn from
            assert len(algorithm._training.requests.references) <= 1
            assert not (
                algorithm._training.requests.references
                and algorithm._training.calls.updates_in_flight
            )
    assert algorithm.updates > 100
    algorithm.stop()


@pytest.mark.long
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


@pytest.mark.long
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


@pytest.mark.long
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


@pytest.mark.slow
def test_sampling_survives_an_env_runner_that_is_killed(ray_cluster):
    algorithm = small_config().env_runners(num_env_runners=2).build_algo()
    algorithm.train()
    victim = algorithm.env_runner_group._worker_manager.actors()[1]
    ray.kill(victim, no_restart=False)
    before = algorithm.env_steps
    deadline = time.monotonic() + 120
    while algorithm.env_runner_group.num_healthy_remote_env_runners() == 2:
        assert time.monotonic() < deadline
        algorithm.training_step()
    while algorithm.env_runner_group.num_healthy_remote_env_runners() < 2:
        assert time.monotonic() < deadline
        algorithm.train()  # in which RLlib looks whether it is back
    algorithm.train()
    assert algorithm.env_steps >= before + 800
    algorithm.drain()
    assert algorithm.updates == int((algorithm.env_steps - 200) * 0.1)
    # what has come back does not live through its beginning again
    restarted = algorithm.env_runner_group.foreach_env_runner(
        lambda _: was_restarted(), local_env_runner=False
    )
    assert restarted == [True, False]
    algorithm.stop()


@pytest.mark.slow
def test_nobody_waits_for_an_env_runner_that_stalls(ray_cluster, tmp_path):
    config = small_config(updates_per_env_step=1.0, max_weight_lag=50)
    config.env_runners(num_env_runners=2, sample_timeout_s=3)
    algorithm = config.build_algo()
    algorithm.train()

    def stall(runner):
        if runner.worker_index == 1:
            begin = runner.sample

            def sample(**arguments):
                runner.sample = begin
                time.sleep(30)
                return begin(**arguments)

            runner.sample = sample

    algorithm.env_runner_group.foreach_env_runner(stall, local_env_runner=False)
    start = time.monotonic()
    before = algorithm.env_steps
    while algorithm.env_steps < before + 800:
        algorithm.training_step()
    algorithm.save_to_path(str(tmp_path / "meanwhile"))
    assert len(algorithm._training.requests.references) > 0  # it sleeps still
    assert time.monotonic() - start < 30
    algorithm.stop()


class TwoPartError(Exception):
    """Cannot be unpickled: its arguments are not those that it was made with."""

    def __init__(self, part, number):
        super().__init__(f"The {part} broke at step {number}.")


class Breaking(gym.Wrapper):
    steps = 0

    def step(self, action):
        self.steps += 1
        if self.steps > 60:
            raise TwoPartError("gripper", self.steps)
        return super().step(action)


def make_breaking():
    return Breaking(make_env("FetchReach-v4"))


def test_an_environments_error_arrives_whatever_it_is_made_of(ray_cluster):
    config = small_config(make_breaking, num_envs_per_env_runner=1, max_episode_steps=50)
    algorithm = config.env_runners(num_env_runners=1).build_algo()
    with pytest.raises(RuntimeError, match="TwoPartError: The gripper broke at step 61") as caught:
        algorithm.train()
    assert "in step" in caught.value.__notes__[0]  # the traceback
    algorithm.stop()


@pytest.mark.long
def test_an_error_of_one_learner_ends_the_run(ray_cluster):
    config = small_config().env_runners(num_env_runners=1).learners(num_learners=2)
    algorithm = config.build_algo()
    algorithm.train()

    def spoil(learner: ODACTorchLearner) -> None:
        if learner._learner_index == 1:
            learner.replay.sample_steps = None  # the next update raises a TypeError

    algorithm.learner_group.foreach_learner(spoil)
    with pytest.raises(TypeError, match="not callable"):
        algorithm.train()
    with pytest.raises(RuntimeError, match="build the algorithm anew"):
        algorithm.drain()
    algorithm.stop()


@pytest.mark.long
def test_a_run_in_a_directory_ends_within_its_budget(ray_cluster, tmp_path):
    from rllib_odac.experiments.run import Run
    from rllib_odac.experiments.spec import RunSpec

    spec = RunSpec(
        "odac/Box2D-v0",
        steps=2030,
        settings={"hidden": [32, 32], "updates_per_env_step": 0.2, "num_envs_per_env_runner": 10},
        num_env_runners=3,
        evaluate_every=500,
        checkpoint_every=500,
        evaluation_episodes=4,
        final_episodes=4,
    )
    run = Run(spec, tmp_path / "run")
    summary = run.train()
    assert run.summary_if_finished == summary
    for checkpoint in (tmp_path / "run" / "checkpoints").iterdir():
        assert f"{read_manifest(checkpoint)['env_steps']:09d}" in checkpoint.name
    assert 2030 <= summary["env_steps"] <= 2130
    assert summary["updates"] == int((summary["env_steps"] - 500) * 0.2)
