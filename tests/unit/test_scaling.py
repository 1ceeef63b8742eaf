"""The simulation of a cluster: known answers, and the rules of `ODAC.training_step`."""

from __future__ import annotations

from itertools import pairwise

import pytest

from benchmarks.simulation import (
    DRIVER,
    ENV_RUNNERS,
    LAG_LIMIT,
    LEARNERS,
    Services,
    Setting,
    Simulation,
)


def run(services: Services, *setting, seconds: float = 200.0, **settings):
    return Simulation(Setting(*setting, **settings), services).run(seconds)


def test_its_rules_have_the_numbers_of_the_algorithm():
    from rllib_odac import ODACConfig

    config, setting = ODACConfig(), Setting(1, 1, 0.5)
    fragment = config.get_rollout_fragment_length() * config.num_envs_per_env_runner
    assert setting.fragment == fragment
    assert setting.requests_each == config.max_requests_in_flight_per_env_runner
    assert setting.max_weight_lag == config.max_weight_lag


@pytest.mark.parametrize("asynchronous", [True, False])
@pytest.mark.parametrize("runners", [1, 3])
def test_env_runners_alone(runners, asynchronous):
    result = run(Services(env_step=0.01), runners, 1, 0.0, asynchronous=asynchronous)
    assert result["env_steps_per_s"] == pytest.approx(100 * runners, rel=0.03)
    assert result["bottleneck"] == ENV_RUNNERS


@pytest.mark.parametrize("learners", [0, 1])
def test_slow_learners_set_the_pace(learners):
    services = Services(env_step=0.001, update=0.1)
    result = run(services, 4, learners, 0.5)
    assert result["updates_per_s"] == pytest.approx(10, rel=0.03)
    assert result["env_steps_per_s"] == pytest.approx(20, rel=0.11)  # 100 of them at once
    assert result["bottleneck"] == LEARNERS
    assert result["learners busy"] > 0.99


def test_taking_turns_adds_up_what_overlapping_hides():
    services = Services(env_step=0.01, update=0.01)  # a second each for a hundred steps
    alone = run(services, 0, 0, 1.0)
    turns = run(services, 1, 0, 1.0, asynchronous=False)
    overlap = run(services, 1, 0, 1.0)
    assert alone["env_steps_per_s"] == pytest.approx(50, rel=0.03)
    assert turns["env_steps_per_s"] == pytest.approx(50, rel=0.03)
    assert overlap["env_steps_per_s"] == pytest.approx(100, rel=0.03)


def test_processes_share_cores_that_are_too_few():
    services = Services(env_step=0.01)
    assert run(services, 4, 0, 0.0, cores=2)["env_steps_per_s"] == pytest.approx(200, rel=0.03)
    crowded = Services(env_step=0.01, crowding=1.25)
    assert run(crowded, 4, 0, 0.0, cores=2)["env_steps_per_s"] == pytest.approx(160, rel=0.03)
    assert run(crowded, 1, 0, 0.0, cores=2)["env_steps_per_s"] == pytest.approx(100, rel=0.03)


def test_learners_wait_for_one_another():
    services = Services(env_step=1e-4, update=0.01, all_reduce=0.01)
    rates = [run(services, 4, learners, 1.0)["updates_per_s"] for learners in (1, 2, 4)]
    assert rates == pytest.approx([100, 50, 40], rel=0.02)


def test_a_driver_that_is_busy_is_the_bottleneck():
    result = run(Services(env_step=1e-4, sample=0.05), 16, 1, 0.0)
    assert result["env_steps_per_s"] == pytest.approx(100 / 0.05, rel=0.03)
    assert result["bottleneck"] == DRIVER


def test_the_lag_limit_is_the_bottleneck_where_nothing_is_busy():
    services = Services(env_step=0.01, update=0.001)
    result = run(services, 16, 1, 0.5, max_weight_lag=100)  # as much as two requests
    assert result["bottleneck"] == LAG_LIMIT
    assert result["env_steps_per_s"] < 300


@pytest.mark.parametrize("learners", [0, 1, 2])
def test_neither_side_gets_farther_ahead_than_it_may(learners):
    services = Services(env_step=1e-3, update=0.01, sample=1e-3, all_reduce=1e-3, store=1e-5)
    setting = Setting(4, learners, 0.25, max_weight_lag=60)
    simulation, leads = Simulation(setting, services), []
    while simulation.cores.now < 50:
        simulation.cores.advance()
        assert simulation.updates <= simulation.due(simulation.env_steps)
        promised = simulation.env_steps + simulation.steps_in_flight
        leads.append(simulation.due(promised) - simulation.updates)
    assert 50 <= max(leads) <= 60
    assert simulation.updates > 1000


def test_more_env_runners_are_never_slower():
    services = Services(env_step=1e-3, update=0.01, sample=1e-3, request=1e-3, step=1e-3)
    rates = [
        run(services, runners, 1, 0.01, seconds=100)["env_steps_per_s"]
        for runners in (1, 2, 4, 8, 16, 32)
    ]
    assert all(more >= 0.98 * fewer for fewer, more in pairwise(rates))
    assert rates[2] == pytest.approx(4 * rates[0], rel=0.05)


def test_env_runners_in_the_driver_wait_for_remote_learners():
    result = run(Services(env_step=0.01, update=0.01), 0, 2, 1.0)
    assert result["env_steps_per_s"] == pytest.approx(50, rel=0.03)


def test_calls_of_a_fast_learner_are_of_more_updates():
    services = Services(env_step=1e-4, update=1e-3, call=8e-3, learner_call=8e-3, publish=8e-3)
    small = run(services, 8, 1, 0.5, updates_per_call=16, seconds=40)
    by_pace = run(services, 8, 1, 0.5, seconds=40)
    assert small["updates_per_s"] < 1000 * 16 / (16 + 8)  # of 16 ms of updates and 8 of a call
    assert by_pace["updates_per_s"] > 850


def test_an_evaluation_by_the_driver_holds_learning_up_where_updates_are_fast():
    services = Services(env_step=1e-3, update=1e-3)
    alone = run(services, 4, 1, 0.5)
    evaluating = {"evaluate_every": 2000, "evaluation_steps": 1000}  # a second each
    between = run(services, 4, 1, 0.5, **evaluating)
    assert alone["updates_per_s"] == pytest.approx(1000, rel=0.05)
    # Without it 2000 steps take a second; learners go on for what they have been asked for.
    assert 500 < between["updates_per_s"] < 750
