"""What bounds a value, with the background in the likelihood and the limit on q_Δ as they ship.

At a KL weight of at least one V ≤ log p(g | s), for any limit on q_Δ(0) and any background. Below
one only V ≤ max log p_d holds, and an example shows V > log p(g | s).
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from rllib_odac.agent.objectives import ODACObjective
from rllib_odac.maths.losses import bellman_target
from tests.made_up import judge

SWEEPS = 3000


def random_mdp(seed):
    """(S, A, S) transitions, (S, A) log-likelihood of the outcome with a background, and p0."""
    rng = np.random.default_rng(seed)
    states, actions = int(rng.integers(2, 9)), int(rng.integers(1, 4))
    transitions = rng.dirichlet(np.full(states, 0.3), (states, actions))
    background = rng.choice([1e-4, 0.01, 0.2])
    likelihood = (1 - background) * transitions[:, :, 0] + background / states
    return transitions, np.log(likelihood), float(rng.choice([0.5, 0.8, 0.95]))


def log_marginal(transitions, log_likelihood, prior_discount):
    """(S,) log Z, where Z(s) = Σ_a p(a) [(1 − p0) p_d(g | s, a) + p0 Σ_s' P(s' | s, a) Z(s')]."""
    chain = transitions.mean(1)
    stop = (1 - prior_discount) * np.exp(log_likelihood).mean(1)
    return np.log(np.linalg.solve(np.eye(len(chain)) - prior_discount * chain, stop))


def best_value(transitions, log_likelihood, objective, kl_weight):
    """(S,) the fixed point of the objective's backup under the best policy, from below."""
    states, actions, _ = transitions.shape
    log_prob = torch.from_numpy(np.repeat(log_likelihood.ravel(), states))
    batch = judge(torch.zeros(len(log_prob), 1), log_prob)
    value = np.full(states, log_likelihood.min() - 5)
    for _ in range(SWEEPS):
        next_value = torch.from_numpy(np.tile(value, states * actions))
        backup = objective.reward_and_discount(batch, next_value)
        target = bellman_target(backup.reward, backup.discount, next_value)
        q = (transitions * target.numpy().reshape(transitions.shape)).sum(-1)
        if kl_weight == 0:
            new = q.max(-1)
        else:
            new = kl_weight * (np.logaddexp.reduce(q / kl_weight, axis=-1) - np.log(actions))
        if np.abs(new - value).max() < 1e-10:
            break
        value = new
    return value


@pytest.mark.parametrize(
    ("limit", "kl_weight"), [(None, 1.0), ("prior", 1.0), (0.5, 1.0), ("prior", 3.0)]
)
def test_at_weight_one_the_value_bounds_the_log_likelihood_from_below(limit, kl_weight):
    gaps = []
    for seed in range(100):
        transitions, log_likelihood, prior = random_mdp(seed)
        objective = ODACObjective(prior, max_discount=prior if limit == "prior" else limit)
        value = best_value(transitions, log_likelihood, objective, kl_weight)
        gaps.append((log_marginal(transitions, log_likelihood, prior) - value).min())
    assert min(gaps) >= -1e-7
    if limit is None and kl_weight == 1:
        assert min(gaps) < 0.05  # it is tight where the dynamics are nearly deterministic


@pytest.mark.parametrize("kl_weight", [0.0, 0.05, 0.5])
def test_below_weight_one_only_the_largest_density_is_a_bound(kl_weight):
    exceeded = 0
    for seed in range(40):
        transitions, log_likelihood, prior = random_mdp(seed)
        value = best_value(transitions, log_likelihood, ODACObjective(prior), kl_weight)
        assert (value <= log_likelihood.max() + 1e-9).all()
        exceeded += (value > log_marginal(transitions, log_likelihood, prior) + 1e-6).any()
    assert exceeded > 20


def test_a_counter_example_below_weight_one():
    """One of two actions reaches the goal at once, the other one stays: Z < 1, but V → log 1."""
    transitions = np.array([[[1.0, 0.0], [1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]]])
    with np.errstate(divide="ignore"):
        log_likelihood = np.log(0.999 * transitions[:, :, 0] + 0.001 / 2)
    value = best_value(transitions, log_likelihood, ODACObjective(0.9), 0.05)
    assert value[1] > log_marginal(transitions, log_likelihood, 0.9)[1] + 0.01
