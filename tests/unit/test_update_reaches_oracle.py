"""`compute_update` itself, minimised on tables, reaches the exact solution of small MDPs."""

from __future__ import annotations

import numpy as np
import pytest

from rllib_odac.agent.actor_critic import ActorCritic
from rllib_odac.maths.tabular import TabularODAC
from tests.tables import (
    Tables,
    corridor,
    drifting,
    learn,
    learn_by,
    one_step,
    race,
    scattered,
    slippery,
)


def test_tables_have_the_interface_of_the_networks() -> None:
    networks = ActorCritic(2, 2, 1, hidden=(4,), kl_weight=1.0)
    assert all(hasattr(networks, name) for name in vars(Tables) if not name.startswith("_"))
    for name, _ in [*Tables(2).named_children(), *Tables(2).named_buffers()]:
        assert hasattr(networks, name.split(".")[0])


@pytest.mark.parametrize("mdp", [corridor(), scattered(0)], ids=["corridor", "scattered"])
def test_deterministic(mdp: TabularODAC) -> None:
    learned, exact = learn(mdp), mdp.solve()
    np.testing.assert_allclose(learned.value, mdp.log_marginal_likelihood(), rtol=0.0, atol=1e-2)
    np.testing.assert_allclose(learned.policy, exact.policy, rtol=0.0, atol=1e-2)
    impossible = mdp.transitions[:, :, mdp.goal] == 0.0
    assert (learned.log_prob_goal[impossible] < -10.0).all()


def test_stochastic() -> None:
    mdp = slippery()
    learned, exact = learn(mdp), mdp.solve(per_sample=True)
    assert (exact.value - mdp.solve().value).min() > 0.05  # the fixed points can be told apart
    np.testing.assert_allclose(learned.value, exact.value, rtol=0.0, atol=1e-2)
    np.testing.assert_allclose(learned.policy, exact.policy, rtol=0.0, atol=1e-2)
    assert (learned.value < mdp.log_marginal_likelihood()).all()


def test_a_goal_that_cannot_be_reached() -> None:
    successors = np.array([[1, 2], [1, 0], [2, 2]])  # the last state is a dead end
    mdp = TabularODAC(np.eye(3)[successors], 1, 0.9)
    learned, exact = learn(mdp), mdp.solve()
    assert exact.value[2] == -np.inf
    assert learned.value[2] < -10.0
    np.testing.assert_allclose(learned.value[:2], exact.value[:2], rtol=0.0, atol=1e-2)
    np.testing.assert_allclose(learned.policy[:2], exact.policy[:2], rtol=0.0, atol=1e-2)


@pytest.mark.parametrize(
    ("mdp", "terminal"),
    [(race(), {2}), (race(), {3}), (race(), {2, 3}), (one_step(), {1, 2, 3})],
    ids=["on success", "on a fall", "on both", "at every step"],
)
def test_ending_an_episode_changes_no_value(mdp: TabularODAC, terminal: set[int]) -> None:
    learned, exact = learn(mdp, terminal), mdp.solve(per_sample=True)
    seen = [state for state in range(len(mdp.transitions)) if state not in terminal and state != 3]
    np.testing.assert_allclose(learned.value[seen], exact.value[seen], rtol=0.0, atol=1e-2)
    np.testing.assert_allclose(learned.policy[seen], exact.policy[seen], rtol=0.0, atol=1e-2)


@pytest.mark.parametrize(
    ("mdp", "horizon"),
    [(corridor(), 4), (scattered(1), 3), (slippery(), 1), (drifting(), 3)],
    ids=["corridor", "scattered", "slippery", "drifting"],
)
def test_a_known_time(mdp: TabularODAC, horizon: int) -> None:
    learned, exact = learn_by(mdp, horizon), mdp.solve(horizon=horizon)
    size = len(mdp.transitions)
    likely = exact.value > -20  # tables of logarithms do not get to −inf
    assert likely.any()
    np.testing.assert_allclose(learned.value[:size][likely], exact.value[likely], rtol=0, atol=0.02)
    assert (learned.value[:size][~likely] < -8).all()
