"""The figures behind what the tests of the objective, the exact solver and Box 2D assert.

    OMP_NUM_THREADS=1 python benchmarks/mathematics.py       # half a minute on one core

Random MDPs and the learning of tables come from `tests/unit`: what is measured is what is asserted.
`results/mathematics.csv` has one row per check and case (an MDP, or a p0 for the float32 backup),
with the worst value over its states; ∓inf where no state is finite or policy iteration has a single
round. `results/box2d_baselines.csv` has one row per policy and 1,000 episodes. Exits with 1 if a
bound is broken. Values are in nats; excess and increase are relative to max(1, |V|).
"""

from __future__ import annotations

import importlib
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from rllib_odac.envs.box2d import HORIZON, Box2DVectorEnv
from rllib_odac.maths.tabular import FloatArray, TabularODAC

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "unit"))  # which is no package
TESTS = "test_tabular", "test_update_reaches_oracle", "test_losses"
tabular, oracle, backups = map(importlib.import_module, TESTS)
COMMAND = "OMP_NUM_THREADS=1 python benchmarks/mathematics.py"
# check -> (summary of its cases, bound): from above, or from below for "min"; inf only reports.
CHECKS: dict[str, tuple[str, float]] = {
    "deterministic_error": ("max", 1e-9),  # |V* − log Z|, V* in expectation and per sample
    "deterministic_unreachable": ("sum", np.inf),  # the number of states with −inf on both sides
    "stochastic_excess": ("max", 1e-10),  # V* − log Z
    "stochastic_gap": ("max", np.inf),  # log Z − V*
    "per_sample_excess": ("max", 1e-10),  # V* − V_per-sample and V_per-sample − log Z
    "policy_excess": ("max", 1e-10),  # V^π − V*, random π with the optimal q_T
    "termination_excess": ("max", 1e-10),  # V^π − V*, random π with a random q_T
    "iteration_increase": ("min", -1e-10),  # between rounds of policy iteration
    "learned_deterministic": ("max", 1e-2),  # |V − V_per-sample| of tables learned with the losses
    "learned_stochastic": ("max", 1e-2),  # the same; V_per-sample is V* in deterministic MDPs
    "backup_float32": ("max", 8.0),  # |explicit − logaddexp| / eps / max(1, |V|, |log p_d|)
}
BOX2D = ["policy", "batch", "episodes", "success_rate"]
BOX2D += ["mean_final_distance", "mean_initial_distance", "command"]
Rows = Iterator[tuple[str, object, float]]


def excess(lower: FloatArray, upper: FloatArray) -> float:
    """The largest (lower − upper) / max(1, |lower|) over the states where lower is finite."""
    low, high = lower[at := np.isfinite(lower)], upper[at]
    return float(((low - high) / np.maximum(1.0, np.abs(low))).max(initial=-np.inf))


def exact_values() -> Rows:
    """The bounds and policy iteration in random MDPs."""
    rng = np.random.default_rng(0)
    for case in range(100):
        mdp: TabularODAC = tabular.deterministic_mdp(rng)
        log_z = mdp.log_marginal_likelihood()
        values = np.stack([mdp.solve(per_sample=each).value for each in (False, True)])
        error = np.subtract(values, log_z, out=np.zeros_like(values), where=values != log_z)
        yield "deterministic_error", case, np.abs(error).max()  # inf for −inf on one side only
        yield "deterministic_unreachable", case, np.isneginf([log_z, *values]).all(0).sum()
        yield from iteration(f"deterministic {case}", mdp)
    for case in range(100):
        mdp = tabular.stochastic_mdp(rng, dense := case % 2 == 1)
        log_z, best = mdp.log_marginal_likelihood(), mdp.solve().value
        sample = mdp.solve(per_sample=True).value
        yield "stochastic_excess", case, excess(best, log_z)
        yield "stochastic_gap", case, tabular.largest_gap(best, log_z)
        yield "per_sample_excess", case, max(excess(best, sample), excess(sample, log_z))
        policies = [tabular.random_policy(rng, mdp) for _ in range(5)]
        optimal = map(mdp.evaluate, policies)
        yield "policy_excess", case, max(excess(each.value, best) for each in optimal)
        other = map(mdp.evaluate, policies, rng.random((5, *mdp.action_prior.shape)))
        yield "termination_excess", case, max(excess(each.value, best) for each in other)
        yield from iteration(f"stochastic {case}", mdp, policies[0] if dense else None)


