"""Learning from a log alone: without an environment, resumed bit for bit, evaluated where asked."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from rllib_odac import ODACConfig, load_policy, make_env
from rllib_odac.cli import app
from rllib_odac.data.record import record
from rllib_odac.experiments.run import Run
from rllib_odac.experiments.spec import RunSpec
from tests.conftest import small_config
from tests.system.test_reproducibility import assert_equal, snapshot

pytestmark = pytest.mark.system

SMALL = {"hidden": [16, 16], "train_batch_size_per_learner": 32, "replay_capacity": 5000}


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    folder = tmp_path_factory.mktemp("log") / "box"
    record(make_env("odac/Box2D-v0"), 1000, folder)
    return str(folder)


def test_a_log_is_all_there_is(ray_cluster, log, tmp_path):
    spec = RunSpec(
        None,
        steps=300,
        evaluate_every=100,
        settings={"data": log, "offline": True, "dynamics_members": 2, **SMALL},
    )
    summary = Run(spec, tmp_path / "run").train()
    assert (summary["env_steps"], summary["updates"]) == (0, 300)
    assert np.isfinite(summary["state_value_loss"])
    assert "success_rate" not in summary or summary["success_rate"] is None
    policy = load_policy(tmp_path / "run")
    state, _ = make_env("odac/Box2D-v0").reset(seed=0)
    assert policy(state).shape == (2,)
    # One that goes on from the middle ends where this one did, its replay read from the log again.
    half = RunSpec(**{**vars(spec), "steps": 200, "checkpoint_every": 200})
    Run(half, tmp_path / "half").train()
    whole = RunSpec(**{**vars(spec), "checkpoint_every": 200})
    again = Run(whole, tmp_path / "half", resume=True).train()
    names = ("critic_loss", "policy_loss", "state_value_loss", "dynamics_loss")
    assert [again[name] for name in names] == [summary[name] for name in names]


def test_evaluated_in_an_environment_and_restored_bit_for_bit(ray_cluster, log, tmp_path):
    config = small_config(
        min_sample_timesteps_per_iteration=100,
        values="soft",
        extraction="advantage",
        kl_weight=0.5,
        dynamics_members=3,
        disagreement_weight=-1.0,
        rollout_weight=0.5,
    ).offline_data(input_=log)
    algorithm = config.build_algo()
    result = algorithm.train()
    assert (algorithm.env_steps, algorithm.updates, algorithm.steps) == (0, 100, 100)
    assert 0 <= result["evaluation"]["env_runners"]["success_rate"] <= 1
    algorithm.save_to_path(str(tmp_path / "c"))
    assert not list((tmp_path / "c").glob("**/replay/*"))
    algorithm.train()
    first = snapshot(algorithm)
    algorithm.stop()
    other = config.copy(copy_frozen=False).build_algo()
    other.restore_from_path(str(tmp_path / "c"))
    other.train()
    assert_equal(first | {"counters": ()}, snapshot(other) | {"counters": ()})
    other.stop()


def test_the_command(log, tmp_path):
    out = tmp_path / "run"
    options = ["--steps", "100", "--evaluate-every", "50", "--final-episodes", "4"]
    options += ["--set", "hidden=[16, 16]", "--set", "action_prior=behavior"]
    options += ["--evaluate-in", "odac/Box2D-v0", "--evaluation-episodes", "2"]
    done = CliRunner().invoke(app, ["train", "--data", log, "--out", str(out), *options])
    assert done.exit_code == 0, done.output
    assert "updates 50 " in done.output
    assert "after 100 updates" in done.output
    assert json.loads((out / "config.json").read_text())["settings"]["offline"]
    told = CliRunner().invoke(app, ["evaluate", str(out), "--episodes", "2"])
    assert told.exit_code == 0, told.output


def test_what_cannot_be_is_said_in_one_sentence(log):
    with pytest.raises(ValueError, match="offline_data has shuffle_buffer_size, but must have inp"):
        ODACConfig().offline_data(input_=log, shuffle_buffer_size=3)
    with pytest.raises(ValueError, match="offline is True, but must be False where"):
        ODACConfig().offline_data(input_=log).env_runners(num_env_runners=1).check_settings()
    with pytest.raises(ValueError, match="env is None, but must be an environment"):
        RunSpec(None, settings={"data": log}).config()
    wrong = CliRunner().invoke(app, ["train"])
    assert "train needs an environment" in wrong.output


def test_from_a_log_on_to_the_environment(ray_cluster, log, tmp_path):
    small = {**SMALL, "data": log, "updates_per_env_step": 0.1, "num_envs_per_env_runner": 4}
    offline = RunSpec(None, steps=100, settings={"data": log, "offline": True, **SMALL})
    Run(offline, tmp_path / "offline").train()
    online = RunSpec(
        "odac/Box2D-v0",
        steps=400,
        evaluate_every=400,
        final_episodes=4,
        begin_from=str(tmp_path / "offline"),
        settings={**small, "data_share": 0.5, "num_initial_random_steps": 0},
    )
    algorithm = online.config().build_algo()
    algorithm.begin_with(tmp_path / "offline")
    learned = dict(np.load(tmp_path / "offline/checkpoint_final/networks/networks.npz"))
    ours = algorithm.get_module().networks.state_dict()
    for name in ("policy.net.0.weight", "observation_normalizer.mean", "goal_scale"):
        np.testing.assert_array_equal(ours[name], learned[f"networks.{name}"])
    algorithm.stop()
    assert Run(online, tmp_path / "online").train()["updates"] == 40
    wide = RunSpec(**{**vars(online), "settings": {**small, "hidden": [8]}})
    with pytest.raises(ValueError, match=r"^hidden is \[8\], but must be \[16, 16\] to begin with"):
        Run(wide, tmp_path / "wide")
    more = {**offline.settings, "dynamics_members": 2}
    several = RunSpec(None, settings=more, begin_from=online.begin_from)
    with pytest.raises(ValueError, match=r"^dynamics_members is 2, but must be 1 to begin with"):
        Run(several, tmp_path / "several")
    assert not (tmp_path / "several").exists()


def test_episodes_of_one_step_without_goals_are_enough(ray_cluster, tmp_path):
    for number in range(4):
        rows = np.random.default_rng(number).uniform(-1, 1, size=(2, 3))
        np.savez(tmp_path / f"{number}.npz", observation=rows, actions=rows[:1])
    config = ODACConfig().offline_data(input_=str(tmp_path)).training(**SMALL)
    algorithm = config.reporting(min_sample_timesteps_per_iteration=16).build_algo()
    algorithm.train()
    assert algorithm.updates == 16
    assert len(algorithm.learner_group._learner.replay) == 4
    algorithm.stop()


def test_a_log_that_passes_through_goes_on_alike_wherever_it_is_resumed(ray_cluster, log, tmp_path):
    settings = SMALL | {"replay_capacity": 300, "data_reuse": 2.0, "seed": 3}
    config = ODACConfig().offline_data(input_=log).training(**settings)
    config.reporting(min_sample_timesteps_per_iteration=100)
    algorithm = config.build_algo()
    algorithm.train()
    algorithm.save_to_path(str(tmp_path / "c"))
    algorithm.stop()
    ends = []
    for _ in range(2):
        resumed = config.copy(copy_frozen=False).build_algo()
        resumed.restore_from_path(str(tmp_path / "c"))
        resumed.train()
        assert (resumed.updates, resumed.env_steps) == (200, 0)
        assert sum(vars(resumed.fault_counters).values()) == 0
        ends.append(snapshot(resumed) | {"counters": ()})
        resumed.stop()
    assert_equal(*ends)
