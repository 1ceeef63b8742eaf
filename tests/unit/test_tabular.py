"""The exact solver against enumeration, truncated sums and the bounds that the theorems state."""

from __future__ import annotations

import itertools
import re
from typing import Any

import numpy as np
import pytest
import torch

from rllib_odac.maths import losses
from rllib_odac.maths.tabular import FloatArray, TabularODAC

PRIOR_DISCOUNTS = (0.01, 0.3, 0.9, 0.99, 0.999)


def deterministic_mdp(rng: np.random.Generator, prior_discount: float | None = None) -> TabularODAC:
    """Random successors, so that some states do not lead to the goal; random action prior."""
    n_states, n_actions = int(rng.integers(1, 25)), int(rng.integers(1, 5))
    successors = rng.integers(0, n_states, (n_states, n_actions))
    return TabularODAC(
        np.eye(n_states)[successors],
        int(rng.integers(n_states)),
        rng.choice(PRIOR_DISCOUNTS) if prior_discount is None else prior_discount,
        rng.dirichlet(np.ones(n_actions), n_states),
    )


def stochastic_mdp(rng: np.random.Generator, dense: bool = False) -> TabularODAC:
    """Up to four successors for each action, or all states."""
    n_states, n_actions = int(rng.integers(2, 25)), int(rng.integers(1, 5))
    transitions = rng.uniform(0.05, 1.0, (n_states, n_actions, n_states))
    if not dense:
        n_successors = rng.integers(1, min(4, n_states) + 1, (n_states, n_actions, 1))
        transitions *= rng.random(transitions.shape).argsort(-1).argsort(-1) < n_successors
    transitions /= transitions.sum(-1, keepdims=True)
    goal = int(rng.integers(n_states))
    return TabularODAC(transitions, goal, rng.choice(PRIOR_DISCOUNTS))


def random_policy(rng: np.random.Generator, mdp: TabularODAC) -> FloatArray:
    n_states, n_actions = mdp.action_prior.shape
    return rng.dirichlet(np.ones(n_actions), n_states)


def assert_below(lower: FloatArray, upper: FloatArray) -> None:
    """lower <= upper up to round-off, where −inf <= −inf."""
    finite = np.isfinite(lower)
    excess = lower[finite] - upper[finite]
    assert (excess <= 1e-10 * np.maximum(1.0, np.abs(lower[finite]))).all(), excess.max()


def largest_gap(lower: FloatArray, upper: FloatArray) -> float:
    finite = np.isfinite(lower)
    return float((upper[finite] - lower[finite]).max(initial=0.0))


def chain(mdp: TabularODAC) -> FloatArray:
    """(S, S) the state transition matrix under the action prior."""
    return np.einsum("sa,sat->st", mdp.action_prior, mdp.transitions)


# Infinite horizon, deterministic dynamics: the bound is tight


def test_value_is_the_log_marginal_likelihood_in_deterministic_mdps() -> None:
    rng, n_unreachable = np.random.default_rng(0), 0
    for _ in range(100):
        mdp = deterministic_mdp(rng)
        log_z = mdp.log_marginal_likelihood()
        assert (log_z <= 1e-12).all()
        for per_sample in (False, True):
            value = mdp.solve(per_sample=per_sample).value
            np.testing.assert_allclose(value, log_z, rtol=0.0, atol=1e-9)
        n_unreachable += np.isneginf(log_z).sum()
    assert n_unreachable > 100


def test_solution_is_the_posterior_in_deterministic_mdps() -> None:
    rng = np.random.default_rng(1)
    for _ in range(30):
        mdp = deterministic_mdp(rng)
        solution, p0 = mdp.solve(), mdp.prior_discount
        z = np.exp(mdp.log_marginal_likelihood())
        go_on = p0 * mdp.transitions @ z
        z_action = (1.0 - p0) * mdp.transitions[:, :, mdp.goal] + go_on
        reached = z_action > 0.0
        np.testing.assert_allclose(np.exp(solution.q), z_action, rtol=1e-9)
        np.testing.assert_allclose(
            solution.discount[reached], (go_on / np.where(reached, z_action, 1.0))[reached]
        )
        posterior = mdp.action_prior * z_action
        possible = posterior.sum(-1) > 0.0
        posterior[possible] /= posterior[possible].sum(-1, keepdims=True)
        np.testing.assert_allclose(solution.policy[possible], posterior[possible], rtol=1e-8)
        np.testing.assert_allclose(solution.policy[~possible], mdp.action_prior[~possible])


