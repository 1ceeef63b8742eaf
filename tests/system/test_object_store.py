"""Runs, checkpoints and policies in buckets of S3 and Google; servers fail, their clients die."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from rllib_odac import lease, load_policy
from rllib_odac.checkpoints.atomic import atomic_directory, locate_checkpoint
from rllib_odac.checkpoints.find import checkpoint_here, checkpoints_of_run, open_checkpoint
from rllib_odac.checkpoints.manifest import DamagedCheckpoint, check_checkpoint, write_manifest
from rllib_odac.deploy import export_policy
from rllib_odac.evaluation.checkpoint import CheckpointPolicy
from rllib_odac.experiments.run import Run
from rllib_odac.experiments.spec import RunSpec, read_spec
from rllib_odac.lease import Lease
from rllib_odac.storage import Storage
from tests.object_stores import google_server, s3_server

pytestmark = pytest.mark.system

SETTINGS = {
    **{"hidden": [32, 32], "updates_per_env_step": 0.1, "replay_capacity": 5000},
    **{"num_envs_per_env_runner": 4},
}
SPEC = {
    **{"env": "odac/Box2D-v0", "steps": 1200, "evaluate_every": 400, "evaluation_episodes": 2},
    **{"final_episodes": 4, "checkpoint_every": 400, "settings": SETTINGS},
}


@pytest.fixture(scope="module", params=[s3_server, google_server])
def bucket(request):
    with request.param() as uri:
        yield uri


def write(place: Storage, number: int, size: int = 1000) -> None:
    """A small checkpoint."""
    with atomic_directory(place) as target:
        for name in ("state.pkl", "replay/shard_00000.npz"):
            (target / name).write_bytes(bytes([number % 256]) * size)
        write_manifest(target, {"env_steps": number}, {})


@pytest.mark.long
def test_a_run_lives_in_a_bucket(ray_cluster, bucket, tmp_path):
    uri = f"{bucket}/runs/reach"
    run = Run(RunSpec(**SPEC), uri)
    summary = run.train()
    assert str(run.out) == uri
    names = run.out.names()
    wanted = {"config.json", "progress.csv", "summary.json", "learning_curve.png", "tensorboard"}
    assert names == wanted | {"checkpoints", "checkpoint_final"}
    assert (run.out / "tensorboard").files()
    steps = [int(each.name[5:]) for each in checkpoints_of_run(uri) if each.name[:5] == "step_"]
    assert steps == [800, 400]
    # Read from there: evaluated, loaded, exported, each without the replay.
    assert read_spec(f"{uri}/config.json")["steps"] == 1200
    evaluated = CheckpointPolicy(uri).evaluate(4)
    assert evaluated["final_distance"] == pytest.approx(summary["final_distance"], rel=1e-4)
    assert not (checkpoint_here(uri) / "replay").exists()
    state = {name: np.zeros(2) for name in ("observation", "achieved_goal", "desired_goal")}
    action = load_policy(uri)(state)
    export_policy(uri, tmp_path / "policy.onnx")
    Storage.of(bucket).upload(tmp_path)
    exported = load_policy(f"{bucket}/policy.onnx")(state)
    assert np.allclose(action, exported, atol=1e-6)
    with pytest.raises(ValueError, match=rf"^There is no checkpoint, run .* '{bucket}/nothing'\.$"):
        load_policy(f"{bucket}/nothing")

    with pytest.raises(ValueError, match=f"^out is '{uri}', which holds a run of odac/Box2D-v0 al"):
        Run(RunSpec(**SPEC), uri)
    with pytest.raises(ValueError, match=f"^out is '{bucket}/runs', which holds other files; it m"):
        Run(RunSpec(**SPEC), f"{bucket}/runs")
    # It goes on, from its replay too, and falls back where the newest checkpoint is damaged.
    (run.out / "checkpoint_final" / "replay" / "shard_00000.npz").write_bytes(b"half")
    longer = Run(RunSpec(**SPEC | {"steps": 1600}), uri, resume=True)
    summary = longer.train()
    assert [row["env_steps"] for row in longer.rows] == [400, 800, 1200, 1600]
    assert summary["updates"] == (1600 - 500) // 10
    assert open_checkpoint(f"{uri}/checkpoint_final")[1]["env_steps"] == 1600


def test_a_place_that_is_none_is_refused_in_one_sentence():
    for out, words in {
        "s3:///x": "is no path and no URI that can be read",
        "nonsense://x": "is no path and no URI that can be read, such as s3://BUCKET/FOLDER",
    }.items():
        with pytest.raises(ValueError, match=words):
            Run(RunSpec(**SPEC), out)


WRITER = """
import itertools, sys
from rllib_odac.storage import Storage
from tests.system.test_object_store import write
for number in itertools.count(int(sys.argv[2])):
    write(Storage.of(sys.argv[1]), number, size=3_000_000)
    print(number, flush=True)
