"""Seconds until an arm reaches 95 % of its goals: ODAC beside Stable-Baselines3's SAC + HER.

    python benchmarks/seconds_to_solve.py

Fetch Reach, the same held-out goals for all, one thread each, runs taking turns seed by seed. The
clock stands still during evaluations, every 250 steps, and runs from the first step (`train_s`) or
from before anything is built (`total_s`): Ray is started anew for each run of ours.

- `rllib_odac`: `ODACConfig` at its defaults.
- `stable_baselines3`: the settings best known for it on Fetch (fixed temperature 0.05, discount
  0.95, target step 0.05, learning rate 1e-3), an update a step, four of five goals relabelled.
- `stable_baselines3_same_inputs`: with our inputs besides, normalised observations and the way to
  the goal, which it does not offer by itself.

Runs that are not there by `--steps` have no seconds. Rows go to `results/seconds_to_solve.csv`, the
medians and the machine to the JSON file beside it.
"""

from __future__ import annotations

import argparse
import datetime
import functools
import json
import logging
import os
import shlex
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import ray
import torch
from her_against_sb3 import Normalize, SameInputs
from stable_baselines3 import SAC, HerReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv

from rllib_odac import ODACConfig, make_env
from rllib_odac.agent.networks import RunningNormalizer
from rllib_odac.experiments.study_runner import cpu_model
from rllib_odac.runtime.cluster import join_or_start
from rllib_odac.runtime.evaluator import held_out_seeds

ENV, SUCCESS, EVERY, EPISODES, FIRST = "FetchReach-v4", 0.95, 250, 40, 500
Row = dict[str, Any]


class Clock:
    """Seconds since it was made or started, those while it stands still left out."""

    def __init__(self) -> None:
        self.total = self.training = 0.0
        self._since: float | None = time.perf_counter()
        self._trains = False

    def start(self) -> None:
        """From here on training counts."""
        self.stop()
        self._since, self._trains = time.perf_counter(), True

    def stop(self) -> None:
        """Nothing counts until it is started again."""
        if self._since is not None:
            passed = time.perf_counter() - self._since
            self.total += passed
            self.training += passed if self._trains else 0.0
        self._since = None


def solve_ours(seed: int, steps: int, **settings: Any) -> Row:
    """ODAC at its defaults but for these settings, until it is solved."""
    clock = Clock()
    join_or_start("local", num_cpus=1, log_to_driver=False, logging_level=logging.ERROR)
    config = ODACConfig().environment(ENV).debugging(seed=seed, log_level="ERROR")
    config.apply_settings(settings)
    config.evaluation(evaluation_interval=None)
    config.reporting(min_sample_timesteps_per_iteration=EVERY)
    algorithm = config.build_algo()
    success = 0.0
    while success < SUCCESS and algorithm.env_steps < steps:
        clock.start()
        algorithm.train()
        clock.stop()
        if algorithm.updates:
            success = algorithm.evaluate_held_out(EPISODES)["success_rate"]
    row = _row(success, algorithm.env_steps, algorithm.updates, clock)
    algorithm.stop()
    ray.shutdown()
    return row


