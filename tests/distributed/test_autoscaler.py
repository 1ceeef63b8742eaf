"""A cluster whose autoscaler adds nodes, of which some cannot be had."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
import time

import psutil
import pytest
import ray
from ray.util import get_node_ip_address, placement_group, placement_group_table

from rllib_odac.runtime.cluster import ROOM_TIMEOUT, Processes, check_room
from tests.system.commands import wait_for

pytestmark = pytest.mark.distributed


# What Ray's fake provider needs, whose nodes are processes of this machine.
PROVIDER = {
    "type": "fake_multinode",
    "use_node_id_as_ip": True,
    "disable_node_updaters": True,
    "disable_launch_config_check": True,
}
LISTS = ["initialization_commands", "setup_commands", "head_setup_commands", "rsync_filter"]
LISTS += ["worker_setup_commands", "head_start_ray_commands", "worker_start_ray_commands"]
LISTS += ["cluster_synced_files", "rsync_exclude"]
CONFIG = {
    "cluster_name": "fake",
    "max_workers": 2,
    "available_node_types": {
        "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
        "worker": {"resources": {"CPU": 2}, "node_config": {}, "min_workers": 0, "max_workers": 2},
    },
    "head_node_type": "ray.head.default",
    "upscaling_speed": 1.0,
    "idle_timeout_minutes": 10,
    "file_mounts_sync_continuously": False,
    **{name: {} for name in ("auth", "docker", "file_mounts")},
    **{name: [] for name in LISTS},
}


@pytest.fixture
def autoscaling_cluster(tmp_path, monkeypatch):
    """Its head has no room; up to two nodes with two CPUs each join when they are asked for."""
    ray.shutdown()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    provider = PROVIDER | {"gcs_address": f"{get_node_ip_address()}:{port}"}
    config = tmp_path / "cluster.json"
    config.write_text(json.dumps(CONFIG | {"provider": provider}))
    for name in ("RAY_AUTH_TOKEN_PATH", "RAY_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_FAKE_CLUSTER", "1")
    monkeypatch.setenv("AUTOSCALER_UPDATE_INTERVAL_S", "1")
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block"]
    command += ["--num-cpus=0", f"--port={port}", f"--autoscaling-config={config}"]
    head = subprocess.Popen(
        [*command, "--include-dashboard=false"], start_new_session=True, stdout=subprocess.DEVNULL
    )
    wait_for(lambda: not socket.socket().connect_ex(("127.0.0.1", port)))
    ray.init(f"127.0.0.1:{port}", log_to_driver=False)
    processes = psutil.Process(head.pid).children(recursive=True)
    yield
    ray.shutdown()
    processes += psutil.Process(head.pid).children(recursive=True)
    head.terminate()
    for process in {*processes}:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    head.wait()


@pytest.mark.slow
def test_room_is_made_or_said_to_be_missing(autoscaling_cluster, monkeypatch, caplog):
    runners = Processes("num_env_runners", 3, {"CPU": 1})
    judge = Processes("jobs", 1, {"CPU": 0})  # which needs no place
    monkeypatch.setenv(ROOM_TIMEOUT, "90")
    check_room([runners, judge])  # which has two nodes join
    assert "Waiting up to 90 s for the autoscaler to make room" in caplog.text
    assert ray.cluster_resources()["CPU"] == 4
    wait_for(lambda: {each["state"] for each in reservations()} == {"REMOVED"})
    monkeypatch.setenv(ROOM_TIMEOUT, "5")
    learners = Processes("num_learners", 1, {"CPU": 0, "GPU": 1})
    words = (
        r"^num_env_runners is 3 \(1 CPU each\) and num_learners is 1 \(1 GPU each\), for which the "
        r"Ray cluster has made no room within 5 s: it has 2 nodes with 2 CPU and 1 node with no "
        r"resources; look at `ray status` .*, lower their number, or set ODAC_ROOM_TIMEOUT_S to "
        r"more seconds\.$"
    )
    begun = time.monotonic()
    with pytest.raises(ValueError, match=words):
        check_room([runners, learners])
    assert 5 <= time.monotonic() - begun < 20
    wait_for(lambda: {each["state"] for each in reservations()} == {"REMOVED"})
    busy = placement_group([{"CPU": 2}, {"CPU": 2}])  # others, who are waited for
    assert busy.wait(30)
    check_room([runners])


def reservations():
    return placement_group_table().values()
