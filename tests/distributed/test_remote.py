"""Remote env runners and several learners on a real local Ray cluster."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import ray
import torch
from ray import cloudpickle

from benchmarks.checkpoint_faults import small_disk
from rllib_odac.checkpoints.manifest import check_checkpoint
from rllib_odac.learner import ODACTorchLearner
from tests.conftest import small_config
from tests.system.commands import BOX, wait_for
from tests.system.test_command_line import read_run

pytestmark = pytest.mark.distributed
cloudpickle.register_pickle_by_value(sys.modules[__name__])  # actors cannot import the tests


def networks(learner: ODACTorchLearner):
    return {name: value.cpu().numpy() for name, value in learner.networks.state_dict().items()}


def shard(learner: ODACTorchLearner):
    return [episode.observation for episode in learner.replay.episodes()]


def each(algorithm, function):
    return [result.get() for result in algorithm.learner_group.foreach_learner(function)]


@pytest.mark.long
def test_remote_env_runners_collect_and_evaluate(ray_cluster):
    config = small_config().env_runners(num_env_runners=2).evaluation(evaluation_num_env_runners=2)
    algorithm = config.build_algo()
    for _ in range(2):
        result = algorithm.train()
    algorithm.drain()
    assert algorithm.env_steps >= 800
    assert algorithm.updates == int((algorithm.env_steps - 200) * 0.1)
    assert result["evaluation"]["env_runners"]["final_distance"] > 0
    held_out = algorithm.evaluate_held_out(10)
    assert held_out["num_episodes"] == 10
    learner = algorithm.learner_group._learner.networks.policy.state_dict()
    weights = algorithm.eval_env_runner_group.foreach_env_runner(
        lambda runner: runner.module.networks.policy.state_dict(), local_env_runner=False
    )
    assert len(weights) == 2
    ours = algorithm.get_module().networks.policy.state_dict()  # the driver's own copy
    for state in [*weights, ours]:
        assert all(torch.equal(state[name], learner[name]) for name in learner)
    algorithm.stop()

    # the goals are the same ones, however many env runners share them
    local = small_config().build_algo()
    module = local.eval_env_runner_group.local_env_runner.module
    module.networks.policy.load_state_dict(learner)
    runner = local.eval_env_runner_group.local_env_runner
    first = 2**31
    assert runner.evaluate(range(first, first + 10))["initial_distance"].mean() == pytest.approx(
        100 * held_out["final_distance"] / held_out["normalized_distance"], rel=1e-6
    )
    local.stop()


@pytest.mark.long
@pytest.mark.parametrize(
    "settings",
    [
        {"kl_weight": "auto", "dynamics_members": 2, "disagreement_weight": 1.0},
        pytest.param({"objective": "uvd"}, marks=pytest.mark.slow),
        pytest.param({"kl_weight": 0.05}, marks=pytest.mark.slow),
        pytest.param({"objective": "discern"}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_two_learners_stay_equal_and_see_different_data(ray_cluster, settings):
    config = small_config(**settings, updates_per_env_step=0.2)
    algorithm = config.env_runners(num_env_runners=2).learners(num_learners=2).build_algo()
    for _ in range(3):
        algorithm.train()
    algorithm.drain()
    first, second = each(algorithm, networks)
    assert algorithm.updates > 100
    for name in first:
        assert np.array_equal(first[name], second[name]), name
    first, second = each(algorithm, shard)
    assert len(first) > 0
    assert len(second) > 0
    assert not any(np.array_equal(ours, theirs) for ours in first for theirs in second)
    algorithm.stop()


@pytest.mark.long
def test_episodes_lost_with_their_env_runner_are_counted(ray_cluster):
    algorithm = small_config().env_runners(num_env_runners=1).learners(num_learners=2).build_algo()
    result = algorithm.train()
    assert result["learners"]["__all_modules__"]["samples_lost"] == 0
    before = each(algorithm, shard)
    owner = ray.remote(Owner).remote()
    lost = [ray.get(owner.leave_behind.remote()) for _ in range(3)]
    ray.kill(owner)
    wait_for(lambda: all(map(is_lost, lost)))
    metrics = each(algorithm, functools.partial(take_in, shards=[lost[:1], lost[1:]]))
    algorithm.metrics.aggregate(metrics, key="learners")
    assert algorithm.metrics.reduce()["learners"]["__all_modules__"]["samples_lost"] == 3
    for old, new in zip(before, each(algorithm, shard), strict=True):
        assert [len(episode) for episode in old] == [len(episode) for episode in new]
    algorithm.stop()


class Owner:
    """Stands for an env runner: what it puts into the object store is gone when it is."""

    def leave_behind(self):
        return ray.put([np.zeros(20_000)])


def is_lost(reference):
    try:
        ray.get(reference)
    except ray.exceptions.ObjectLostError:
        return True
    return False


def take_in(learner: ODACTorchLearner, shards):
    return learner.update(episodes_refs=shards[learner._learner_index])


TWO_CPUS = "import os; os.cpu_count = lambda: 2; from rllib_odac.cli import main; main()"


@pytest.mark.slow
def test_more_processes_than_cpus_train_with_one_warning(tmp_path):
    arguments = ["train", *BOX, "--steps", 1500, "--num-env-runners", 1, "--num-learners", 2]
    process = subprocess.run(
        [sys.executable, "-c", TWO_CPUS, *map(str, arguments), "--out", tmp_path / "run"],
        check=False,
        **{"capture_output": True, "text": True, "timeout": 300},
    )
    assert process.returncode == 0, process.stderr
    # Ray's core says in a line of its own that RLlib's env runners depend on an object.
    said = [line for line in process.stderr.splitlines() if "core_worker.cc" not in line]
    assert said == ["warning: 3 processes share 2 CPUs; more of them will not make this faster."]
    assert read_run(tmp_path / "run")[1]["updates"] > 0


def shards_of(algorithm):
    """All episodes in the replays, in an order that does not depend on where they are."""
    return sorted(states.tobytes() for part in each(algorithm, shard) for states in part)


@pytest.mark.long
def test_shards_are_redistributed_over_another_number_of_learners(ray_cluster, tmp_path):
    config = small_config().env_runners(num_env_runners=1).learners(num_learners=2)
    algorithm = config.build_algo()
    algorithm.train()
    algorithm._training._next_learner = 1  # which there will not be
    algorithm.save_to_path(str(tmp_path / "two"))
    manifest = check_checkpoint(tmp_path / "two")
    assert manifest["replay_shards"] == ["shard_00000.npz", "shard_00001.npz"]
    saved = shards_of(algorithm)
    weights = each(algorithm, networks)[0]
    # A learner whose disk is full says so, and is not restarted for it.
    before = each(algorithm, pid)
    size = sum(path.stat().st_size for path in (tmp_path / "two").rglob("*.*"))
    with small_disk(1) as disk:
        for share in (0.2, 0.6, 0.9) if disk is not None else ():
            free = shutil.disk_usage(disk).free
            (disk / "ballast").write_bytes(b"\0" * (free - int(share * size)))
            with pytest.raises(
                OSError, match=r"new' cannot be written \(No space left on device\)"
            ):
                algorithm.save_to_path(str(disk / "new"))
            assert [path.name for path in disk.iterdir()] == ["ballast"]
            (disk / "ballast").unlink()
    assert [path.name for path in tmp_path.iterdir()] == ["two"]
    assert each(algorithm, pid) == before
    policy = dict(np.load(tmp_path / "two" / "policy" / "policy.npz"))
    assert "policy.net.0.weight" in policy
    assert all(np.array_equal(array, weights[name]) for name, array in policy.items())
    algorithm.stop()

    single = small_config().build_algo()
    single.train()  # what it has of its own is replaced
    single.restore_from_path(str(tmp_path / "two"))
    assert shards_of(single) == saved
    assert all(np.array_equal(weights[name], each(single, networks)[0][name]) for name in weights)
    single.save_to_path(str(tmp_path / "one"))
    single.train()
    single.stop()

    config = small_config(on_divergence="skip", asynchronous=False)
    config.env_runners(num_env_runners=1).learners(num_learners=3)
    three = config.build_algo()
    three.restore_from_path(str(tmp_path / "one"))
    assert shards_of(three) == saved
    sizes = [len(part) for part in each(three, shard)]
    assert max(sizes) - min(sizes) <= 1
    # One learner meets what is not finite: none of them takes the update, and all go on.
    each(three, functools.partial(spoil_rewards, index=1))
    updates = three.updates
    result = three.train()
    three.drain()
    assert three.updates > updates
    skipped = result["learners"]["__all_modules__"]["updates_skipped"]
    assert skipped == three.updates - updates
    states = each(three, networks)
    trained = [name for name in states[0] if name.startswith(("policy.", "critic.", "dynamics."))]
    for name in trained:
        assert all(np.array_equal(state[name], weights[name]) for state in states), name
    three.stop()


def pid(learner):
    return os.getpid()


def spoil_rewards(learner: ODACTorchLearner, index):
    """Makes every reward of one learner infinite."""
    if learner._learner_index == index:
        rule = learner.objective.reward_and_discount
        learner.objective.reward_and_discount = lambda *arguments: rule(*arguments)._replace(
            reward=torch.full((32,), torch.inf)
        )


@pytest.mark.slow
def test_exploration_goals_reach_every_env_runner(ray_cluster):
    # in step, so that all are told the same at the same time
    config = small_config(exploration_goals="rare", asynchronous=False)
    config.env_runners(num_env_runners=2)
    algorithm = config.learners(num_learners=2).build_algo()
    for _ in range(3):
        algorithm.train()
    first, second = algorithm.env_runner_group.foreach_env_runner(
        lambda runner: runner._exploration_goals["rare"], local_env_runner=False
    )
    assert first.shape == (512, 2)  # 256 from each learner
    assert np.array_equal(first, second)
    # what was asked for is what had been achieved, and it is in the episodes that came back
    states = np.concatenate([states for states in each(algorithm, shard) for states in states])
    assert all((np.abs(states - goal).max(-1) < 1e-6).any() for goal in first[::50])
    own = each(algorithm, asked)
    assert sum(own) > 0
    algorithm.stop()


def asked(learner: ODACTorchLearner):
    """How many episodes were given a goal that had been achieved in another one."""
    episodes = learner.replay.episodes()
    states = np.concatenate([episode.achieved_goal for episode in episodes])
    return sum((states == episode.desired_goal[0]).all(-1).any() for episode in episodes)
