"""Ray's object store is full: episodes go to disk and from there to learners."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import ray
from ray.cluster_utils import Cluster

from tests.conftest import small_config
from tests.distributed.test_faults import check_accounts

pytestmark = pytest.mark.distributed

STORE = 80 * 2**20  # bytes


@pytest.mark.slow
def test_training_goes_on_where_rays_object_store_is_full():
    ray.shutdown()
    node = {"num_cpus": 2, "include_dashboard": False, "object_store_memory": STORE}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
    try:
        config = small_config().env_runners(num_env_runners=1).learners(num_learners=1)
        algorithm = config.build_algo()
        others = [ray.put(np.zeros(STORE // 8, np.uint8)) for _ in range(10)]
        for _ in range(5):
            algorithm.train()
        assert sum(ray.get(each).nbytes for each in others) > STORE  # none of them is gone
        losses = check_accounts(algorithm)
        assert (losses.env_steps_lost, losses.env_runners_lost) == (0, 0)
        algorithm.stop()
    finally:
        ray.shutdown()
        cluster.shutdown()
