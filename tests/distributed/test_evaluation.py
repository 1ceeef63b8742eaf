"""Evaluation beside training: what goes wrong there costs an evaluation, and nothing waits."""

from __future__ import annotations

import math
import sys
import time

import pytest
from ray import cloudpickle

from rllib_odac.experiments.run import Run
from rllib_odac.experiments.spec import RunSpec
from rllib_odac.runtime.faults import EvaluationLostError
from tests import faulty
from tests.conftest import small_config

pytestmark = pytest.mark.distributed
# Actors cannot import the tests.
cloudpickle.register_pickle_by_value(sys.modules[__name__])
cloudpickle.register_pickle_by_value(faulty)

CALLS = 51  # of an environment in an evaluation: Box2D's reset and steps


def build(evaluation_num_env_runners=1, env=None, num_env_runners=1, **settings):
    """A small algorithm whose environment fails on held-out goals as `env` says."""
    config = small_config(evaluation_num_env_runners=evaluation_num_env_runners, **settings)
    env = {"in_evaluation": True, "rate": 1.0} | (env or {"rate": 0.0})
    config.environment(faulty.make_faulty, env_config=env, disable_env_checking=True)
    return config.env_runners(num_env_runners=num_env_runners).build_algo()


def train_until(algorithm, condition, timeout_s=60):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        algorithm.train()


@pytest.mark.long
@pytest.mark.parametrize(
    ("fault", "runners"),
    [("raise", 1), pytest.param("raise", 0, marks=pytest.mark.slow), ("nan", 0)],
)
def test_what_an_environment_raises_costs_an_evaluation(ray_cluster, caplog, fault, runners):
    env = {"faults": (fault,), "after": CALLS + 3}
    algorithm = build(runners, env, num_env_runners=runners)
    ended = []
    algorithm.on_evaluation = ended.append
    first = algorithm.train()["evaluation"]["env_runners"]
    train_until(algorithm, lambda: len(ended) == 3)
    assert [evaluation.figures is None for evaluation in ended] == [False, True, True]
    assert algorithm.fault_counters.evaluations_lost == 2
    said = "lost its connection" if fault == "raise" else "NaN or infinity in 'achieved_goal'"
    assert caplog.text.count("environment steps is lost. ") == caplog.text.count(said) == 2
    # What results go on to show is the newest that there is, and says of when.
    assert algorithm.train()["evaluation"]["env_runners"] == first
    assert first["env_steps"] == ended[0].env_steps == 400
    with pytest.raises((OSError, ValueError), match=said):
        algorithm.evaluate()
    algorithm.stop()


@pytest.mark.long
def test_what_is_wrong_from_the_beginning_ends_the_run(ray_cluster):
    algorithm = build(env={"faults": ("raise",)})
    with pytest.raises(OSError, match="the simulator lost its connection"):
        algorithm.train()
    algorithm.stop()


@pytest.mark.slow
def test_the_share_of_an_env_runner_that_dies_is_made_up_for(ray_cluster, caplog):
    algorithm = build(env={"faults": ("kill",), "after": CALLS + 3})
    ended = []
    algorithm.on_evaluation = ended.append
    algorithm.train()
    train_until(algorithm, lambda: len(ended) == 2)
    assert "is lost in an evaluation: " in caplog.text
    assert ended[1].figures["num_episodes"] == 4
    assert algorithm.fault_counters.evaluations_lost == 0
    assert algorithm.fault_counters.env_runners_lost == 0
    algorithm.stop()


@pytest.mark.long
def test_an_evaluation_that_stalls_is_given_up_and_its_env_runner_restarted(ray_cluster, caplog):
    env = {"faults": ("stall",), "after": CALLS + 3}
    algorithm = build(env=env, evaluation_sample_timeout_s=4.0)
    ended = []
    algorithm.on_evaluation = ended.append
    algorithm.train()
    train_until(algorithm, lambda: len(ended) == 2)
    begun = ended[1].env_steps
    assert ended[1].figures is None
    assert (
        "is lost. The evaluation took more than 4 s (evaluation_sample_timeout_s)." in caplog.text
    )
    assert algorithm.env_steps > begun + 400  # nobody waited for it
    algorithm._evaluations._evaluator._timeout_s = 60
    train_until(algorithm, lambda: len(ended) == 3)
    assert ended[2].figures is not None
    assert ended[2].env_steps > begun
    algorithm._evaluations._evaluator._timeout_s = 0.1
    with pytest.raises(EvaluationLostError, match=r"more than 0\.1 s"):
        algorithm.evaluate_held_out(4)
    algorithm.stop()


@pytest.mark.slow
def test_env_runners_that_die_for_good_cost_evaluations_alone(ray_cluster):
    algorithm = build(env={"faults": ("kill",)}, max_num_env_runner_restarts=0)
    results = algorithm.train()["evaluation"]["env_runners"]
    assert math.isnan(results["success_rate"])
    train_until(algorithm, lambda: algorithm.fault_counters.evaluations_lost == 2)
    with pytest.raises(EvaluationLostError, match="All env runners of the evaluation are lost"):
        algorithm.evaluate_held_out(4)
    algorithm.stop()


@pytest.mark.long
def test_a_run_goes_on_while_it_is_evaluated_and_figures_belong_to_their_row(ray_cluster, tmp_path):
    settings = {"hidden": [32, 32], "updates_per_env_step": 0.1}
    spec = RunSpec(
        "odac/Box2D-v0",
        steps=3000,
        settings=settings,
        num_env_runners=1,
        evaluate_every=200,
        evaluation_episodes=40,
        final_episodes=10,
    )
    shown = []
    run = Run(spec, tmp_path / "run", on_row=lambda row: shown.append(dict(row)))
    summary = run.train()
    steps = [row["env_steps"] for row in run.rows]
    assert [row["env_steps"] for row in shown] == steps == sorted(set(steps))
    evaluated = [row for row in run.rows if row["success_rate"] is not None]
    assert len(evaluated) >= 3
    assert run.rows[-1]["success_rate"] == summary["success_rate"] is not None
    assert summary["faults"]["evaluations_lost"] == 0
