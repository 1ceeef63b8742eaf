"""Directories that are whole or absent, and what is said of damaged ones."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from pyarrow.fs import LocalFileSystem, SubTreeFileSystem

from rllib_odac.checkpoints.atomic import atomic_directory, locate_checkpoint
from rllib_odac.checkpoints.find import checkpoints_of_run, open_checkpoint, restore_newest
from rllib_odac.checkpoints.manifest import (
    MANIFEST,
    DamagedCheckpoint,
    check_checkpoint,
    read_manifest,
    write_manifest,
)
from rllib_odac.experiments.run import Run
from rllib_odac.experiments.run_files import LOCK
from rllib_odac.experiments.spec import RunSpec
from rllib_odac.files import locked
from rllib_odac.storage import Storage

FILES = {"state.pkl": b"state" * 100, "learner/weights.pkl": b"w" * 3000, "replay/shard.npz": b"rr"}


def write(path, env_steps=0, files=FILES, filesystem=None):
    with atomic_directory(Storage.of(path, filesystem)) as target:
        for name, content in files.items():
            file = target / name
            Storage(file.filesystem, os.path.dirname(file.path)).make_directory()
            file.write(lambda stream, content=content: stream.write(content))
        write_manifest(target, {"env_steps": env_steps}, {})


def fail(path, error, filesystem=None):
    """Fails in the middle of writing."""
    with atomic_directory(Storage.of(path, filesystem)) as target:
        (target / "half.pkl").write(lambda stream: stream.write(b"half"))
        raise error


def test_a_checkpoint_is_written_beside_its_place_and_says_what_is_in_it(tmp_path):
    path = tmp_path / "a" / "check point"
    write(path, env_steps=7)
    manifest = check_checkpoint(path)
    assert manifest["env_steps"] == 7
    assert {name: each["bytes"] for name, each in manifest["files"].items()} == {
        name: len(content) for name, content in FILES.items()
    }
    sums = "\n".join(f"{each['sha256']}  {name}" for name, each in manifest["files"].items())
    subprocess.run(["sha256sum", "--check"], input=sums, text=True, cwd=path, check=True)
    assert [each.name for each in path.parent.iterdir()] == ["check point"]


def test_every_kind_of_damage_names_the_file(tmp_path):
    write(tmp_path / "c")
    for name in [*FILES, MANIFEST]:
        file, content = tmp_path / "c" / name, (tmp_path / "c" / name).read_bytes()
        flipped = bytearray(content)
        flipped[len(content) // 2] ^= 1
        for damaged in (bytes(flipped), content[:-2], content + b"x", b"", None):
            file.write_bytes(damaged) if damaged is not None else file.unlink()
            with pytest.raises(DamagedCheckpoint) as info:
                check_checkpoint(tmp_path / "c")
            sentence = str(info.value)
            if name == MANIFEST and damaged is None:
                assert sentence == f"'{tmp_path}/c' is no whole checkpoint of ODAC."
            else:
                assert name in sentence
                assert str(tmp_path / "c") in sentence
            assert "\n" not in sentence
            file.write_bytes(content)
    check_checkpoint(tmp_path / "c")


def test_an_old_version_is_no_damage(tmp_path):
    (tmp_path / MANIFEST).write_text(json.dumps({"version": 1, "env_steps": 3}))
    with pytest.raises(
        ValueError, match=r"of version 1, but only version 3 can be read\.$"
    ) as info:
        read_manifest(tmp_path)
    assert not isinstance(info.value, DamagedCheckpoint)


def test_what_fails_leaves_the_earlier_checkpoint_and_nothing_else(tmp_path):
    write(tmp_path / "c", env_steps=1)
    for error in (RuntimeError, KeyboardInterrupt, OSError):
        for name in ("c", "new"):
            with pytest.raises(error):
                fail(tmp_path / name, error)
        assert [each.name for each in tmp_path.iterdir()] == ["c"]
        assert check_checkpoint(tmp_path / "c")["env_steps"] == 1
    write(tmp_path / "c", env_steps=2)
    assert check_checkpoint(tmp_path / "c")["env_steps"] == 2
    assert [each.name for each in tmp_path.iterdir()] == ["c"]


def test_other_peoples_files_stay_where_they_are(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    sentence = rf"'{tmp_path}' cannot be written \(No space left on device\); nothing of it"
    with pytest.raises(OSError, match=sentence):
        fail(tmp_path, OSError(28, "any words"))
    assert [each.name for each in tmp_path.iterdir()] == ["notes.txt"]
    write(tmp_path, env_steps=1)
    write(tmp_path, env_steps=2)
    assert check_checkpoint(tmp_path)["env_steps"] == 2
    assert "notes.txt" not in check_checkpoint(tmp_path)["files"]
    there = sorted(tmp_path.rglob("*"))
    with pytest.raises(OSError, match="cannot be written"):
        fail(tmp_path, OSError(28, "any words"))
    assert sorted(tmp_path.rglob("*")) == there
    assert check_checkpoint(tmp_path)["env_steps"] == 2
    (tmp_path / MANIFEST).unlink()  # what a kill may leave
    write(tmp_path, env_steps=3)
    assert check_checkpoint(tmp_path)["files"].keys() == FILES.keys()
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_file_system_that_cannot_rename_is_written_in_place(tmp_path):
    filesystem = SubTreeFileSystem(str(tmp_path), LocalFileSystem())
    write("deep/c", env_steps=4, filesystem=filesystem)
    place, manifest = open_checkpoint("deep/c", filesystem)
    assert (manifest["env_steps"], place.is_local) == (4, False)
    assert check_checkpoint(tmp_path / "deep" / "c")["env_steps"] == 4
    with pytest.raises(RuntimeError):
        fail("deep/c", RuntimeError, filesystem)
    with pytest.raises(RuntimeError):
        fail("deep/new", RuntimeError, filesystem)
    with pytest.raises(DamagedCheckpoint):
        open_checkpoint("deep/new", filesystem)
    # The earlier one is there until the later is whole, and nothing of what failed.
    assert open_checkpoint("deep/c", filesystem)[1]["env_steps"] == 4
    assert not list(tmp_path.rglob("half.pkl"))
    write("deep/c", env_steps=5, filesystem=filesystem)
    assert open_checkpoint("deep/c", filesystem)[1]["env_steps"] == 5
    assert not (tmp_path / "deep" / "c.partial").exists()


@pytest.mark.parametrize("copied", range(len(FILES) + 1))
def test_a_kill_while_one_is_replaced_where_nothing_can_be_renamed(tmp_path, copied):
    filesystem = SubTreeFileSystem(str(tmp_path), LocalFileSystem())
    write("c", env_steps=1, filesystem=filesystem)
    write("c.partial", env_steps=2, filesystem=filesystem)
    # So far the replacement had come: the earlier one gone, some files of the later in its place.
    (tmp_path / "c" / MANIFEST).unlink()
    for name in list(FILES)[copied:]:
        (tmp_path / "c" / name).unlink()
    assert open_checkpoint("c", filesystem)[1]["env_steps"] == 2
    with pytest.raises(RuntimeError):
        fail("c", RuntimeError, filesystem)
    assert open_checkpoint("c", filesystem)[1]["env_steps"] == 2
    write("c", env_steps=3, filesystem=filesystem)
    assert check_checkpoint(tmp_path / "c")["env_steps"] == 3
    assert not (tmp_path / "c.partial").exists()


def test_a_kill_between_two_names_leaves_the_earlier_one_to_be_found(tmp_path):
    write(tmp_path / "c", env_steps=1)
    (tmp_path / "c").rename(tmp_path / "c.replaced")
    assert open_checkpoint(tmp_path / "c")[1]["env_steps"] == 1
    assert locate_checkpoint(Storage.of(tmp_path / "c")).path == str(tmp_path / "c.replaced")
    with pytest.raises(RuntimeError):
        fail(tmp_path / "c", RuntimeError)
    assert open_checkpoint(tmp_path / "c")[1]["env_steps"] == 1
    write(tmp_path / "c", env_steps=2)
    assert open_checkpoint(tmp_path / "c")[1]["env_steps"] == 2
    assert [each.name for each in tmp_path.iterdir()] == ["c"]


@pytest.fixture
def run(tmp_path):
    """A run's directory with four checkpoints."""
    for env_steps in (900, 1000, 20000):
        write(tmp_path / "checkpoints" / f"step_{env_steps:09d}", env_steps)
    write(tmp_path / "checkpoint_final", 20100)
    return tmp_path