"""


@pytest.mark.parametrize("kills", [4, pytest.param(20, marks=pytest.mark.slow)])
def test_kills_in_mid_upload_leave_a_whole_checkpoint(bucket, kills):
    """One checkpoint is replaced again and again by a process that is killed at seeded moments."""
    place = Storage.of(f"{bucket}/killed-{kills}")
    write(place, 0)
    moments = np.random.default_rng(0)
    seen = {0}
    for kill in range(kills):
        before = max(seen)
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(place), str(before + 1)],
            cwd=Path(__file__).parents[2],
            stdout=subprocess.PIPE,
        )
        writer.stdout.readline()  # it has begun, and will replace what it has written
        time.sleep(moments.uniform(0, 1))
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        manifest = check_checkpoint(locate_checkpoint(place))
        assert manifest["env_steps"] > before, kill
        seen.add(manifest["env_steps"])


def test_a_store_that_is_busy_is_asked_again():
    with s3_server(failing=0.1, status=503) as uri:
        place = Storage.of(f"{uri}/c")
        for number in range(4):
            write(place, number)
            assert check_checkpoint(place)["env_steps"] == number


def test_a_store_that_refuses_requests_costs_no_whole_checkpoint():
    with s3_server(failing=0.06, status=403) as uri:
        place = Storage.of(f"{uri}/c")
        newest = None
        outcomes = set()
        for number in range(40):
            try:
                write(place, number)
                newest = number
                outcomes.add("written")
            except OSError as error:
                outcomes.add(str(error).rpartition("; ")[2])
            if newest is not None:
                assert whole(place) >= newest
    assert "written" in outcomes
    assert "nothing of it is left, and earlier ones are as they were." in outcomes


def whole(place):
    """Environment steps of the whole checkpoint, for a reader who tries until it is answered."""
    while True:
        try:
            return check_checkpoint(locate_checkpoint(place))["env_steps"]
        except OSError:
            pass


def test_one_process_at_a_time_writes_to_a_run(bucket, monkeypatch):
    monkeypatch.setattr(lease, "EXPIRES_S", 3.0)
    monkeypatch.setattr(lease, "RENEWED_EVERY_S", 0.5)
    monkeypatch.setattr(lease, "SETTLES_S", 0.5)
    file = Storage.of(f"{bucket}/leased/lease.txt")
    refused = []

    def begin(name):
        try:
            with Lease(file, "out 'x'").held():
                time.sleep(2)
        except ValueError as error:
            refused.append(str(error))

    with Lease(file, "out 'x'").held() as mine:
        begin("another")
        assert refused == ["out 'x' is in use by another process."]
        mine.check()
    assert file.size is None
    # Of those that begin at the same time one wins.
    threads = [threading.Thread(target=begin, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 1 + 2
    # What a killed process has left is waited for, once.
    file.write_bytes(b"a process that was killed\n7\n")
    with Lease(file, "out 'x'").held() as mine:
        file.write_bytes(b"another one\n1\n")  # which took this one for dead
        time.sleep(4 * lease.RENEWED_EVERY_S)
        with pytest.raises(RuntimeError, match="another process has taken it over"):
            mine.check()
    assert file.read_text() == "another one\n1\n"


def test_a_damaged_checkpoint_in_a_bucket_names_the_newest_whole_one(bucket):
    run = f"{bucket}/damaged"
    for number in (900, 1000, 20000):
        write(Storage.of(f"{run}/checkpoints/step_{number:09d}"), number)
    newest, second, _ = checkpoints_of_run(run)
    (newest / "state.pkl").write_bytes(b"")
    sentence = f"is damaged: 'state.pkl' has 0 bytes.*; the newest whole one is '{second}'"
    with pytest.raises(DamagedCheckpoint, match=sentence):
        open_checkpoint(str(newest))
