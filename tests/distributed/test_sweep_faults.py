"""Sweeps that lose their driver, or a node, end with every trial's result all the same."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
import ray
import yaml
from ray.cluster_utils import Cluster

from rllib_odac.metrics import FIGURES
from tests.conftest import starts_trials

pytestmark = [pytest.mark.distributed, pytest.mark.slow, starts_trials]

ROOT = Path(__file__).parents[2]
STORE = 80 * 2**20  # bytes of each node's object store
STUDY = {
    "base": {
        "env": "odac/Box2D-v0",
        "steps": 4000,
        "evaluate_every": 500,
        "evaluation_episodes": 2,
        "final_episodes": 4,
        "settings": {"hidden": [64, 64], "train_batch_size_per_learner": 64},
    },
    "space": {"lr": {"log_uniform": [1e-4, 1e-2]}},
}


class Started:
    """`sweep.py` in a process of its own, and what it has printed so far."""

    def __init__(self, tmp_path: Path, *arguments) -> None:
        study = tmp_path / "small.yaml"
        study.write_text(yaml.safe_dump(STUDY))
        self.log = tmp_path / f"log-{time.monotonic_ns()}"
        options = ["--study", study, "--scheduler", "none", "--storage", tmp_path, "--name", "one"]
        with self.log.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, ROOT / "tune_configs" / "sweep.py", *map(str, options)]
                + [str(argument) for argument in arguments],
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_for(self, condition, seconds=240) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.1)

    def end(self, seconds=240) -> str:
        code = self.process.wait(seconds)
        assert code == 0, self.log.read_text()
        return self.log.read_text()


def results_of(folder: Path) -> dict[str, list[dict]]:
    """Every result that trials have reported, by trial."""
    return {
        path.parent.name: [json.loads(line) for line in path.read_text().splitlines()]
        for path in folder.glob("trial_*/result.json")
    }


def told_ends(log: str) -> dict[str, str]:
    """What was printed of trials that have ended, by trial."""
    return dict(re.findall(r"(trial_\w+): (success .*) after 4000 steps", log))


def check_is_whole(folder: Path, trials: int) -> pd.DataFrame:
    rows = pd.read_csv(folder / "results" / "results.csv")
    assert len(rows) == rows["trial"].nunique() == trials
    assert (rows["status"] == "finished").all()
    assert (rows["env_steps"] == STUDY["base"]["steps"]).all()
    assert rows[list(FIGURES)].notna().all(axis=None)
    return rows


def test_a_killed_driver_is_picked_up_and_nothing_is_done_twice(tmp_path):
    folder = tmp_path / "one"
    first = Started(tmp_path, "--trials", 6)
    first.wait_for(lambda: len(told_ends(first.log.read_text())) >= 2)
    os.killpg(first.process.pid, signal.SIGKILL)  # at once: Tune has not noted all of it yet
    first.process.wait()
    killed = time.time()
    finished = told_ends(first.log.read_text())
    assert 2 <= len(finished) < 6
    begun = {path.name for path in folder.glob("trial_*")}

    second = told_ends(Started(tmp_path, "--trials", 6, "--resume").end())
    rows = check_is_whole(folder, 6).set_index("trial")
    assert begun <= {f"trial_{trial}" for trial in rows.index}
    later = {
        name: [result["env_steps"] for result in told if result["timestamp"] > killed]
        for name, told in results_of(folder).items()
    }
    for name, figures in finished.items():
        # At most the end is told once more, from the same networks.
        assert later[name] in ([], [4000])
        assert second.get(name, figures) == figures
        row = rows.loc[name.removeprefix("trial_")]
        assert f"success {row['success_rate']:.0%}" in figures
        assert f"final_distance {row['final_distance']:.4g}" in figures
    assert all(4000 in steps for name, steps in later.items() if name not in finished)

    third = Started(tmp_path, "--trials", 6, "--resume").end()
    assert not told_ends(third)  # there was nothing left to do


def test_a_node_that_goes_away_costs_no_trial(tmp_path):
    from ray.util.placement_group import placement_group, placement_group_table

    ray.shutdown()
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "include_dashboard": False, "object_store_memory": STORE},
    )
    try:
        nodes = [cluster.add_node(num_cpus=1, object_store_memory=STORE) for _ in range(2)]
        cluster.wait_for_nodes()
        sweep = Started(tmp_path, "--trials", 4, "--address", cluster.address)
        folder = tmp_path / "one"
        sweep.wait_for(lambda: sum(map(bool, results_of(folder).values())) >= 2)
        # Past the first checkpoint, of 1000 steps, so that a trial has something to go on from.
        sweep.wait_for(lambda: len(list(folder.glob("trial_*/checkpoint_*/odac.json"))) >= 2)
        cluster.remove_node(nodes[0], allow_graceful=False)
        told = sweep.end(400)
        assert "tried again from its newest checkpoint" in told
        check_is_whole(folder, 4)

        # Where a trial's processes go, on nodes as cluster/ describes them.
        gpu = cluster.add_node(num_cpus=0, num_gpus=1, object_store_memory=STORE)
        cpu = cluster.add_node(num_cpus=3, object_store_memory=STORE)
        cluster.remove_node(nodes[1])
        ray.init(address=cluster.address, log_to_driver=False)
        from rllib_odac.experiments.sweeps.trial import SweepTrial

        wanted = SweepTrial.default_resource_request(
            {"env": "odac/Box2D-v0", "num_env_runners": 2, "num_learners": 1}
            | {"num_gpus_per_learner": 1}
        )
        group = placement_group(wanted.bundles, strategy=wanted.strategy)
        ray.get(group.ready(), timeout=60)
        places = placement_group_table(group)["bundles_to_node_id"]
        assert [places[i] for i in range(4)] == [cpu.node_id] * 3 + [gpu.node_id]
    finally:
        ray.shutdown()
        cluster.shutdown()
