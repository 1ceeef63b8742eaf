"""Nodes that are lost with env runner or learner, that join in their stead, that give notice."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time

import pytest
import ray
from ray import cloudpickle
from ray.cluster_utils import Cluster

from rllib_odac.experiments.run import Run
from rllib_odac.experiments.spec import RunSpec
from rllib_odac.runtime.faults import InterruptedRun
from tests.conftest import small_config
from tests.distributed.test_faults import check_accounts

pytestmark = pytest.mark.distributed
cloudpickle.register_pickle_by_value(sys.modules[__name__])  # actors cannot import the tests
cloudpickle.register_pickle_by_value(sys.modules[check_accounts.__module__])

NODE = {"num_cpus": 1, "resources": {"arm": 1}, "object_store_memory": 80 * 2**20}


@pytest.fixture
def cluster():
    """Two nodes, each with room for one env runner."""
    ray.shutdown()
    cluster = Cluster(initialize_head=True, head_node_args=NODE | {"include_dashboard": False})
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.mark.long
def test_training_goes_on_without_a_lost_node_and_with_the_next(cluster):
    node = cluster.add_node(**NODE)
    cluster.wait_for_nodes()
    ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
    config = small_config().env_runners(
        num_env_runners=2, custom_resources_per_env_runner={"arm": 1}
    )
    algorithm = config.build_algo()
    algorithm.train()
    cluster.remove_node(node, allow_graceful=False)
    while algorithm.fault_counters.env_runners_lost == 0:
        algorithm.train()
    # Ray finds no place for the lost one: nobody waits for it.
    start, before = time.monotonic(), algorithm.env_steps
    for _ in range(3):
        result = algorithm.train()
    assert result["faults"]["env_runners_alive"] == 1
    assert algorithm.env_steps >= before + 1200
    assert time.monotonic() - start < 30
    cluster.add_node(**NODE)
    deadline = time.monotonic() + 90
    while algorithm.train()["faults"]["env_runners_alive"] < 2:
        assert time.monotonic() < deadline
    algorithm.train()
    assert check_accounts(algorithm).env_runners_lost == 1
    algorithm.stop()


@pytest.mark.slow
def test_a_run_goes_on_from_its_checkpoint_on_another_node_when_its_learners_is_lost(
    cluster, tmp_path, caplog
):
    place = {"num_cpus": 3, "object_store_memory": 80 * 2**20}  # for all of the run's processes
    nodes = [cluster.add_node(**place)]
    cluster.wait_for_nodes()
    ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
    spec = RunSpec(
        "odac/Box2D-v0",
        steps=2000,
        settings={"hidden": [32, 32], "updates_per_env_step": 0.2},
        num_env_runners=1,
        num_learners=2,
        evaluate_every=500,
        checkpoint_every=500,
        evaluation_episodes=2,
        final_episodes=2,
    )

    def lose_the_node(row):
        if row["env_steps"] > 900 and len(nodes) == 1:
            nodes.append(cluster.add_node(**place))
            cluster.remove_node(nodes[0], allow_graceful=False)

    summary = Run(spec, tmp_path / "run", on_row=lose_the_node).train()
    assert len(nodes) == 2
    assert "A learner is lost; the run goes on from its checkpoint at" in caplog.text
    assert 2000 <= summary["env_steps"] <= 2100
    assert summary["updates"] == int((summary["env_steps"] - 500) * 0.2)


@pytest.mark.long
def test_a_node_that_is_going_away_gets_the_run_saved_in_time(cluster, tmp_path, caplog):
    node = cluster.add_node(**NODE | {"num_cpus": 2})
    cluster.wait_for_nodes()
    ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
    spec = RunSpec(
        "odac/Box2D-v0",
        steps=10**7,
        settings={"hidden": [32, 32], "updates_per_env_step": 0.01},
        num_env_runners=1,
        evaluate_every=10**6,  # one iteration of minutes, and no checkpoint for hours
        checkpoint_every=10**6,
    )
    run = Run(spec, tmp_path / "run")
    saved = []

    def give_notice():
        while run._algorithm is None or run._algorithm.env_steps < 1000:
            time.sleep(0.1)
        options = ["--node-id", node.node_id, "--reason", "DRAIN_NODE_REASON_PREEMPTION"]
        options += ["--reason-message", "spot", "--deadline-remaining-seconds", "120"]
        command = [sys.executable, "-m", "ray.scripts.scripts", "drain-node", *options]
        subprocess.run([*command, "--address", cluster.address], check=True)
        deadline = time.monotonic() + 60
        while not saved and time.monotonic() < deadline:
            saved.extend((tmp_path / "run" / "checkpoints").glob("step_*[0-9]"))
            time.sleep(0.1)
        run.stop()

    notice = threading.Thread(target=give_notice)
    notice.start()
    with pytest.raises(InterruptedRun):
        run.train()
    notice.join()
    assert saved
    assert "Of the cluster's nodes 1 will soon go away." in caplog.text
