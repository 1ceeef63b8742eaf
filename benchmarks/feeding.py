"""How many env runners feed one learner on a GPU: predicted, from an update's time that is assumed.

    python benchmarks/feeding.py        # writes results/scaling/feeding.csv, a minute

Nobody has measured an update on a card for this. So its rate is an assumption: 600, 1,000 and 3,000
updates a second. All other times are measured: an environment step of an env runner
(`results/environments.csv`), what the driver pays for a sample (`results/driver_cost.csv`), the
rest in `results/scaling/scaling.json`. `simulation.py` tells what follows, on cores enough.

For every ratio of updates to environment steps `num_env_runners` is the least number, of those
tried, with which the learner makes 95 % of the updates that it makes with any of them. Each has ten
environments in one thread; with `env_threads` one process does the work of several, as
`vectorised.py` measures. An evaluation is 20 episodes each `evaluate_every` environment steps:

- `evaluators` is how many env runners of their own keep up with that. They hold nothing up: an
  evaluation that is late is left out.
- `updates_per_s_between` is what is left where the driver evaluates instead.

`updates_per_s_of_16` is what the same env runners feed where a call is of 16 updates and samples
are at most 200 ahead, whatever the learner's pace: the rules of a CPU.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import math
from pathlib import Path
from typing import Any

import pandas as pd
from simulation import Services, Setting, Simulation

from rllib_odac.envs.registry import OWN_ENVS

RESULTS = Path(__file__).with_name("results")
RATES = (600, 1000, 3000)  # updates a second, assumed
RATIOS = (1.0, 0.5, 0.25, 0.1)
EVALUATE_EVERY = 5000
EPISODES = 20
ENOUGH = 0.95
TRIED = [*range(1, 17), *range(18, 33, 2), *range(36, 65, 4), 80, 96, 128]


def services_of(env_step: float, update: float) -> Services:
    """Measured times, with these two and the driver's newer ones in their places."""
    known = json.loads((RESULTS / "scaling" / "scaling.json").read_text())["services"]
    driver = pd.DataFrame(json.loads((RESULTS / "driver_cost.json").read_text())["medians"])
    sample = driver[driver["env_runners"] == 64]["thread_us"].iloc[0] / 1e6  # and asking for it
    newer = {"request": 0.0, "sample": sample, "step_per_runner": 0.0}
    return Services(**known | newer | {"env_step": env_step, "update": update})


def feed(env_id: str, env_step: float, rate: float, ratio: float, seconds: float) -> dict[str, Any]:
    """A row."""
    services = services_of(env_step, 1 / rate)

    def run(num_env_runners: int, **rules: Any) -> dict[str, Any]:
        return Simulation(Setting(num_env_runners, 1, ratio, **rules), services).run(seconds)

    most = run(TRIED[-1])
    for number in TRIED:
        found = run(number)
        if found["updates_per_s"] >= ENOUGH * most["updates_per_s"]:
            break
    horizon = OWN_ENVS[env_id]["max_episode_steps"]
    evaluation = EPISODES * horizon * env_step
    between = {"evaluate_every": EVALUATE_EVERY, "evaluation_steps": EPISODES * horizon}
    fixed = run(number, updates_per_call=16, max_weight_lag=200)
    return {
        "env": env_id,
        "env_steps_per_s_of_one": 1 / env_step,
        "assumed_updates_per_s": rate,
        "updates_per_env_step": ratio,
        "num_env_runners": number,
        **found,
        "evaluate_every": EVALUATE_EVERY,
        "evaluators": math.ceil(evaluation * found["env_steps_per_s"] / EVALUATE_EVERY),
        "updates_per_s_between": run(number, **between)["updates_per_s"],
        "updates_per_s_of_16": fixed["updates_per_s"],
        "bottleneck_of_16": fixed["bottleneck"],
    }


def main() -> None:
    """Predicts all of them."""
    parser = argparse.ArgumentParser(description="Predicts how many env runners feed a GPU.")
    families = ["odac/Ant-v0", "odac/FetchPush-v0", "odac/SawyerFaucet-v0", "odac/Box2D-v0"]
    parser.add_argument("--env", nargs="*", choices=list(OWN_ENVS), default=families)
    parser.add_argument("--seconds", type=float, default=20.0, help="simulated in each point")
    parser.add_argument("--output", type=Path, default=RESULTS / "scaling")
    options = parser.parse_args()
    measured = pd.read_csv(RESULTS / "environments.csv")
    speed = measured[measured["what"] == "runner"].groupby("env")["steps_per_s"].median()
    rows = []
    for env_id, rate, ratio in itertools.product(options.env, RATES, RATIOS):
        rows.append(feed(env_id, 1 / speed[env_id], rate, ratio, options.seconds))
        table = pd.DataFrame(rows).round(2)
        table.to_csv(options.output / "feeding.csv", index=False)
        print(table.tail(1).to_string(index=False, header=len(rows) == 1), flush=True)
    services = dataclasses.asdict(services_of(0.0, 0.0))
    report = {"seconds": options.seconds, "services": services, "assumed": {"updates/s": RATES}}
    (options.output / "feeding.json").write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
