"""Updates per second from a log that passes through the replay, beside one that fits into it.

    python benchmarks/streaming.py --learners 0      # in this process
    python benchmarks/streaming.py --learners 2      # two remote ones

One log, of FetchPush's shapes (observation 25, goal 3, action 4) and episodes of 50 steps, the
shortest that are usual and thus the dearest to take in. `memory` holds all of it; `streamed` holds
a quarter at a time, at the default `data_reuse`. Both are whole algorithms at their defaults that
learn from the log alone, and take turns within every round; a window of updates is timed after the
replays are filled and some updates are made. Ratios are formed round by round.
"""

from __future__ import annotations

import argparse
import datetime
import logging
import os
import shlex
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet

from rllib_odac import ODACConfig
from rllib_odac.algorithm import ODAC
from rllib_odac.runtime.cluster import join_or_start

STEPS, EPISODES_PER_FILE, BATCH = 50, 400, 256
WIDTHS = {"observation": 25, "achieved_goal": 3, "desired_goal": 3, "actions": 4}
RESULTS = Path(__file__).parent / "results" / "streaming.csv"


def write_log(folder: Path, transitions: int) -> int:
    """Parquet files as `odac record` writes them, with made-up values; returns the states."""
    rng, rows = np.random.default_rng(0), EPISODES_PER_FILE * (STEPS + 1)
    files = max(1, transitions // (EPISODES_PER_FILE * STEPS))
    for number in range(files):
        columns = {
            name: pyarrow.FixedSizeListArray.from_arrays(
                rng.uniform(-1, 1, rows * width).astype(np.float32), width
            ).cast(pyarrow.list_(pyarrow.float32()))
            for name, width in WIDTHS.items()
        }
        columns["episode"] = np.repeat(np.arange(EPISODES_PER_FILE), STEPS + 1)
        pyarrow.parquet.write_table(pyarrow.table(columns), folder / f"{number:04d}.parquet")
    return files * rows


def build(log: Path, capacity: int, learners: int, updates: int) -> ODAC:
    """An algorithm that learns from the log alone, its replays filled and its code warm."""
    config = ODACConfig().offline_data(input_=str(log)).debugging(seed=0, log_level="ERROR")
    config.training(replay_capacity=capacity, train_batch_size_per_learner=BATCH)
    config.learners(num_learners=learners)
    config.reporting(min_sample_timesteps_per_iteration=updates)
    algorithm: ODAC = config.build_algo()
    algorithm.train()
    return algorithm


def main() -> None:
    """Measures and writes the rows of one number of learners; the others' are kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--learners", type=int, default=0)
    parser.add_argument("--transitions", type=int, default=400_000)
    parser.add_argument("--updates", type=int, default=512, help="in a window")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--machine", default=os.uname().machine)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    join_or_start("local", num_cpus=4, logging_level=logging.ERROR)
    each = max(1, options.learners)
    with tempfile.TemporaryDirectory() as folder:
        states = write_log(Path(folder), options.transitions)
        capacities = {"memory": states, "streamed": states // (4 * each)}
        algorithms = {
            name: build(Path(folder), capacity, options.learners, options.updates)
            for name, capacity in capacities.items()
        }
        rows = []
        for number in range(options.rounds):
            for name, algorithm in algorithms.items():
                start = time.perf_counter()
                algorithm.train()
                rate = options.updates / (time.perf_counter() - start)
                rows.append({"round": number, "data": name, "updates_per_s": round(rate, 2)})
        for algorithm in algorithms.values():
            algorithm.stop()
    found = pd.DataFrame(rows)
    rates = found.pivot_table(index="round", columns="data", values="updates_per_s")
    ratio = (rates["streamed"] / rates["memory"]).median()
    print(rates.median().to_string(), f"\nstreamed / memory: {ratio:.3f}")
    found = found.assign(
        learners=options.learners,
        log_states=states,
        replay_states=found["data"].map(capacities),
        machine=options.machine,
        command=shlex.join(["python", "benchmarks/streaming.py", *sys.argv[1:]]),
        date=datetime.date.today().isoformat(),
    )
    if options.out.exists():
        kept = pd.read_csv(options.out)
        found = pd.concat([kept[kept["learners"] != options.learners], found])
    found.to_csv(options.out, index=False)


if __name__ == "__main__":
    main()