def test_log_marginal_likelihood_is_the_sum_over_termination_times() -> None:
    rng = np.random.default_rng(2)
    for make in (deterministic_mdp, stochastic_mdp):
        for _ in range(20):
            mdp = make(rng)
            mdp = TabularODAC(mdp.transitions, mdp.goal, 0.95, mdp.action_prior)
            hit, total = np.eye(len(mdp.transitions))[mdp.goal], 0.0
            for t in range(1000):
                hit = chain(mdp) @ hit
                total = total + (1.0 - 0.95) * 0.95**t * hit
            np.testing.assert_allclose(np.exp(mdp.log_marginal_likelihood()), total, rtol=1e-10)


def test_values_below_the_smallest_float_are_exact() -> None:
    n, p0 = 60, 1e-6
    successors = np.stack([np.zeros(n, int), np.minimum(np.arange(n) + 1, n - 1)], axis=1)
    mdp = TabularODAC(np.eye(n)[successors], n - 1, p0)
    value = mdp.solve().value
    assert value[0] < np.log(np.finfo(float).tiny)
    np.testing.assert_allclose(value, mdp.log_marginal_likelihood(), rtol=1e-12)


def test_many_equally_good_paths_are_all_counted() -> None:
    n = 20
    x, y = np.divmod(np.arange(n * n), n)
    moves = [(1, 0), (-1, 0), (0, 1), (0, -1)]
    successors = [(x + i).clip(0, n - 1) * n + (y + j).clip(0, n - 1) for i, j in moves]
    mdp = TabularODAC(np.eye(n * n)[np.stack(successors, axis=1)], n * n - 1, 0.9)
    np.testing.assert_allclose(mdp.solve().value, mdp.log_marginal_likelihood(), rtol=1e-11)


# Infinite horizon, stochastic dynamics: a lower bound


def test_bounds_are_ordered_in_stochastic_mdps() -> None:
    rng, gaps, sample_gaps = np.random.default_rng(3), [], []
    for _ in range(60):
        mdp = stochastic_mdp(rng)
        value, sample_value = mdp.solve().value, mdp.solve(per_sample=True).value
        log_z = mdp.log_marginal_likelihood()
        assert_below(value, sample_value)
        assert_below(sample_value, log_z)
        np.testing.assert_array_equal(np.isneginf(value), np.isneginf(sample_value))
        gaps.append(largest_gap(value, log_z))
        sample_gaps.append(largest_gap(value, sample_value))
    assert max(gaps) > 0.1
    assert max(sample_gaps) > 0.01


def test_solutions_are_fixed_points_of_the_learners_backup() -> None:
    rng = np.random.default_rng(4)
    for _ in range(30):
        mdp = stochastic_mdp(rng)
        log_goal = torch.as_tensor(mdp.transitions[:, :, mdp.goal]).log()
        transitions = torch.as_tensor(mdp.transitions)
        for per_sample in (False, True):
            solution = mdp.solve(per_sample=per_sample)
            value = torch.as_tensor(solution.value)
            weighted = torch.where(transitions > 0, transitions * value, 0.0)
            if per_sample:
                backup = losses.soft_bellman_target(
                    log_goal[..., None], value.expand(transitions.shape), mdp.prior_discount
                )
                q = torch.where(transitions > 0, transitions * backup, 0.0).sum(-1)
            else:
                q = losses.soft_bellman_target(log_goal, weighted.sum(-1), mdp.prior_discount)
            np.testing.assert_allclose(solution.q, q, rtol=1e-10, atol=1e-10)
            log_prior = torch.as_tensor(mdp.action_prior).log()
            np.testing.assert_allclose(
                solution.value, (log_prior + q).logsumexp(-1), rtol=1e-10, atol=1e-10
            )


