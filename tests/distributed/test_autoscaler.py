"""A cluster whose autoscaler adds nodes, of which some cannot be had."""

from __future__ import annotations

import pytest
import ray
from ray.cluster_utils import AutoscalingCluster

from rllib_odac.runtime.cluster import ROOM_TIMEOUT, Processes, check_room

pytestmark = pytest.mark.distributed


@pytest.fixture
def autoscaling_cluster():
    """Its head has no room; up to two nodes with two CPUs each join when they are asked for."""
    ray.shutdown()
    worker = {"resources": {"CPU": 2}, "node_config": {}, "min_workers": 0, "max_workers": 2}
    cluster = AutoscalingCluster(
        head_resources={"CPU": 0}, worker_node_types={"worker": worker}, idle_timeout_minutes=10
    )
    cluster.start()
    ray.init("auto", log_to_driver=False)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.mark.slow
def test_room_is_made_or_said_to_be_missing(autoscaling_cluster, monkeypatch, caplog):
    runners = Processes("num_env_runners", 3, {"CPU": 1})
    monkeypatch.setenv(ROOM_TIMEOUT, "90")
    check_room([runners])  # which has two nodes join
    assert "Waiting up to 90 s for the autoscaler to make room" in caplog.text
    assert ray.cluster_resources()["CPU"] == 4
    monkeypatch.setenv(ROOM_TIMEOUT, "5")
    learners = Processes("num_learners", 1, {"CPU": 0, "GPU": 1})
    words = (
        r"^num_env_runners is 3 \(1 CPU each\) and num_learners is 1 \(1 GPU each\), for which the "
        r"Ray cluster's autoscaler has made no room within 5 s \(ODAC_ROOM_TIMEOUT_S\): it has "
        r"2 nodes with 2 CPU"
    )
    with pytest.raises(ValueError, match=words):
        check_room([runners, learners])
    check_room([runners])  # the reservation is given back
