"""The learner's own losses, minimised with Adam on tables, reach the exact solution.

All of ODAC is learned at once: transition probabilities by `dynamics_loss`, Q by `critic_loss`
towards a one-step backup under the optimal q_Δ, and the policy by `policy_loss`. Expectations over
states, actions and successors are exact, so that what is tested is the objective and not its noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical

from rllib_odac.maths import losses
from rllib_odac.maths.tabular import TabularODAC

STEPS = 2000


@dataclass
class Learned:
    value: np.ndarray
    policy: np.ndarray
    log_prob_goal: np.ndarray


def learn(mdp: TabularODAC, explicit: bool) -> Learned:
    """Trains tables for p_d, Q (two critics) and π, with the explicit or the logaddexp backup.

    Nothing tells the dynamics table which transitions have probability zero: it learns to give them
    some −12 nats or less, which changes no value that is well above.
    """
    transitions = torch.as_tensor(mdp.transitions)
    n_states, n_actions, _ = transitions.shape
    dynamics = torch.zeros_like(transitions, requires_grad=True)
    q_table = torch.ones(2, n_states, n_actions, dtype=torch.float64)
    q_table[1] = -3.0  # one critic begins too high, one too low
    q_table.requires_grad_()
    policy = torch.zeros(n_states, n_actions, dtype=torch.float64, requires_grad=True)
    tables = [{"params": [q_table, policy], "lr": 0.1}, {"params": [dynamics], "lr": 1.0}]
    optimizer = torch.optim.Adam(tables)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    # Actions come first: a Categorical batch over states takes any shape in front of it.
    actions = torch.arange(n_actions)[:, None].expand(n_actions, n_states)
    prior = Categorical(torch.as_tensor(mdp.action_prior))

    def policy_terms() -> tuple[Tensor, Tensor]:
        """(S, A) π and log π − log p."""
        log_pi = policy.log_softmax(-1)
        return log_pi.exp(), losses.action_prior_kl(log_pi.T, actions, prior).T

    def state_value() -> Tensor:
        """(S,) V = E_π[Q − KL], with the smaller of the critics."""
        pi, action_kl = policy_terms()
        return (pi * losses.soft_value(q_table.min(0).values, action_kl)).sum(-1)

    def backup(log_prob_goal: Tensor, next_value: Tensor) -> Tensor:
        if not explicit:
            return losses.soft_bellman_target(log_prob_goal, next_value, mdp.prior_discount)
        logit = losses.optimal_discount_logit(next_value, log_prob_goal, mdp.prior_discount)
        reward = losses.outcome_reward(log_prob_goal, logit, mdp.prior_discount)
        return losses.bellman_target(reward, torch.sigmoid(logit), next_value)

    for _ in range(STEPS):
        log_prob = dynamics.log_softmax(-1)
        with torch.no_grad():
            next_value = state_value().expand_as(transitions)
            log_prob_goal = log_prob[:, :, mdp.goal, None].expand_as(transitions)
            # The critic's gradient is linear in its target: that of the mean over s' is the mean.
            target = (transitions * backup(log_prob_goal, next_value)).sum(-1)
        pi, action_kl = policy_terms()
        q_value = q_table.detach().min(0).values
        # The losses are means over a batch: weights of π and P turn them into expectations.
        weight, seen = n_actions * pi, n_states * transitions
        loss = (
            losses.critic_loss(q_table.flatten(1), target.flatten())
            + losses.policy_loss(weight * q_value, weight * action_kl)
            + losses.dynamics_loss(seen * log_prob)
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        log_prob_goal = dynamics.log_softmax(-1)[:, :, mdp.goal]
        return Learned(state_value().numpy(), policy_terms()[0].numpy(), log_prob_goal.numpy())


def ring(n_states: int = 5) -> TabularODAC:
    """Deterministic: forward, stay, or back to the start; the goal is the last state."""
    here = np.arange(n_states)
    successors = np.stack([(here + 1) % n_states, here, np.zeros_like(here)], axis=1)
    prior = np.tile([0.5, 0.3, 0.2], (n_states, 1))
    return TabularODAC(np.eye(n_states)[successors], n_states - 1, 0.9, prior)


def scattered(seed: int) -> TabularODAC:
    """Deterministic: random successors and a random prior; action 0 leads round through all."""
    rng = np.random.default_rng(seed)
    successors = np.concatenate([np.roll(np.arange(6), -1)[:, None], rng.integers(0, 6, (6, 2))], 1)
    return TabularODAC(np.eye(6)[successors], 0, 0.8, rng.dirichlet(np.full(3, 3.0), 6))


def slippery() -> TabularODAC:
    """Stochastic: start, edge, goal, and a pit that is left with a chance of one in five."""
    forward = [[0.1, 0.8, 0.0, 0.1], [0.0, 0.0, 0.6, 0.4], [0.5, 0.5, 0.0, 0.0], [0.2, 0, 0, 0.8]]
    careful = [[1.0, 0.0, 0.0, 0.0], [0.9, 0.1, 0.0, 0.0], [0.0, 0.0, 0.6, 0.4], [0.0, 0, 0, 1.0]]
    return TabularODAC(np.stack([forward, careful], axis=1), 2, 0.9)


@pytest.mark.parametrize("explicit", [True, False])
@pytest.mark.parametrize("mdp", [ring(), scattered(0)], ids=["ring", "scattered"])
def test_deterministic(mdp: TabularODAC, explicit: bool) -> None:
    learned, exact = learn(mdp, explicit), mdp.solve()
    np.testing.assert_allclose(learned.value, mdp.log_marginal_likelihood(), rtol=0.0, atol=1e-2)
    np.testing.assert_allclose(learned.policy, exact.policy, rtol=0.0, atol=1e-2)
    impossible = mdp.transitions[:, :, mdp.goal] == 0.0
    assert (learned.log_prob_goal[impossible] < -10.0).all()


@pytest.mark.parametrize("explicit", [True, False])
def test_stochastic(explicit: bool) -> None:
    mdp = slippery()
    learned, exact = learn(mdp, explicit), mdp.solve(per_sample=True)
    assert (exact.value - mdp.solve().value).min() > 0.05  # the fixed points can be told apart
    np.testing.assert_allclose(learned.value, exact.value, rtol=0.0, atol=1e-2)
    np.testing.assert_allclose(learned.policy, exact.policy, rtol=0.0, atol=1e-2)
    assert (learned.value < mdp.log_marginal_likelihood()).all()


def test_a_goal_that_cannot_be_reached() -> None:
    successors = np.array([[1, 2], [1, 0], [2, 2]])  # the last state is a dead end
    mdp = TabularODAC(np.eye(3)[successors], 1, 0.9)
    learned, exact = learn(mdp, explicit=True), mdp.solve()
    assert exact.value[2] == -np.inf
    assert learned.value[2] < -10.0
    np.testing.assert_allclose(learned.value[:2], exact.value[:2], rtol=0.0, atol=1e-2)
    np.testing.assert_allclose(learned.policy[:2], exact.policy[:2], rtol=0.0, atol=1e-2)
