"""One update of this checkout beside that of another one, taking turns in one run.

    git worktree add ../before ff4bbbb
    python benchmarks/against_revision.py --before ../before

Each side is a process with its own checkout on its path. Both fill a replay with the same made-up
episodes of FetchPush's shapes and make updates of 256 transitions, one side at a time.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import subprocess
import sys
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).parents[1]
CHILD = """
import sys, time
import gymnasium as gym, numpy as np, torch
from ray.rllib.core import DEFAULT_MODULE_ID
from rllib_odac import GoalEpisode, ODACConfig

box = lambda n, bound=np.inf: gym.spaces.Box(-bound, bound, (n,), np.float32)
observation = gym.spaces.Dict(observation=box(25), achieved_goal=box(3), desired_goal=box(3))
config = ODACConfig().debugging(seed=0, log_level="ERROR").training(objective=sys.argv[1])
config.goal_scale = 0.15
config.success_distance = 0.05
learner = config.build_learner(spaces={DEFAULT_MODULE_ID: (observation, box(4, 1))})
rng = np.random.default_rng(0)
episodes = []
for _ in range(200):
    achieved = rng.normal(scale=0.02, size=(51, 3)).cumsum(0).astype(np.float32)
    goal = np.broadcast_to(rng.uniform(-0.15, 0.15, (1, 3)).astype(np.float32), (51, 3))
    states = rng.normal(size=(51, 25)).astype(np.float32)
    episodes.append(GoalEpisode(states, achieved, goal, rng.uniform(-1, 1, (50, 4)).astype("f4")))
learner.update(episodes=episodes, num_updates=200)
print("ready", flush=True)
for line in sys.stdin:
    start = time.perf_counter()
    learner.update(num_updates=int(line))
    print(1e3 * (time.perf_counter() - start) / int(line), flush=True)
"""


def revision_of(checkout: Path) -> str:
    """The revision that a checkout is at, in short."""
    command = ["git", "-C", str(checkout), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def start(checkout: Path, objective: str) -> subprocess.Popen[str]:
    """A process with a learner of that checkout, which makes as many updates as it reads."""
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD, objective],
        env=os.environ | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": "1"},
        cwd=checkout,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    while process.stdout.readline() != "ready\n":
        assert process.poll() is None, f"the learner of {checkout} did not start"
    return process


def measure(process: subprocess.Popen[str], updates: int) -> float:
    """Milliseconds of one update, the mean of some."""
    assert process.stdin is not None
    assert process.stdout is not None
    print(updates, file=process.stdin, flush=True)
    return float(process.stdout.readline())


def main() -> None:
    """Measures, writes the rows and prints the medians and the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", type=Path, required=True, help="the other checkout")
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--updates", type=int, default=160, help="of each side in a round")
    parser.add_argument("--objectives", nargs="+", default=["odac", "her", "uvd", "discern"])
    parser.add_argument(
        "--output", type=Path, default=ROOT / "benchmarks/results/against_revision.csv"
    )
    options = parser.parse_args()
    checkouts = {"before": options.before.absolute(), "now": ROOT}
    revisions = {name: revision_of(checkout) for name, checkout in checkouts.items()}
    rows = []
    for objective in options.objectives:
        sides = {name: start(checkout, objective) for name, checkout in checkouts.items()}
        for number in range(options.rounds):
            order = list(sides) if number % 2 else list(reversed(sides))
            times = {name: measure(sides[name], options.updates) for name in order}
            rows.append({"objective": objective, "round": number, **times})
        for process in sides.values():
            process.kill()
        table = pd.DataFrame([row for row in rows if row["objective"] == objective])
        ratio = (table["now"] / table["before"]).median()
        print(
            f"{objective}: before {table['before'].median():.2f} ms, now "
            f"{table['now'].median():.2f} ms, median ratio {ratio:.3f}",
            flush=True,
        )
    command = f"python benchmarks/against_revision.py --before CHECKOUT --rounds {options.rounds}"
    table = pd.DataFrame(rows).assign(
        revision_before=revisions["before"],
        revision_now=revisions["now"],
        machine=f"{platform.machine()}, {os.cpu_count()} cores",
        date=datetime.date.today().isoformat(),
        command=command,
    )
    table.round(3).to_csv(options.output, index=False)


if __name__ == "__main__":
    main()
