"""A sweep's trial: its budget, its figures, and settings that change in mid-run."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
from pyarrow.fs import LocalFileSystem
from ray.tune import Checkpoint

from rllib_odac.experiments.spec import RunSpec
from rllib_odac.experiments.sweeps.trial import SweepTrial, trial_parameters
from rllib_odac.metrics import FIGURES
from tests.conftest import starts_trials

pytestmark = [pytest.mark.distributed, starts_trials]

SPEC = RunSpec(
    "odac/Box2D-v0",
    steps=700,
    evaluate_every=300,
    evaluation_episodes=2,
    final_episodes=3,
    settings={"hidden": [16], "train_batch_size_per_learner": 16, "lr": 0.01, "kl_weight": 0.1},
)


def test_a_trial_ends_at_its_budget_and_has_figures_at_each_step(ray_cluster, tmp_path):
    trial = SweepTrial(trial_parameters(SPEC, {}))
    results = [trial.train() for _ in range(3)]
    assert [result["env_steps"] for result in results] == [300, 600, 700]
    assert [result["done"] for result in results] == [False, False, True]
    for result in results:
        assert all(math.isfinite(result[name]) for name in FIGURES)
    assert results[-1]["updates"] == 100  # half of what came after the first 500 steps
    path = trial.save_to_path(str(tmp_path / "checkpoint"))
    trial.stop()

    # Another takes over the networks, as in a population, and keeps its own settings.
    own = SPEC.settings | {"lr": 0.002, "kl_weight": 0.03}
    other = SweepTrial(trial_parameters(replace(SPEC, steps=1000, settings=own), {}))
    other.restore_from_path(path)
    assert other.env_steps == 700
    other.shorten_iteration(100)
    other.train()

    def settings(learner):
        [(_, optimizer)] = learner.get_optimizers_for_module("default_policy")
        return optimizer.param_groups[0]["lr"], learner.networks.log_kl_weight.exp().item()

    [found] = [result.get() for result in other.learner_group.foreach_learner(settings)]
    assert found == pytest.approx((0.002, 0.03))
    other.stop()


def test_a_trial_that_is_solved_ends_before_its_budget(ray_cluster):
    # Some of a hundred goals are where the ball lies anyway.
    spec = replace(SPEC, stop_success=0.01, evaluation_episodes=100, final_episodes=100)
    trial = SweepTrial(trial_parameters(spec, {}))
    result = trial.train()
    trial.stop()
    assert result["env_steps"] == 300
    assert result["success_rate"] >= 0.01
    assert result["finished"]
    assert result["done"]


def draws(trial):
    """What the random streams of a trial would give next."""
    [learner] = [
        result.get()
        for result in trial.learner_group.foreach_learner(
            lambda learner: (learner._noise.get_state(), learner.replay.generator.get_state())
        )
    ]
    rng = trial.env_runner.rng.bit_generator.state["state"]["state"]
    return [bytes(state.numpy()) for state in learner] + [rng]


@pytest.mark.long
def test_a_trial_falls_back_and_a_clone_draws_for_itself(ray_cluster, tmp_path, caplog):
    donor = SweepTrial(trial_parameters(SPEC, {}))
    places = [tmp_path / "trial_donor" / f"checkpoint_{number:06d}" for number in range(3)]
    for place in places:
        donor.train()
        place.mkdir(parents=True)
        donor.save_checkpoint(str(place))
    at_700 = draws(donor)
    donor.stop()
    (places[1] / "algorithm_state.pkl").write_bytes(b"half")

    def restored(trial_id, place):
        trial = SweepTrial(trial_parameters(SPEC, {}))
        trial._trial_info = SimpleNamespace(trial_id=trial_id)
        own = str(tmp_path / f"trial_{trial_id}")
        trial._storage = SimpleNamespace(trial_fs_path=own, storage_filesystem=LocalFileSystem())
        trial.restore(Checkpoint.from_directory(str(place)))
        steps, drawn = trial.env_steps, draws(trial)
        trial.stop()
        return steps, drawn

    assert restored("donor", places[2]) == (700, at_700)
    clones = [restored(name, places[2]) for name in ("one", "two", "one")]
    assert [steps for steps, _ in clones] == [700] * 3
    for stream in range(3):
        assert clones[0][1][stream] == clones[2][1][stream]  # it can be repeated
        assert len({each[1][stream] for each in clones} | {at_700[stream]}) == 3
    assert not caplog.text
    # Damaged, and gone, as where a donor's rotation was faster.
    for place in (places[1], tmp_path / "trial_donor" / "checkpoint_000007"):
        caplog.clear()
        whole = places[0] if place == places[1] else places[2]
        assert restored("one", place)[0] == (300 if place == places[1] else 700)
        assert f"The trial goes on from '{whole}'." in caplog.text
    with pytest.raises(ValueError, match=r"checkpoint_000000' is gone\."):
        restored("one", tmp_path / "nothing" / "checkpoint_000000")
