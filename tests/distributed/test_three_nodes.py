"""A cluster of three nodes on this machine: training joins it and spreads over it."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import ray
from ray import cloudpickle
from ray.cluster_utils import Cluster

from rllib_odac.experiments.run import Run
from rllib_odac.experiments.spec import RunSpec
from tests.conftest import small_config
from tests.system.commands import BOX, wait_for
from tests.system.commands import odac_process as odac
from tests.system.test_command_line import read_run

pytestmark = [pytest.mark.distributed, pytest.mark.long]
cloudpickle.register_pickle_by_value(sys.modules[__name__])  # actors cannot import the tests

STORE = 80 * 2**20  # bytes of each node's object store
MOST = ["--num-env-runners", 1, "--num-learners", 2]  # of the four CPUs
SHORT = [*BOX, "--steps", 1000, "--evaluation-episodes", 2, "--final-episodes", 2]
COLLECT = "num_env_runners is 9 (1 CPU each)"
EVALUATE = "evaluation_num_env_runners is 1 (1 CPU each)"  # in a run, beside the others
REFUSED = (
    "which the Ray cluster can never hold: it has 2 nodes with "
    "1 CPU and 1 node with 2 CPU; lower their number, or what each of them reserves (such as "
    "num_cpus_per_env_runner)."
)


@pytest.fixture(scope="module")
def address():
    """Three nodes; this process joins them too."""
    ray.shutdown()
    head = {"num_cpus": 1, "resources": {"arm": 1}, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head | {"object_store_memory": STORE})
    cluster.add_node(
        num_cpus=2, resources={"arm": 1, "learner": 1}, object_store_memory=STORE, wait=False
    )
    cluster.add_node(num_cpus=1, resources={"learner": 1}, object_store_memory=STORE)
    cluster.wait_for_nodes()
    ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
    yield cluster.address
    ray.shutdown()
    cluster.shutdown()


@pytest.fixture(scope="module")
def trained(address):
    """What two env runners and two learners on three nodes say of themselves after training."""
    config = small_config(kl_weight="auto", updates_per_env_step=0.5)
    config.env_runners(num_env_runners=2, custom_resources_per_env_runner={"arm": 1})
    config.learners(num_learners=2, custom_resources_per_learner={"learner": 1})
    algorithm = config.build_algo()
    first = [result.get() for result in algorithm.learner_group.foreach_learner(of_learner)]
    while algorithm.updates < 500:
        result = algorithm.train()
    algorithm.drain()
    told = SimpleNamespace(
        result=result,
        updates=algorithm.updates,
        env_steps=algorithm.env_steps,
        before=first,
        learners=[each.get() for each in algorithm.learner_group.foreach_learner(of_learner)],
        runners=algorithm.env_runner_group.foreach_env_runner(node, local_env_runner=False),
    )
    algorithm.stop()
    wait_for(nothing_runs)
    return told


def node(_):
    """The node that an actor is on."""
    return ray.get_runtime_context().get_node_id()


def of_learner(learner):
    state = learner.networks.state_dict()
    return SimpleNamespace(
        node=node(learner),
        state={name: value.numpy().copy() for name, value in state.items()},
        episodes=[episode.observation for episode in learner.replay.episodes()],
        noise=learner._noise.get_state().numpy().copy(),
        updates=learner.num_updates,
    )


def nothing_runs():
    """Whether all that the nodes have is free again."""
    free, there = ray.available_resources(), ray.cluster_resources()
    return all(free.get(name) == there[name] for name in ("CPU", "arm", "learner"))


def test_env_runners_and_learners_are_spread_over_the_nodes(trained):
    learners = {learner.node for learner in trained.learners}
    assert len(learners) == 2
    assert len(set(trained.runners)) == 2
    assert len(learners | set(trained.runners)) == 3


def test_episodes_cross_the_nodes_and_teach(trained):
    assert trained.updates >= 500
    assert trained.env_steps >= 1200
    assert [learner.updates for learner in trained.learners] == [trained.updates] * 2
    assert np.isfinite(trained.result["learners"]["default_policy"]["critic_loss"])
    kept = sum(len(episode) - 1 for each in trained.learners for episode in each.episodes)
    assert 0.5 * trained.env_steps < kept <= trained.env_steps


def test_two_learners_are_equal_after_500_updates_of_different_data(trained):
    (before, _), (first, second) = trained.before, trained.learners
    assert first.state.keys() == second.state.keys()
    moved = {
        name for name in first.state if not np.array_equal(first.state[name], before.state[name])
    }
    for part in ("policy.", "critic.", "target_critic.", "dynamics.", "log_kl_weight"):
        assert any(name.startswith(part) for name in moved), part
    for name in first.state:
        assert np.array_equal(first.state[name], second.state[name]), name
    assert not np.array_equal(first.noise, second.noise)
    assert not any(np.array_equal(a, b) for a in first.episodes for b in second.episodes)


def test_a_command_joins_waits_its_turn_trains_and_leaves_nothing_behind(address, tmp_path):
    holder = ray.remote(num_cpus=2)(Holder).remote()
    ray.get(holder.__ray_ready__.remote())
    arguments = ["train", *SHORT, *MOST, "--address", address, "--out", tmp_path / "run"]
    process = subprocess.Popen(
        [sys.executable, "-m", "rllib_odac.cli", *map(str, arguments)],
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True},
    )
    try:
        note = process.stderr.readline()
        assert note == "note: the cluster is busy; waiting for others to end.\n"
        ray.kill(holder)
        _, errors = process.communicate(timeout=200)
    finally:
        process.kill()
    # Ray's core says in a line of its own that RLlib's env runners depend on an object.
    assert [line for line in errors.splitlines() if "core_worker.cc" not in line] == []
    assert process.returncode == 0
    _, summary = read_run(tmp_path / "run")
    assert summary["env_steps"] >= 1000
    wait_for(nothing_runs)


class Holder:
    """Does nothing, on CPUs that nobody else may use."""


def test_what_the_cluster_can_never_hold_is_refused(address, tmp_path):
    out = tmp_path / "run"
    arguments = ("train", *SHORT, "--num-env-runners", 9, "--address", address, "--out", out)
    process = odac(*arguments, check=False)
    said = f"{COLLECT} and {EVALUATE}, {REFUSED}"
    assert (process.returncode, process.stderr) == (2, f"error: {said}\n")
    with pytest.raises(ValueError, match=f"^{re.escape(said)}$"):
        Run(RunSpec("odac/Box2D-v0", num_env_runners=9), out).train()
    assert not list(out.iterdir())
    with pytest.raises(ValueError, match=f"^{re.escape(f'{COLLECT}, {REFUSED}')}$"):
        small_config().env_runners(num_env_runners=9).build_algo()
