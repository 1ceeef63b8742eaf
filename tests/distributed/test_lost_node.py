"""A node that is lost while an env runner works on it, and one that joins in its stead."""

from __future__ import annotations

import logging
import sys
import time

import pytest
import ray
from ray import cloudpickle
from ray.cluster_utils import Cluster

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