def iteration(case: str, mdp: TabularODAC, start: FloatArray | None = None) -> Rows:
    """Policy iteration from `start`, or from shortest routes."""
    rounds = itertools.pairwise(solution.value for solution in mdp.policy_iteration(start))
    yield "iteration_increase", case, -max(itertools.starmap(excess, rounds), default=-np.inf)


def learned_values() -> Rows:
    """The learner's `compute_update`, minimised over tables by the code of the tests."""
    mdps = {"corridor": oracle.corridor(), "slippery": oracle.slippery()}
    mdps |= {f"scattered {seed}": oracle.scattered(seed) for seed in range(3)}
    for name, mdp in mdps.items():
        kind = "deterministic" if (mdp.transitions.max(-1) == 1.0).all() else "stochastic"
        error = oracle.learn(mdp).value - mdp.solve(per_sample=True).value
        yield f"learned_{kind}", name, np.abs(error).max()


def backup_forms() -> Rows:
    """Explicit and logaddexp backup in float32 on a grid, free pairs, near pairs and small ones."""
    grid, free = torch.linspace(-1e4, 1e4, 201), torch.empty(2, 200_000).uniform_(-1e4, 1e4)
    near = (free[0] + torch.empty(200_000).uniform_(-40, 40)).clamp(-1e4, 1e4)
    pairs = torch.cartesian_prod(grid, grid).T, free, torch.stack([free[0], near]), free / 250
    log_prob, value = torch.cat(pairs, dim=1)
    unit = torch.finfo(torch.float32).eps * torch.maximum(log_prob.abs(), value.abs()).clamp(min=1)
    for p0 in 1.0 / (1.0 + np.exp(-np.linspace(-1.0, 1.0, 41) * np.log(1e6 - 1.0))):
        logit = backups.losses.optimal_discount_logit(value, log_prob, p0)
        explicit = backups.explicit_target(log_prob, value, logit, p0)
        stable = backups.losses.soft_bellman_target(log_prob, value, p0)
        yield "backup_float32", f"p0 = {p0:.9g}", ((explicit - stable).abs() / unit).max().item()


def box2d(policy: str, batch: int, episodes: int = 1000) -> tuple[object, ...]:
    """One batch: straight to the goal whatever stands in between, random actions, or none."""
    env, rng = Box2DVectorEnv(episodes), np.random.default_rng(batch)
    observation, first = env.reset(seed=batch * episodes)  # room i takes seed + i
    for _ in range(HORIZON):
        action = rng.uniform(-1.0, 1.0, (episodes, 2)) * (policy == "random")
        if policy == "straight":
            action[:] = observation["desired_goal"] - observation["achieved_goal"]
        observation, *_, last = env.step(action)
    means = (last["is_success"], last["final_distance"], first["final_distance"])
    return policy, batch, episodes, *(float(np.mean(x)) for x in means), COMMAND


def main() -> bool:
    """Measures everything, writes the rows, prints the worst of each check: is a bound broken?"""
    torch.manual_seed(0)
    measured = [*exact_values(), *backup_forms(), *learned_values()]
    rows = pd.DataFrame(measured, columns=["check", "case", "value"])
    rows["bound"] = [CHECKS[name][1] for name in rows["check"]]
    rows.assign(command=COMMAND).to_csv(ROOT / "benchmarks/results/mathematics.csv", index=False)
    broken = False
    print(f"{'check':26} {'cases':>5} {'finite':>6} {'worst value':>12}    bound")
    for name, (how, bound) in CHECKS.items():
        values = rows.loc[rows["check"] == name, "value"].to_numpy(float)
        worst, counts = getattr(np, how)(values), f"{len(values):5} {np.isfinite(values).sum():6}"
        broken |= not (worst >= bound if how == "min" else worst <= bound)
        print(f"{name:26} {counts} {worst:12.3g} {'<>'[how == 'min']}= {bound:g}")
    runs = itertools.product(("straight", "random", "idle"), range(5))
    baselines = pd.DataFrame(itertools.starmap(box2d, runs), columns=BOX2D)
    baselines.to_csv(ROOT / "benchmarks/results/box2d_baselines.csv", index=False)
    print(baselines.groupby("policy")[BOX2D[3:6]].agg(["mean", "min", "max"]).T.to_string())
    return broken


if __name__ == "__main__":
    sys.exit(main())
