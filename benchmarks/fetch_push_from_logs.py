"""Fetch Push from 200,000 recorded steps, half of them random, and from there to the environment.

    python benchmarks/fetch_push_from_logs.py

A policy is trained for 35,000 steps by another seed, which makes it a middling one; `odac record`
writes 100,000 steps of random actions and 100,000 of this policy, sampled, every third at random.
From this log alone each method makes the same number of updates with each of three seeds; then ODAC
goes on in the environment from the networks it has, half of each batch from the log. A row is the
last evaluation: deterministic actions, 100 goals that training never uses. Started again, it goes
on. Trials are in the same file, of seed 9, called by what they try: weights of cloning, by which
that of the methods was chosen, and several models with a penalty where they disagree.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd

from rllib_odac.experiments.run import Run
from rllib_odac.experiments.spec import RunSpec
from rllib_odac.experiments.study_runner import cpu_model
from rllib_odac.runtime.cluster import join_or_start
from rllib_odac.tuned import tuned_fields

ENV, MEDIUM_SEED, MEDIUM_STEPS = "odac/FetchPush-v0", 100, 35_000
RESULTS = Path(__file__).parent / "results" / "fetch_push_from_logs.csv"
OFFLINE: dict[str, Any] = {"hidden": [128, 128], "offline": True, "relabel_candidates": 16}
# The best weight of cloning of 1, 0.1, 0.03 and 0.01, by seed 9, is the last one for both.
METHODS: dict[str, dict[str, Any]] = {
    "odac": {"bc_weight": 0.01},
    "gciql": {"bc_weight": 0.01},
    "gcbc": {},
}


def make_log(runs: Path, steps: int) -> Path:
    """Records what is not there yet, and puts it into one folder."""
    log = runs / "log"
    if (log / "dataset.json").exists():
        return log
    medium = runs / "medium"
    train = [ENV, f"--steps={MEDIUM_STEPS}", f"--seed={MEDIUM_SEED}", f"--out={medium}"]
    odac("train", *train, *(["--resume"] if medium.exists() else []))
    parts = {
        "random": [],
        "policy": [f"--policy={medium}", "--sample", "--random-share=0.3", "--seed=1"],
    }
    for name, given in parts.items():
        if not (runs / name / "dataset.json").exists():
            shutil.rmtree(runs / name, ignore_errors=True)
            odac("record", ENV, f"--out={runs / name}", f"--steps={steps // 2}", *given)
    log.mkdir(exist_ok=True)
    for name in parts:
        for file in (runs / name).glob("*.parquet"):
            shutil.copy(file, log / f"{name}-{file.name}")
    shutil.copy(runs / "random" / "dataset.json", log)
    return log


def odac(*arguments: str) -> None:
    """Calls the command line."""
    subprocess.run([sys.executable, "-m", "rllib_odac.cli", *arguments], check=True)


def train(spec: RunSpec, out: Path) -> dict[str, Any]:
    """One run, which goes on where it stopped, and what its row says of it."""
    run = Run(spec, out, resume=True, on_row=lambda row: print(out.name, row["success_rate"]))
    run.train()
    progress = pd.read_csv(out / "progress.csv")
    last = progress.iloc[-1]
    return {
        "seed": spec.seed,
        "success_rate": float(last["success_rate"]),
        "final_distance": round(float(last["final_distance"]), 4),
        "normalized_distance": round(float(last["normalized_distance"]), 1),
        "env_steps": 0 if spec.settings.get("offline") else spec.steps,
        "updates": int(last["updates"]),
        "train_s": float(last["wall_s"]),
        "curve": json.dumps([round(float(value), 3) for value in progress["success_rate"]]),
        "settings": json.dumps(spec.settings, sort_keys=True),
        "cpu": cpu_model(),
    }


def offline(method: str, seed: int, given: argparse.Namespace, log: Path) -> RunSpec:
    """A run from the log alone."""
    return RunSpec(
        env=ENV,
        objective=method,
        steps=given.updates,
        seed=seed,
        settings=OFFLINE | METHODS[method] | {"data": str(log)} | given.settings,
        evaluate_every=given.updates // 4,
        checkpoint_every=given.updates // 4,
    )


def online(seed: int, given: argparse.Namespace, log: Path, begin_from: Path) -> RunSpec:
    """A run in the environment, as it is tuned, that begins with what a log has taught."""
    settings = tuned_fields(ENV)["settings"] | {
        "lr": [[0, 1e-3], [given.steps * 4 // 5, 1e-3], [given.steps, 2e-4]],
        "layer_norm": given.settings.get("layer_norm", "none"),
        "num_initial_random_steps": 0,
        "num_steps_before_learning": 0,
        "data": str(log),
        "data_share": 0.5,
        "replay_capacity": 1_000_000,
    }
    return RunSpec(
        env=ENV,
        steps=given.steps,
        seed=seed,
        settings=settings,
        begin_from=str(begin_from),
        evaluate_every=given.steps // 8,
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--method", nargs="*", default=list(METHODS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--recorded", type=int, default=200_000, help="steps of the log")
    parser.add_argument("--updates", type=int, default=15_000)
    parser.add_argument("--steps", type=int, default=10_000, help="in the environment; 0 for none")
    parser.add_argument("--settings", type=json.loads, default={}, help="further ones, as JSON")
    parser.add_argument("--label", default="", help="after the method's name, for a trial")
    parser.add_argument("--runs", type=Path, default=Path("runs/fetch_push_from_logs"))
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    given.runs.mkdir(parents=True, exist_ok=True)
    log = make_log(given.runs, given.recorded)
    join_or_start("local", num_cpus=2)

    def keep(method: str, row: dict[str, Any]) -> None:
        row = {"method": method + given.label, **row}
        rows = pd.read_csv(given.out).to_dict("records") if given.out.exists() else []
        kept = [old for old in rows if any(old[name] != row[name] for name in ("method", "seed"))]
        pd.DataFrame([*kept, row]).to_csv(given.out, index=False)
        print(row, flush=True)

    for seed in given.seeds:
        for method in given.method:
            out = given.runs / f"{method}{given.label}-{seed}"
            keep(method, train(offline(method, seed, given, log), out))
        if given.steps and "odac" in given.method:
            begin_from = given.runs / f"odac{given.label}-{seed}"
            out = given.runs / f"online{given.label}-{seed}"
            keep("odac, then online", train(online(seed, given, log, begin_from), out))


if __name__ == "__main__":
    main()
