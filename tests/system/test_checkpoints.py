"""Checkpoints of real runs: damage is refused, small ones work, a full disk leaves the last."""

from __future__ import annotations

import pathlib
import pickle
import re
import shutil

import numpy as np
import pytest
import torch

from benchmarks.checkpoint_faults import small_disk, state, trials
from rllib_odac import ODAC, load_policy
from rllib_odac.checkpoints.manifest import DamagedCheckpoint, read_manifest, write_manifest
from rllib_odac.deploy import export_policy
from rllib_odac.evaluation.checkpoint import CheckpointPolicy
from rllib_odac.evaluation.inspect import inspect_checkpoint
from rllib_odac.storage import Storage
from tests.conftest import small_config
from tests.system.commands import BOX
from tests.system.commands import odac_process as odac

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def trained(ray_ends, tmp_path_factory):
    """An algorithm, and a checkpoint of it that it has gone on from."""
    import ray

    from rllib_odac.runtime.cluster import join_or_start

    if not ray.is_initialized():
        join_or_start("local", num_cpus=6, log_to_driver=False)
    # 12 environments of 50 steps: at the time of saving, episodes are open
    algorithm = small_config(num_envs_per_env_runner=12).build_algo()
    algorithm.train()
    path = tmp_path_factory.mktemp("trained") / "checkpoint"
    algorithm.save_to_path(path)
    yield algorithm, path
    algorithm.stop()


def test_the_manifest_tells_what_a_checkpoint_holds(trained):
    algorithm, path = trained
    manifest = read_manifest(path)
    assert (manifest["env_steps"], manifest["updates"]) == (algorithm.env_steps, algorithm.updates)
    assert manifest["unfinished_episodes"] == 12
    assert algorithm.metrics.peek("episodes_dropped") == 12
    on_disk = {str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()}
    assert on_disk == {*manifest["files"], "odac.json"}
    assert "replay/shard_00000.npz" in on_disk


