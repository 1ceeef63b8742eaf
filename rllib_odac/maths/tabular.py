"""Exact ODAC for finite Markov decision processes, in float64.

A ground truth that deep reinforcement learning rarely has: ODAC's value is a lower bound on the log
marginal likelihood log p(g | s) of the outcome, and here both sides can be computed. The equations
are those of Rudner et al., "Outcome-Driven Reinforcement Learning via Variational Inference"
(NeurIPS 2021), written as in `maths.losses`. All values are in nats, S and A are the numbers of
states and actions, and 0 · (−inf) counts as 0 in every expectation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray = NDArray[np.float64]

TOLERANCE = 1e-12  # of a fixed point, relative to max(1, |V|)
SUM_TOLERANCE = 1e-8  # by how much a distribution may miss a sum of 1


@dataclass(frozen=True)
class TabularSolution:
    """A value with the policy and the termination distribution that it belongs to.

    Attributes:
        value: (S,) V(s, g) in nats; −inf where the bound is empty.
        q: (S, A) Q(s, a, g) in nats.
        policy: (S, A) π(a | s, g).
        discount: (S, A) the dynamic discount q_Δ(0 | s, a), the probability of going on.
    """

    value: FloatArray
    q: FloatArray
    policy: FloatArray
    discount: FloatArray


class TabularODAC:
    """Outcome-driven inference in a known finite MDP.

    The outcome is that step T leads to the state `goal`, where T has the geometric prior
    (1 − p0) p0^t over t = 0, 1, ... (infinite horizon) or is known (finite horizon).

    Args:
        transitions: (S, A, S) probabilities P(s' | s, a).
        goal: index of the outcome's state, 0 to S − 1.
        prior_discount: p0 = p_Δ(0), the prior probability of going on, in (0, 1).
        action_prior: (S, A) p(a | s); None is uniform.

    Raises:
        ValueError: here and in every method, for an argument of the wrong shape or range.
    """

    def __init__(
        self,
        transitions: ArrayLike,
        goal: int,
        prior_discount: float,
        action_prior: ArrayLike | None = None,
    ) -> None:
        shape = np.shape(transitions)
        if len(shape) != 3 or shape[0] != shape[2] or 0 in shape:
            raise ValueError(f"transitions has shape {shape}, but it must be (S, A, S), S, A >= 1.")
        if not 0.0 < prior_discount < 1.0:
            raise ValueError(f"prior_discount is {prior_discount}, but it must lie in (0, 1).")
        if action_prior is None:
            action_prior = np.full(shape[:2], 1.0 / shape[1])
        self.transitions = _distributions("transitions", transitions, shape)
        self.goal = _integer("goal", goal, 0, shape[0] - 1)
        self.prior_discount = float(prior_discount)
        self.action_prior = _distributions("action_prior", action_prior, shape[:2])
        self._log_action_prior = _log(self.action_prior)
        self._log_p0, self._log_p1 = np.log(prior_discount), np.log1p(-prior_discount)
        self._log_goal = _log(self.transitions[:, :, self.goal])  # log p_d(g | s, a)

    def solve(self, horizon: int | None = None, per_sample: bool = False) -> TabularSolution:
        """The best lower bound V* with its policy and its dynamic discount.

        V*(s) = log Σ_a p(a | s) exp Q(s, a) and π* ∝ p(a | s) exp Q(s, a), where
        Q(s, a) = logaddexp( log(1 − p0) + log p_d(g | s, a),  log p0 + E_s'[V(s')] ).

        With `per_sample` q_Δ may depend on s' too, which is what an actor-critic computes from one
        sampled s': Q = E_s'[ logaddexp( log(1 − p0) + log p_d, log p0 + V(s') ) ]. Then
        V* ≤ V_per-sample ≤ log p(g | s), all equal in deterministic dynamics.

        V* = −inf where no policy makes the goal certain in the end, even if log p(g | s) is finite:
        q keeps the true dynamics, so any risk of a dead end costs an infinite KL, unless the same
        action may reach the goal at once (p_d > 0). This is so per sample too: p_d = 0 and
        V(s') = −inf for one possible s' make the expectation −inf.

        Args:
            horizon: known number of steps to the outcome, >= 1: Q = log p_d at the last step and
                E_s'[V(s')] before, no termination variable (`discount` is 1, and 0 at the last
                step). The results are those of the first step. None is the infinite horizon.
            per_sample: let q_Δ depend on s' (infinite horizon); `discount` is its expectation.
        """
        if horizon is None:
            *_, last = self._ascend(self._route_to_goal(), per_sample=per_sample)
            q, logit = self._backup(last.value, per_sample)
            discount = self._expect(np.exp(-np.logaddexp(0.0, -logit)))
        else:
            steps, q = _integer("horizon", horizon, 1), self._log_goal
            for _ in range(steps - 1):
                q = _times(self.transitions, self._soft_maximum(q)).sum(-1)
            discount = np.full_like(q, float(steps > 1))
        return TabularSolution(self._soft_maximum(q), q, self.improve(q), discount)

    def log_marginal_likelihood(self, horizon: int | None = None) -> FloatArray:
        """(S,) log p(g | s) in nats when actions come from the prior; −inf for unreachable goals.

        Infinite horizon: Z(s) = Σ_a p(a | s) [ (1 − p0) P(g | s, a) + p0 Σ_s' P(s' | s, a) Z(s') ],
        a linear system. Finite horizon: the probability of being at the goal after `horizon` steps.
        """
        log_chain = _log(np.einsum("sa,sat->st", self.action_prior, self.transitions))
        log_z: FloatArray = log_chain[:, self.goal].copy()
        if horizon is not None:
            for _ in range(_integer("horizon", horizon, 1) - 1):
                log_z = np.logaddexp.reduce(log_chain + log_z, axis=-1)
            return log_z
        log_go, log_stop = log_chain + self._log_p0, log_z + self._log_p1
        # Z may span hundreds of orders of magnitude, and underflow. So it is solved for in units of
        # the most probable single path from s, then of the result, until that is one everywhere.
        log_z = log_stop.copy()
        for _ in log_z:  # no best path visits a state twice
            log_z = np.maximum(log_z, (log_go + log_z).max(-1))
        found = np.flatnonzero(log_z > -np.inf)
        for _ in range(20):
            unit = log_z[found]
            flow = np.exp(log_go[np.ix_(found, found)] + unit - unit[:, None])
            ratio = np.linalg.solve(np.eye(len(found)) - flow, np.exp(log_stop[found] - unit))
            log_z[found] += np.log(np.where(ratio > 0.0, ratio, 1.0))
            if (np.abs(ratio - 1.0) <= TOLERANCE).all():
                break
        return log_z

    def evaluate(self, policy: ArrayLike, discount: ArrayLike | None = None) -> TabularSolution:
        """Policy evaluation: the lower bound V^π for any policy and any q_Δ.

        V(s) = E_{a~π}[Q(s, a)] − KL(π(·|s) ‖ p(·|s)), Q(s, a) = r(s, a; q_Δ) + q_Δ(0) E_s'[V(s')],
        r(s, a; q_Δ) = q_Δ(1) log p_d(g | s, a) − KL(q_Δ ‖ p_Δ), for `policy` (S, A) π(a | s) and
        `discount` (S, A) q_Δ(0 | s, a) in [0, 1]; None is the optimal one for this policy.
        """
        policy = _distributions("policy", policy, self.action_prior.shape)
        if discount is None:
            *_, last = self._ascend(policy, fixed_policy=True)
            return last
        go = _array("discount", discount, policy.shape)[..., None]
        if not ((go >= 0.0) & (go <= 1.0)).all():
            raise ValueError(f"discount spans {go.min()} to {go.max()}, but must lie in [0, 1].")
        return self._evaluate(policy, _log(go) - _log(1.0 - go))

    def improve(self, q: ArrayLike) -> FloatArray:
        """Policy improvement: (S, A) π ∝ p(a | s) exp Q(s, a), from (S, A) Q in nats.

        It maximises E_{a~π}[Q] − KL(π ‖ p). Q is below +inf; the prior is kept where all is −inf.
        """
        score = self._log_action_prior + _array("q", q, self.action_prior.shape)
        best = score.max(-1, keepdims=True)
        if not (best < np.inf).all():
            raise ValueError(f"q has the entry {best.max()}, but it must be finite or -inf.")
        score = np.where(np.isneginf(best), self._log_action_prior, score)
        weights = np.exp(score - score.max(-1, keepdims=True))
        return np.asarray(weights / weights.sum(-1, keepdims=True))

    def policy_iteration(self, policy: ArrayLike | None = None) -> Iterator[TabularSolution]:
        """Outcome-driven policy iteration (Theorem 2): yields the pair (π, q_Δ) of each round.

        Evaluates (π, q_Δ) exactly, then improves both: π ∝ p exp Q and q_Δ(0) = σ(E_s'[V(s')] −
        log p_d(g | s, a) + logit p0). Values never fall, and end at V*. The operator is convex in V
        and this is Newton's method on it: a dozen rounds, where sweeps would take thousands.

        Starts from `policy` (S, A), or else from shortest routes, and the q_Δ that stops at the
        first chance. From a policy that risks a dead end (value −inf) the limit can lie below V*,
        since a Q of −inf does not say how to improve.
        """
        start = self._route_to_goal() if policy is None else policy
        return self._ascend(_distributions("policy", start, self.action_prior.shape))

    def _ascend(
        self, policy: FloatArray, fixed_policy: bool = False, per_sample: bool = False
    ) -> Iterator[TabularSolution]:
        # To stop wherever p_d > 0 keeps V finite if any q_Δ does.
        stop_early = np.where(np.isneginf(self._log_goal), np.inf, -np.inf)[..., None]
        new = self._evaluate(policy, stop_early)
        while True:
            yield (old := new)
            q, logit = self._backup(old.value, per_sample)
            new = self._evaluate(policy if fixed_policy else self.improve(q), logit)
            finite = new.value > -np.inf
            gain = new.value[finite] - old.value[finite]
            gain /= np.maximum(1.0, np.abs(new.value[finite]))
            # In exact arithmetic no value falls: what does fall tells the size of the round-off.
            if gain.max(initial=0.0) <= max(TOLERANCE, -gain.min(initial=0.0)):
                return

    def _backup(self, value: FloatArray, per_sample: bool) -> tuple[FloatArray, FloatArray]:
        """(S, A) Q under the optimal q_Δ, and its logit (S, A, S), or (S, A, 1) in expectation."""
        next_value = np.broadcast_to(value, self.transitions.shape)
        if not per_sample:
            next_value = _times(self.transitions, value).sum(-1, keepdims=True)
        stop, go = self._log_p1 + self._log_goal[..., None], self._log_p0 + next_value
        logit = np.full(go.shape, self._log_p0 - self._log_p1)  # the prior's where both are −inf
        np.subtract(go, stop, out=logit, where=~(np.isneginf(go) & np.isneginf(stop)))
        return self._expect(np.logaddexp(stop, go)), logit

    def _evaluate(self, policy: FloatArray, logit: FloatArray) -> TabularSolution:
        """Exact evaluation of π and q_Δ(0) = σ(logit), whose shape is (S, A, 1) or (S, A, S)."""
        log_go, log_stop = -np.logaddexp(0.0, -logit), -np.logaddexp(0.0, logit)
        go, stop = np.exp(log_go), np.exp(log_stop)
        kl = _times(go, log_go - self._log_p0) + _times(stop, log_stop - self._log_p1)
        reward = self._expect(_times(stop, self._log_goal[..., None]) - kl)
        action_kl = _times(policy, _log(policy)) - _times(policy, self._log_action_prior)
        step = (_times(policy, reward) - action_kl).sum(-1)
        # V = step + flow V is finite except where −inf is met with some probability, or where the
        # trajectory never stops: going on costs −log p0 > 0 each time.
        flow = np.einsum("sa,sat->st", policy, go * self.transitions)
        leave = (policy * self._expect(stop)).sum(-1)
        lost = _reaches(flow > 0.0, np.isneginf(step) | ~_reaches(flow > 0.0, leave > 0.0))
        kept = np.flatnonzero(~lost)
        value = np.full(len(policy), -np.inf)
        # 1 − diag(flow), as a sum of what leaves a state: the difference would lose its digits.
        off_diagonal = flow - np.diag(flow.diagonal())
        system = np.diag(leave + off_diagonal.sum(-1)) - off_diagonal
        value[kept] = np.linalg.solve(system[np.ix_(kept, kept)], step[kept])
        q = reward + _times(go * self.transitions, value).sum(-1)
        return TabularSolution(value, q, policy, self._expect(go))

    def _expect(self, x: FloatArray) -> FloatArray:  # (S, A, 1) does not depend on s'
        return x[..., 0] if x.shape[-1] == 1 else _times(self.transitions, x).sum(-1)

    def _soft_maximum(self, q: FloatArray) -> FloatArray:
        return np.asarray(np.logaddexp.reduce(self._log_action_prior + q, axis=-1))

    def _route_to_goal(self) -> FloatArray:
        """The prior over the shortest routes: a policy of finite value wherever V* is finite.

        Those are the states that can reach the goal by actions which never leave the set of them,
        found by shrinking the set until that is true.
        """
        possible, hit = self.transitions > 0.0, self._log_goal > -np.inf
        safe = np.ones(len(possible), dtype=bool)
        while True:
            allowed = (self.action_prior > 0.0) & (hit | ~possible[:, :, ~safe].any(-1))
            route, near = self.action_prior.copy(), np.zeros_like(safe)
            closer = allowed & hit
            while (new := closer.any(-1) & ~near).any():
                weights = self.action_prior[new] * closer[new]
                route[new] = weights / weights.sum(-1, keepdims=True)
                near |= new
                closer = allowed & (hit | possible[:, :, near].any(-1))
            if (near == safe).all():
                return route
            safe = near


def _log(x: FloatArray) -> FloatArray:
    with np.errstate(divide="ignore"):
        return np.log(x)


def _times(weight: FloatArray, x: FloatArray) -> FloatArray:
    out = np.zeros(np.broadcast_shapes(weight.shape, x.shape))  # 0 · (−inf) = 0
    return np.multiply(weight, x, out=out, where=weight > 0.0)


def _reaches(edges: NDArray[np.bool_], targets: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(S,) whether a path over (S, S) edges leads to a target, or starts at one."""
    while (grown := targets | edges[:, targets].any(-1)).sum() > targets.sum():
        targets = grown
    return targets


def _array(name: str, x: ArrayLike, shape: tuple[int, ...]) -> FloatArray:
    array = np.array(x, dtype=np.float64)
    if array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}, but it must be {shape}.")
    return array


def _distributions(name: str, x: ArrayLike, shape: tuple[int, ...]) -> FloatArray:
    array = _array(name, x, shape)
    total = array.sum(-1)
    wrong = np.argwhere(~((array >= 0.0).all(-1) & (np.abs(total - 1.0) <= SUM_TOLERANCE)))
    if len(wrong):
        row = wrong[0].tolist()
        raise ValueError(
            f"{name}{row} has sum {total[*row]:.9g} and smallest entry {array[*row].min():.9g}, "
            "but it must be a probability distribution, with sum 1 and entries >= 0."
        )
    return array


def _integer(name: str, x: int, low: int, high: float = np.inf) -> int:
    if not isinstance(x, int | np.integer) or not low <= x <= high:
        raise ValueError(f"{name} is {x!r}, but it must be an integer from {low} to {high}.")
    return int(x)