def test_a_damaged_one_points_to_the_newest_whole_one(run):
    final, *others = checkpoints_of_run(run)
    assert final.name == "checkpoint_final"
    assert [int(other.name[-9:]) for other in others] == [20000, 1000, 900]
    (final / "learner/weights.pkl").write_bytes(b"")
    sentence = (
        f"The checkpoint '{final}' is damaged: 'learner/weights.pkl' has 0 bytes, but was "
        f"written with 3000; the newest whole one is '{others[0]}'."
    )
    with pytest.raises(DamagedCheckpoint, match=f"^{re.escape(sentence)}$"):
        open_checkpoint(final)
    (others[0] / "state.pkl").remove()
    with pytest.raises(DamagedCheckpoint, match=re.escape(f"whole one is '{others[1]}'.")):
        open_checkpoint(final)
    with pytest.raises(DamagedCheckpoint, match=re.escape(f"whole one is '{others[1]}'.")):
        open_checkpoint(others[0])


def test_resuming_falls_back_with_one_warning(run, capsys):
    newest = [Path(path).name for path in [*checkpoints_of_run(run)]]
    (run / "checkpoints" / "step_000030000.partial").mkdir()
    assert restore_newest(run, open_checkpoint).name == newest[0]
    assert capsys.readouterr().err == ""
    assert not list((run / "checkpoints").glob("*.partial"))
    for damaged in (1, 2):
        (checkpoints_of_run(run)[damaged - 1] / "state.pkl").write_bytes(b"")
        assert restore_newest(run, open_checkpoint).name == newest[damaged]
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert said.startswith(f"warning: The checkpoint '{run}/checkpoint_final' is damaged")
        assert said.endswith(f"{newest[damaged]}', and the run goes on from there.\n")
    for path in checkpoints_of_run(run):
        (path / "state.pkl").remove()
    with pytest.raises(DamagedCheckpoint, match=r"checkpoint_final' lacks the file 'state.pkl'\.$"):
        restore_newest(run, open_checkpoint)
    assert restore_newest(run / "nothing", open_checkpoint) is None


