"""What several models of p_ψ cost: the time of an update with 1, 3 and 5 of them.

    python benchmarks/dynamics_ensemble.py

Updates of the learner with FetchPush's shapes, batch 256, 2 × 256 units, one thread, sampling and
relabelling included; the contestants take turns in every round. `ms` is CPU time of the thread,
which leaves out what other processes take; `ratio` is that of a row over one model's in the round.
"""

from __future__ import annotations

import argparse
import datetime
import time
from pathlib import Path

import pandas as pd
import torch
from gpu import make_learner

from rllib_odac.experiments.study_runner import cpu_model

MEMBERS = (1, 3, 5)


def main() -> None:
    """Measures, writes the rows and prints the medians."""
    parser = argparse.ArgumentParser(description="The time of updates with several models.")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--updates", type=int, default=48, help="of each in a round")
    results = Path(__file__).with_name("results")
    parser.add_argument("--output", type=Path, default=results / "dynamics_ensemble.csv")
    options = parser.parse_args()
    torch.set_num_threads(1)
    learners = {
        members: make_learner(
            torch.device("cpu"), 256, "eager", hidden=[256, 256], dynamics_members=members
        )
        for members in MEMBERS
    }
    rows = []
    for index in range(-1, options.rounds):
        times = {}
        for members, learner in learners.items():
            start = time.thread_time()
            learner.update(num_updates=options.updates)
            times[members] = 1000 * (time.thread_time() - start) / options.updates
        for members, milliseconds in times.items() if index >= 0 else ():  # it warmed up
            row = {"members": members, "round": index, "ms": round(milliseconds, 3)}
            rows.append(row | {"ratio": round(milliseconds / times[1], 3)})
    table = pd.DataFrame(rows).assign(cpu=cpu_model(), date=datetime.date.today().isoformat())
    table.to_csv(options.output, index=False)
    print(table.groupby("members")[["ms", "ratio"]].median())


if __name__ == "__main__":
    main()