def test_no_policy_and_no_termination_distribution_is_better() -> None:
    rng = np.random.default_rng(5)
    for dense in (False, True):
        for _ in range(20):
            mdp = stochastic_mdp(rng, dense)
            best = mdp.solve()
            for _ in range(5):
                policy = random_policy(rng, mdp)
                for discount in (rng.random(policy.shape), mdp.prior_discount + 0.0 * policy):
                    value = mdp.evaluate(policy, discount).value
                    assert_below(value, mdp.evaluate(policy).value)
                    assert_below(mdp.evaluate(best.policy, discount).value, best.value)
                assert_below(mdp.evaluate(policy).value, best.value)


def test_evaluating_the_solution_gives_its_value() -> None:
    rng = np.random.default_rng(6)
    for _ in range(30):
        mdp = stochastic_mdp(rng)
        best = mdp.solve()
        for discount in (None, best.discount):
            solution = mdp.evaluate(best.policy, discount)
            np.testing.assert_allclose(solution.value, best.value, rtol=1e-10, atol=1e-10)
            np.testing.assert_allclose(solution.q, best.q, rtol=1e-10, atol=1e-10)


def test_evaluation_is_the_limit_of_the_learners_backups() -> None:
    rng = np.random.default_rng(7)
    for _ in range(10):
        mdp = stochastic_mdp(rng, dense=True)
        policy = random_policy(rng, mdp)
        discount = rng.uniform(0.1, 0.8, policy.shape)
        go, pi = torch.as_tensor(discount), torch.as_tensor(policy)
        log_goal = torch.as_tensor(mdp.transitions[:, :, mdp.goal]).log()
        reward = losses.outcome_reward(log_goal, go.logit(), mdp.prior_discount)
        action_kl = (pi / torch.as_tensor(mdp.action_prior)).log()
        value = torch.zeros(len(policy), dtype=torch.float64)
        for _ in range(200):
            q = losses.bellman_target(reward, go, torch.as_tensor(mdp.transitions) @ value)
            value = (pi * losses.soft_value(q, action_kl)).sum(-1)
        solution = mdp.evaluate(policy, discount)
        np.testing.assert_allclose(solution.value, value, rtol=1e-10)
        np.testing.assert_allclose(solution.q, q, rtol=1e-10)
        np.testing.assert_array_equal(solution.policy, policy)
        np.testing.assert_allclose(solution.discount, discount)


def test_policy_iteration_rises_to_the_best_value() -> None:
    rng, rounds = np.random.default_rng(8), []
    for index in range(60):
        dense = index % 2 == 0
        mdp = stochastic_mdp(rng, dense) if index % 3 else deterministic_mdp(rng)
        start = random_policy(rng, mdp) if dense and index % 3 else None
        solutions = list(mdp.policy_iteration(start))
        for lower, upper in itertools.pairwise(solutions):
            assert_below(lower.value, upper.value)
        np.testing.assert_allclose(solutions[-1].value, mdp.solve().value, rtol=1e-10, atol=1e-10)
        rounds.append(len(solutions))
    assert 2 < max(rounds) < 30


def test_improvement_maximises_the_regularised_value() -> None:
    rng = np.random.default_rng(9)
    for _ in range(20):
        mdp = stochastic_mdp(rng)
        q = 10.0 * rng.normal(size=mdp.action_prior.shape)

        def objective(policy: FloatArray, mdp: TabularODAC = mdp, q: FloatArray = q) -> FloatArray:
            return (policy * (q - np.log(policy / mdp.action_prior))).sum(-1)

        best = mdp.improve(q)
        np.testing.assert_allclose(best.sum(-1), 1.0)
        assert (objective(random_policy(rng, mdp)) <= objective(best) + 1e-12).all()


# Values of −inf, by hand. States: 0 start, 1 next to the goal, 2 goal, 3 dead end; one action.