def test_a_kill_at_any_moment_leaves_a_whole_checkpoint(tmp_path):
    """A process that replaces one checkpoint for ever is killed at seeded moments."""
    rng = np.random.default_rng(0)
    path = tmp_path / "c"
    write(path, env_steps=-1)
    seen = set()
    for trial in range(12):
        child = os.fork()
        if child == 0:
            count = 1000 * trial
            while True:
                write(path, env_steps=count)
                count += 1
        time.sleep(rng.uniform(0.01, 0.06))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        manifest = check_checkpoint(locate_checkpoint(Storage.of(path)).path)
        seen.add(manifest["env_steps"])
    assert len(seen) > 2  # it did get on, however busy the machine
    write(path, env_steps=5)
    assert [each.name for each in tmp_path.iterdir()] == ["c"]


def test_rotation_counts_and_does_not_spell(tmp_path):
    """After 999,999,999 comes 1,000,000,000, which is the lesser text."""
    run = Run(RunSpec("odac/Box2D-v0", steps=2 * 10**9), tmp_path / "run")
    for env_steps in (999_999_000, 999_999_999, 1_000_000_000, 1_000_000_001):
        algorithm = SimpleNamespace(
            steps=env_steps, save_to_path=lambda path, steps=env_steps: write(Path(path), steps)
        )
        run._save_checkpoint(algorithm)
    kept = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert kept == ["step_1000000000", "step_1000000001"]


def test_one_process_at_a_time_trains_in_a_directory(ray_cluster, tmp_path):
    out = tmp_path / "run"
    run = Run(RunSpec("odac/Box2D-v0", steps=100), out)
    with (
        locked(out / LOCK, "out"),
        pytest.raises(ValueError, match=f"^out '{out}' is in use by another process.$"),
    ):
        run.train()
    assert os.listdir(out) == [LOCK]
    Run(RunSpec("odac/Box2D-v0", steps=100), out)  # nothing stands in the way afterwards