def test_every_damaged_file_is_refused_by_name_and_changes_nothing(trained, tmp_path):
    algorithm, path = trained
    copy = tmp_path / "copy"
    shutil.copytree(path, copy)
    before = state(algorithm)
    for name in read_manifest(path)["files"]:
        content = (copy / name).read_bytes()
        for damaged in (content[: len(content) // 2], content[:-1] + bytes([content[-1] ^ 1])):
            (copy / name).write_bytes(damaged)
            with pytest.raises(DamagedCheckpoint, match=re.escape(name)):
                algorithm.restore_from_path(copy)
        (copy / name).write_bytes(content)
    (copy / "class_and_ctor_args.pkl").unlink()
    with pytest.raises(DamagedCheckpoint, match=r"lacks the file 'class_and_ctor_args.pkl'\.$"):
        ODAC.from_checkpoint(copy)
    assert state(algorithm) == before


def test_kills_and_full_disks_leave_the_earlier_checkpoint(trained):
    algorithm, _ = trained
    rows = trials(algorithm, 3, seed=1)
    assert all(row["usable"] and row["clean"] for row in rows), rows
    if len(rows) == 3:
        pytest.skip("a disk can only be full where this process may mount one")
    assert all(row["interrupted"] for row in rows[3:]), rows


def test_a_component_can_be_restored_alone(trained):
    algorithm, path = trained
    module = algorithm.learner_group._learner.networks
    name, weight = next(iter(module.policy.named_parameters()))
    saved, counters = weight.detach().clone(), (algorithm.env_steps, algorithm.updates)
    weight.data.zero_()
    component = "learner_group/learner/rl_module/default_policy"
    algorithm.restore_from_path(path / component, component=component)
    assert np.array_equal(dict(module.policy.named_parameters())[name].detach(), saved)
    assert (algorithm.env_steps, algorithm.updates) == counters


def test_without_replay_learning_waits_for_new_steps(ray_cluster, tmp_path):
    settings = {"checkpoint_replay": False, "kl_weight": "auto", "updates_per_env_step": 0.25}
    algorithm = small_config(**settings).build_algo()
    for _ in range(2):
        algorithm.train()
    algorithm.save_to_path(tmp_path / "small")
    assert not (tmp_path / "small" / "replay").exists()
    steps, updates = algorithm.env_steps, algorithm.updates
    learner = algorithm.learner_group._learner
    normalizer = learner.networks.observation_normalizer
    statistics = {name: value.clone() for name, value in normalizer.state_dict().items()}
    algorithm.train()  # and back again
    algorithm.restore_from_path(tmp_path / "small")
    assert (algorithm.env_steps, algorithm.updates) == (steps, updates)
    assert len(learner.replay) == 0
    for name, value in normalizer.state_dict().items():
        assert np.array_equal(value, statistics[name]), name
    made = []
    while algorithm.env_steps < steps + 600:
        algorithm.training_step()
        made.append((algorithm.env_steps - steps, algorithm.updates - updates))
    for env_steps, count in made:
        assert count == max(0, int((env_steps - 200) * 0.25)), made
    now = normalizer.state_dict()
    assert any(not np.array_equal(now[name], statistics[name]) for name in now)

    # what counts is where learning began anew, in later checkpoints too
    algorithm._checkpointer._saves_replay = True
    algorithm.save_to_path(tmp_path / "whole")
    steps, updates = algorithm.env_steps, algorithm.updates
    algorithm.restore_from_path(tmp_path / "whole")
    algorithm.training_step()
    fragment = algorithm.env_steps - steps
    assert algorithm.updates - updates == pytest.approx(fragment * 0.25, abs=1)
    algorithm.stop()


def test_a_full_disk_ends_a_run_in_one_sentence(tmp_path):
    with small_disk(1) as disk:
        if disk is None:
            pytest.skip("a disk can only be full where this process may mount one")
        arguments = ["train", *BOX, "--steps", 20000, "--checkpoint-every", 500]
        wide = ["--set", "hidden=(64,64)", "--evaluation-episodes", 2]
        process = odac(*arguments, *wide, "--out", disk / "run", check=False)
        assert process.returncode == 2
        assert re.fullmatch(
            r"stopped at \d+ environment steps; go on with: odac train .*\n"
            r"error: The checkpoint '.*' cannot be written \(No space left on device\); nothing of "
            r"it is left, and earlier ones are as they were\.\n",
            process.stderr,
        )
        kept = sorted((disk / "run" / "checkpoints").iterdir())
        assert [path.suffix for path in kept] == [""] * len(kept)
        assert len(kept) > 0
        policy = odac("evaluate", kept[-1], "--episodes", 2, "--json")
        assert '"num_episodes": 2' in policy.stdout


class Bomb:
    """Leaves a file behind wherever it is unpickled."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return pathlib.Path.touch, (self.trace,)


def test_looking_at_a_checkpoint_unpickles_nothing(trained, tmp_path):
    copy, trace = tmp_path / "copy", tmp_path / "unpickled"
    shutil.copytree(trained[1], copy)
    for file in copy.rglob("*.pkl"):
        file.write_bytes(pickle.dumps(Bomb(trace)))
    content = read_manifest(copy)
    (copy / "odac.json").unlink()
    write_manifest(Storage.of(copy), content, elsewhere={})  # as its author could
    policy = CheckpointPolicy(copy)
    assert policy.evaluate(2) == CheckpointPolicy(trained[1]).evaluate(2)
    inspect_checkpoint(copy, tmp_path / "inspected", episodes=2)
    export_policy(copy, tmp_path / "policy.pt2", "torch-export")
    load_policy(copy)
    assert not trace.exists()
    with pytest.raises(ValueError, match="damaged"):
        CheckpointPolicy(copy, trust=True)
    assert trace.exists()


def test_all_networks_are_there_without_a_pickle(trained, tmp_path):
    algorithm, _ = trained
    algorithm.save_to_path(tmp_path)
    ours = CheckpointPolicy(tmp_path).networks().state_dict()
    module = algorithm.learner_group._learner.module["default_policy"]
    theirs = module.networks.state_dict()
    assert ours.keys() == theirs.keys()
    assert "critic" in {name.split(".")[0] for name in ours}
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