def by_hand(start: list[float], prior_discount: float = 0.9) -> TabularODAC:
    return TabularODAC(
        np.array([start, [0, 0, 1, 0], [0, 0, 1, 0], [0, 0, 0, 1]])[:, None], 2, prior_discount
    )


def test_a_goal_that_is_reached_almost_surely_has_a_finite_value() -> None:
    # V = log p0 + V/2 + 0, though backups that begin at −inf would stay there.
    value = by_hand([0.5, 0.5, 0, 0]).solve().value
    np.testing.assert_allclose(value, [2 * np.log(0.9), 0, 0, -np.inf], atol=1e-12)


def test_a_risky_action_beside_a_safe_one_is_never_taken() -> None:
    both, safe = np.zeros((4, 2, 4)), by_hand([0.5, 0.5, 0, 0]).transitions
    both[:, :] = safe
    both[0, 1] = [0, 0.5, 0, 0.5]
    solution = TabularODAC(both, 2, 0.9).solve()
    assert solution.value[0] == pytest.approx(2 * np.log(0.5 * 0.9))
    assert solution.policy[0].tolist() == [1.0, 0.0]


def test_risking_a_dead_end_has_no_bound() -> None:
    mdp = by_hand([0, 0.5, 0, 0.5])
    assert mdp.solve().value[0] == mdp.solve(per_sample=True).value[0] == -np.inf
    np.testing.assert_allclose(mdp.log_marginal_likelihood()[0], np.log(0.9 * 0.5))


def test_a_dead_end_beside_the_goal_only_forbids_to_go_on() -> None:
    mdp = by_hand([0, 0, 0.5, 0.5])
    solution, sample = mdp.solve(), mdp.solve(per_sample=True)
    np.testing.assert_allclose(solution.value[0], np.log(0.1 * 0.5))
    assert solution.discount[0, 0] == 0.0
    hit = 0.1 * 0.5
    np.testing.assert_allclose(sample.value[0], 0.5 * np.log(hit) + 0.5 * np.log(hit + 0.9))
    np.testing.assert_allclose(sample.discount[0, 0], 0.5 * 0.9 / (hit + 0.9))
    np.testing.assert_allclose(mdp.log_marginal_likelihood()[0], np.log(0.1 * 0.5 + 0.9 * 0.5))


def test_policies_without_a_bound_are_minus_infinity() -> None:
    stay, step, goal = [1, 0], [0, 1], [0, 1]
    mdp = TabularODAC(np.array([[stay, step], [goal, goal]]), 1, 0.9, [[0.5, 0.5], [1.0, 0.0]])
    assert mdp.evaluate([[1, 0], [1, 0]]).value[0] == -np.inf  # never at the goal
    assert mdp.evaluate([[0, 1], [0, 1]]).value[1] == -np.inf  # an action the prior excludes
    always_on = mdp.evaluate([[0, 1], [1, 0]], np.ones((2, 2)))
    np.testing.assert_array_equal(always_on.value, -np.inf)  # never terminates
    stops_too_soon = mdp.evaluate([[0.5, 0.5], [1, 0]], np.full((2, 2), 0.5))
    assert stops_too_soon.value[0] == -np.inf  # where p_d = 0
    stuck = [solution.value[0] for solution in mdp.policy_iteration([[1, 0], [1, 0]])]
    assert stuck[0] == -np.inf
    assert stuck[-1] == pytest.approx(mdp.solve().value[0])  # a Q that is finite shows the way


# Finite horizon


