"""Env runners, environments and learners that fail: who goes on, what is lost, what is said."""

from __future__ import annotations

import os
import signal
import sys
import time

import numpy as np
import pytest
import ray
from ray import cloudpickle

from rllib_odac.experiments.run import Run
from rllib_odac.experiments.spec import RunSpec
from rllib_odac.runtime import training
from rllib_odac.runtime.faults import EnvRunnersLostError
from rllib_odac.runtime.supervision import Supervision
from tests import faulty
from tests.conftest import small_config

pytestmark = pytest.mark.distributed
# Actors cannot import the tests.
cloudpickle.register_pickle_by_value(sys.modules[__name__])
cloudpickle.register_pickle_by_value(faulty)


def build(num_env_runners=2, num_learners=0, num_envs=4, env=None, **settings):
    """A small algorithm, its environment failing as `env` says."""
    config = small_config(num_envs_per_env_runner=num_envs, **settings)
    if env is not None:
        config.environment(faulty.make_faulty, env_config=env)
        config.training(replay_capacity=5000).environment(disable_env_checking=True)
        config.max_episode_steps = 50
    config.env_runners(num_env_runners=num_env_runners).learners(num_learners=num_learners)
    return config.evaluation(evaluation_interval=None).build_algo()


def actors(algorithm):
    return algorithm.env_runner_group._worker_manager.actors()


def train_on(algorithm):
    while algorithm.env_steps < 100_000:
        algorithm.train()


def check_accounts(algorithm):
    """Every step that was counted is in a replay, in an open episode, or entered as lost."""
    algorithm.drain()
    taken = algorithm.learner_group.foreach_learner(lambda learner: learner.replay.num_added)
    replayed = sum(each.get() for each in taken)
    losses = algorithm.fault_counters
    lost = losses.env_steps_lost + losses.env_steps_dropped
    assert algorithm.env_steps == replayed + algorithm._training.accounting.unfinished + lost
    due = int((algorithm.env_steps - 200) * algorithm.config.updates_per_env_step)
    assert algorithm.updates == due > 0
    return losses


@pytest.mark.parametrize("num_env_runners", [0, 1])
def test_an_environment_that_fails_rarely_is_made_anew_and_counted(ray_cluster, num_env_runners):
    env = {"faults": ("raise", "nan", "inf"), "rate": 0.005}
    algorithm = build(num_env_runners, env=env, restart_failed_sub_environments=True)
    for _ in range(4):
        result = algorithm.train()
    assert result["env_runners"]["num_env_step_failures"] > 0
    losses = check_accounts(algorithm)
    assert losses.env_steps_lost > 0
    assert result["faults"]["env_runners_lost"] == 0
    episodes = algorithm.learner_group._learner.replay.episodes()
    assert all(np.isfinite(episode.achieved_goal).all() for episode in episodes)
    algorithm.stop()


def test_an_environment_that_never_comes_to_an_end_is_given_up(ray_cluster):
    algorithm = build(
        num_env_runners=1,
        env={"rate": 1.0, "after": 30},
        restart_failed_sub_environments=True,
        num_consecutive_env_runner_failures_tolerance=3,
    )
    with pytest.raises(OSError, match="the simulator lost its connection"):
        train_on(algorithm)
    algorithm.stop()


@pytest.mark.slow
def test_env_runners_that_are_killed_come_back_all_at_once_too(ray_cluster):
    algorithm = build(num_learners=1)
    algorithm.train()
    for victims in ([1], [1, 2]):
        for victim in victims:
            ray.kill(actors(algorithm)[victim], no_restart=False)
        lost = algorithm.fault_counters.env_runners_lost + len(victims)
        deadline = time.monotonic() + 60
        while (
            algorithm.fault_counters.env_runners_lost < lost
            or algorithm.env_runner_group.num_healthy_remote_env_runners() < 2
        ):
            assert time.monotonic() < deadline
            result = algorithm.train()
    assert result["faults"]["env_runners_alive"] == 2
    losses = check_accounts(algorithm)
    assert losses.env_runners_lost == 3
    # What has come back knows how far the run is: it does not begin with random actions again.
    steps = algorithm.env_runner_group.foreach_env_runner(
        lambda runner: runner.num_env_steps_sampled_lifetime, local_env_runner=False
    )
    assert min(steps) > algorithm.config.num_initial_random_steps
    algorithm.stop()


@pytest.mark.slow
def test_env_runners_that_kill_themselves_cost_what_they_had_in_hand(ray_cluster):
    algorithm = build(num_envs=1, env={"faults": ("kill",), "rate": 1.0, "after": 400})
    while algorithm.fault_counters.env_runners_lost < 4:
        algorithm.train()
    losses = check_accounts(algorithm)
    assert losses.env_steps_lost <= 50 * 2 * losses.env_runners_lost
    assert losses.env_steps_missed <= 20 * losses.env_runners_lost
    algorithm.stop()


