"""A real Tuner: its checkpoints hold every shard, and a trial that failed goes on from them."""

from __future__ import annotations

import functools
import sys

import pytest
from pyarrow.fs import LocalFileSystem, SubTreeFileSystem
from ray import cloudpickle, tune
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.callbacks import DefaultCallbacks

from rllib_odac import ODAC
from rllib_odac.checkpoints.manifest import check_checkpoint
from tests.conftest import small_config, starts_trials

pytestmark = [pytest.mark.system, starts_trials]
cloudpickle.register_pickle_by_value(sys.modules[__name__])  # actors cannot import the tests


class FailsOnce(DefaultCallbacks):
    """Raises in the third iteration of the first attempt, and notes what each iteration had."""

    def __init__(self, notes):
        self.notes = notes

    def on_train_result(self, *, algorithm, **kwargs):
        replay = algorithm.learner_group.foreach_learner(lambda learner: len(learner.replay))
        with open(self.notes, "a") as file:
            sizes = [result.get() for result in replay]
            print(algorithm.iteration, algorithm.env_steps, sum(sizes), file=file)
        with open(self.notes) as file:
            if len(file.readlines()) == 3:
                raise RuntimeError("as asked")


@pytest.mark.long
def test_a_trial_that_fails_goes_on_from_its_checkpoint(ray_cluster, tmp_path):
    config = small_config(num_envs_per_env_runner=8).learners(num_learners=1)
    config.callbacks(functools.partial(FailsOnce, str(tmp_path / "notes")))
    # As a bucket would be: not this machine's file system, so that checkpoints are downloaded.
    storage = SubTreeFileSystem(str(tmp_path), LocalFileSystem())
    results = tune.Tuner(
        ODAC,
        param_space=config,
        run_config=tune.RunConfig(
            name="run",
            storage_path="results",
            storage_filesystem=storage,
            stop={"training_iteration": 4},
            checkpoint_config=tune.CheckpointConfig(num_to_keep=2, checkpoint_frequency=1),
            failure_config=tune.FailureConfig(max_failures=1),
            verbose=0,
        ),
    ).fit()
    (result,) = results
    assert result.error is None
    notes = [
        tuple(map(int, line.split())) for line in (tmp_path / "notes").read_text().splitlines()
    ]
    assert [iteration for iteration, *_ in notes] == [1, 2, 3, 3, 4]
    assert notes[3] == notes[2]  # the third iteration again, from the checkpoint of the second
    assert all(replay > 0 for _, _, replay in notes)

    trial = tmp_path / result.path
    kept = sorted(path.name for path in trial.glob("checkpoint_*"))
    assert len(kept) == 2
    assert sorted(trial.rglob("shard*")) == [trial / n / "replay" / "shard_00000.npz" for n in kept]
    manifests = [check_checkpoint(trial / name) for name in kept]
    assert [manifest["env_steps"] for manifest in manifests] == [notes[-2][1], notes[-1][1]]

    for restored in (
        ODAC.from_checkpoint(result.checkpoint),
        Algorithm.from_checkpoint(str(trial / kept[-1])),
    ):
        assert isinstance(restored, ODAC)
        assert restored.env_steps == notes[-1][1]
        (replay,) = restored.learner_group.foreach_learner(lambda learner: len(learner.replay))
        assert replay.get() == notes[-1][2]
        restored.stop()