def test_finite_horizon_is_the_enumeration_of_all_trajectories() -> None:
    rng = np.random.default_rng(10)
    for _ in range(10):
        successors = rng.integers(0, 4, (4, 3))
        prior = rng.dirichlet(np.ones(3), 4)
        mdp = TabularODAC(np.eye(4)[successors], int(rng.integers(4)), 0.9, prior)
        for horizon in range(1, 6):
            joint = np.zeros((4, 3))  # p(first action, goal | state)
            for start, plan in itertools.product(
                range(4), itertools.product(range(3), repeat=horizon)
            ):
                state, probability = start, 1.0
                for action in plan:
                    probability *= prior[state, action]
                    state = successors[state, action]
                joint[start, plan[0]] += probability * (state == mdp.goal)
            with np.errstate(divide="ignore"):
                expected = np.log(joint.sum(-1))
            solution = mdp.solve(horizon)
            np.testing.assert_allclose(solution.value, expected, rtol=1e-12, atol=1e-12)
            np.testing.assert_allclose(
                mdp.log_marginal_likelihood(horizon), expected, rtol=1e-12, atol=1e-12
            )
            found = joint.sum(-1) > 0.0
            posterior = joint[found] / joint[found].sum(-1, keepdims=True)
            np.testing.assert_allclose(solution.policy[found], posterior, atol=1e-12)
            np.testing.assert_array_equal(solution.discount, float(horizon > 1))


def test_finite_horizon_is_a_bound_in_stochastic_mdps() -> None:
    rng, gaps = np.random.default_rng(11), []
    for _ in range(30):
        mdp = stochastic_mdp(rng)
        for horizon in (1, 2, 7):
            log_z = mdp.log_marginal_likelihood(horizon)
            exact = np.linalg.matrix_power(chain(mdp), horizon)[:, mdp.goal]
            np.testing.assert_allclose(np.exp(log_z), exact, rtol=1e-12)
            value = mdp.solve(horizon).value
            assert_below(value, log_z)
            gaps.append(largest_gap(value, log_z))
    assert max(gaps) > 0.1


# Arguments

GOOD: dict[str, Any] = {"transitions": np.full((2, 3, 2), 0.5), "goal": 0, "prior_discount": 0.9}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"transitions": np.ones((2, 2))}, "transitions has shape (2, 2)"),
        ({"transitions": np.ones((2, 3, 4))}, "transitions has shape (2, 3, 4)"),
        ({"transitions": np.full((2, 3, 2), 0.4)}, "transitions[0, 0] has sum 0.8"),
        ({"transitions": np.array([[[1.5, -0.5]], [[1, 0]]])}, "smallest entry -0.5"),
        ({"transitions": np.full((2, 3, 2), np.nan)}, "transitions[0, 0] has sum nan"),
        ({"goal": 2}, "goal is 2, but it must be an integer from 0 to 1"),
        ({"goal": -1}, "goal is -1"),
        ({"goal": 0.5}, "goal is 0.5"),
        ({"prior_discount": 1.0}, "prior_discount is 1.0, but it must lie in (0, 1)"),
        ({"prior_discount": 0.0}, "prior_discount is 0.0"),
        ({"prior_discount": float("nan")}, "prior_discount is nan"),
        ({"action_prior": np.full((2, 3), 0.5)}, "action_prior[0] has sum 1.5"),
        ({"action_prior": [0.5, 0.5]}, "action_prior has shape (2,), but it must be (2, 3)"),
    ],
)
def test_bad_models_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        TabularODAC(**{**GOOD, **change})


@pytest.mark.parametrize(
    ("method", "arguments", "message"),
    [
        ("solve", (0,), "horizon is 0, but it must be an integer from 1"),
        ("solve", (2.5,), "horizon is 2.5"),
        ("log_marginal_likelihood", (-3,), "horizon is -3"),
        ("evaluate", (np.ones((2, 3)),), "policy[0] has sum 3"),
        ("evaluate", (np.full((2, 3), 1 / 3), np.full((2, 3), 1.5)), "discount spans 1.5 to 1.5"),
        ("evaluate", (np.full((2, 3), 1 / 3), np.full(2, 0.5)), "discount has shape (2,)"),
        ("improve", (np.zeros(3),), "q has shape (3,), but it must be (2, 3)"),
        ("improve", (np.full((2, 3), np.nan),), "q has the entry nan"),
        ("policy_iteration", (np.ones((2, 2)),), "policy has shape (2, 2)"),
    ],
)
def test_bad_arguments_are_refused(method: str, arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        getattr(TabularODAC(**GOOD), method)(*arguments)