def test_nothing_is_waited_for_where_env_runners_are_gone_for_good(ray_cluster):
    algorithm = build(max_num_env_runner_restarts=0)
    algorithm.train()
    before = algorithm.env_steps
    ray.kill(actors(algorithm)[1])
    while algorithm.fault_counters.env_runners_lost == 0:
        algorithm.train()
    algorithm.train()  # one is enough
    ray.kill(actors(algorithm)[2])
    start = time.monotonic()
    with pytest.raises(EnvRunnersLostError, match="lost for good"):
        train_on(algorithm)
    assert time.monotonic() - start < 30
    assert algorithm.env_steps > before
    check_accounts(algorithm)  # updates did not go on without them
    algorithm.stop()


@pytest.mark.long
def test_an_env_runner_that_stalls_is_restarted_and_in_the_end_given_up(ray_cluster):
    algorithm = build(
        env={"faults": ("stall",), "rate": 1.0, "after": 100},
        sample_timeout_s=1,
        env_runner_restore_timeout_s=300,
    )
    while algorithm.fault_counters.env_runners_stalled < 2:
        algorithm.train()
    check_accounts(algorithm)
    algorithm._training.requests._patience_s = 1.5
    with pytest.raises(EnvRunnersLostError, match=r"brought a sample for 1\.5 s"):
        train_on(algorithm)
    algorithm.stop()


def test_a_wait_on_a_frozen_process_ends_with_a_word(ray_cluster, caplog):
    @ray.remote(num_cpus=0)
    class Sleeper:
        def sleep(self, seconds):
            time.sleep(seconds)

    sleepers = [Sleeper.remote() for _ in range(2)]
    ray.get([sleeper.sleep.remote(0) for sleeper in sleepers])
    supervision = Supervision("Learners", lambda: sleepers, 2, "learner_timeout_s")
    with supervision.waiting("save"):  # in time: nothing happens
        ray.get(sleepers[0].sleep.remote(0.1))
    assert not caplog.text
    with pytest.raises(ray.exceptions.RayActorError), supervision.waiting("save"):
        ray.get(sleepers[0].sleep.remote(600))
    assert "Learners have taken 0 s to save; after 2 s (learner_timeout_s)" in caplog.text
    assert "Learners did not save within 2 s (learner_timeout_s); they are killed." in caplog.text


@pytest.mark.slow
def test_episodes_that_no_learner_takes_in_hold_env_runners_back(ray_cluster, monkeypatch):
    monkeypatch.setattr(training, "MOST_WAITING", 2000)
    algorithm = build(num_learners=1, updates_per_env_step=0.001)
    algorithm.train()
    [pid] = [r.get() for r in algorithm.learner_group.foreach_learner(lambda _: os.getpid())]
    os.kill(pid, signal.SIGSTOP)
    begun, deadline = algorithm.env_steps, time.monotonic() + 20
    while time.monotonic() < deadline:
        algorithm._training.step()
    # What waits, and what the two env runners had been asked for when it got too much.
    assert algorithm.env_steps - begun <= 2000 + 2 * 2 * 40 + 2 * 4 * 50
    os.kill(pid, signal.SIGCONT)
    algorithm.train()
    check_accounts(algorithm)
    algorithm.stop()


@pytest.mark.long
@pytest.mark.parametrize(
    "blow", [pytest.param(signal.SIGKILL, marks=pytest.mark.slow), signal.SIGSTOP]
)
def test_a_run_goes_on_from_its_checkpoint_when_a_learner_dies_or_freezes(
    ray_cluster, tmp_path, caplog, blow
):
    settings = {"hidden": [32, 32], "updates_per_env_step": 0.2, "learner_timeout_s": 15}
    spec = RunSpec(
        "odac/Box2D-v0",
        steps=2000,
        settings=settings,
        num_env_runners=1,
        num_learners=2,
        evaluate_every=500,
        checkpoint_every=500,
        evaluation_episodes=2,
        final_episodes=2,
    )
    killed = []

    def kill_a_learner(row):
        if row["env_steps"] > 900 and not killed:
            learners = run._algorithm.learner_group
            pids = [each.get() for each in learners.foreach_learner(lambda _: os.getpid())]
            killed.append(pids[1])
            os.kill(pids[1], blow)

    run = Run(spec, tmp_path / "run", on_row=kill_a_learner)
    summary = run.train()
    assert killed
    assert "A learner is lost; the run goes on from its checkpoint at" in caplog.text
    assert 2000 <= summary["env_steps"] <= 2100
    assert summary["updates"] == int((summary["env_steps"] - 500) * 0.2)
    steps = [row["env_steps"] for row in run.rows]
    assert steps == sorted(set(steps))
    if blow == signal.SIGSTOP:
        assert "(learner_timeout_s); they are killed." in caplog.text
        deadline = time.monotonic() + 30
        while os.path.exists(f"/proc/{killed[0]}"):  # nothing is left of it
            assert time.monotonic() < deadline
            time.sleep(0.5)