class UntilSolved(BaseCallback):
    """Ends training with the first evaluation that is good enough."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock
        self.success = 0.0
        self.env: Any = make_env(ENV)

    def _on_training_start(self) -> None:
        self.clock.start()

    def _on_step(self) -> bool:
        if self.num_timesteps % EVERY or self.model._n_updates == 0:
            return True
        self.clock.stop()
        self.success = self._evaluate()
        self.clock.start()
        return self.success < SUCCESS

    def _evaluate(self) -> float:
        successes = []
        for seed in held_out_seeds(EPISODES):
            state, info = self.env.reset(seed=seed)
            truncated = False
            while not truncated:
                action, _ = self.model.predict(state, deterministic=True)
                state, _, _, truncated, info = self.env.step(action)
            successes.append(info["is_success"])
        return float(np.mean(successes))


def solve_theirs(seed: int, steps: int, same_inputs: bool = False) -> Row:
    """Stable-Baselines3's SAC with `HerReplayBuffer`, until it is solved."""
    clock = Clock()
    probe: Any = make_env(ENV)
    policy: dict[str, Any] = {"net_arch": [256, 256]}
    callbacks: list[BaseCallback] = [UntilSolved(clock)]
    if same_inputs:
        goals = np.stack([probe.reset(seed=i)[0]["desired_goal"] for i in range(100)])
        normalizer = RunningNormalizer(probe.observation_space["observation"].shape[0])
        policy["features_extractor_class"] = SameInputs
        policy["features_extractor_kwargs"] = {
            "normalizer": normalizer,
            "center": goals.mean(0),
            "scale": np.sqrt(3) * goals.std(0).max(),
        }
        callbacks.append(Normalize(normalizer))
    model = SAC(
        "MultiInputPolicy",
        DummyVecEnv([functools.partial(make_env, ENV)]),
        replay_buffer_class=HerReplayBuffer,
        replay_buffer_kwargs={"n_sampled_goal": 4, "goal_selection_strategy": "future"},
        policy_kwargs=policy,
        learning_rate=1e-3,
        gamma=0.95,
        ent_coef=0.05,
        tau=0.05,
        batch_size=256,
        learning_starts=FIRST,
        train_freq=1,
        gradient_steps=1,
        seed=seed,
        device="cpu",
    )
    model.learn(steps, callback=callbacks)
    clock.stop()
    return _row(callbacks[0].success, model.num_timesteps, model._n_updates, clock)  # type: ignore[attr-defined]


def _row(success: float, env_steps: int, updates: int, clock: Clock) -> Row:
    seconds: Row = {"train_s": clock.training, "total_s": clock.total}
    if success < SUCCESS:
        seconds = dict.fromkeys(seconds)
    return {"success_rate": success, "env_steps": env_steps, "updates": updates} | seconds


CONTESTANTS = {
    "rllib_odac": solve_ours,
    "stable_baselines3": solve_theirs,
    "stable_baselines3_same_inputs": functools.partial(solve_theirs, same_inputs=True),
}


def summarize(rows: pd.DataFrame) -> Row:
    """Medians of each, and of theirs against ours, seed by seed; one that is not there is last."""
    never = rows.assign(**rows[["train_s", "total_s"]].fillna(np.inf))
    by_seed = {name: part.set_index("seed") for name, part in never.groupby("library")}
    ours = by_seed["rllib_odac"]
    summary: Row = {}
    for name, part in by_seed.items():
        summary[name] = {
            "solved": f"{int((part['success_rate'] >= SUCCESS).sum())} of {len(part)}",
            "env_steps": float(part["env_steps"].median()),
            **{column: float(part[column].median()) for column in ("train_s", "total_s")},
            **{
                f"{column} / ours": float((part[column] / ours[column]).median())
                for column in ("train_s", "total_s")
            },
        }
    return summary


def main() -> None:
    """Makes the runs, and writes what they took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2, 3, 4])
    parser.add_argument("--steps", type=int, default=12_000)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    load = os.getloadavg()
    rows: list[Row] = []
    path = arguments.output / "seconds_to_solve.csv"
    for seed in arguments.seeds:
        for library, solve in CONTESTANTS.items():
            rows.append({"library": library, "seed": seed} | solve(seed, arguments.steps))
            print(rows[-1], flush=True)
            pd.DataFrame(rows).round(3).to_csv(path, index=False)
    report = {
        "command": shlex.join(["python", *sys.argv]),
        "date": f"{datetime.datetime.now():%Y-%m-%d %H:%M}",
        "machine": {"cpu": cpu_model(), "cores": os.cpu_count(), "load_before": load},
        "versions": {name: version(name) for name in ("torch", "ray", "stable-baselines3")},
        "median": summarize(pd.DataFrame(rows)),
    }
    path.with_suffix(".json").write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report["median"], indent=2))


if __name__ == "__main__":
    main()
