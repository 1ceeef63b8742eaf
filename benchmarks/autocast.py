"""What bfloat16 products do to the time of an update: `autocast` and `matmul_precision`.

    python benchmarks/autocast.py                  # on a CPU, one thread
    python benchmarks/autocast.py --device cuda    # captured updates

Updates of the learner with FetchPush's shapes, sampling and relabelling included; the contestants
take turns in every round. `ratio` is the time of `float32` in the same round over that of its row.
"""

from __future__ import annotations

import argparse
import datetime
import time
from pathlib import Path

import pandas as pd
import torch
from gpu import finish, make_learner

from rllib_odac.experiments.study_runner import cpu_model

CONTESTANTS = {
    "float32": {},
    "medium": {"matmul_precision": "medium"},
    "autocast": {"autocast": "bfloat16"},
}
SIZES = [(256, [256, 256]), (1024, [256, 256])]
SIZES_OF_A_GPU = [(256, [256, 256]), (4096, [256, 256]), (4096, [1024, 1024])]


def main() -> None:
    """Measures every size."""
    parser = argparse.ArgumentParser(description="The time of updates with bfloat16 products.")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of a contestant in a round")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("results"))
    options = parser.parse_args()
    device = torch.device(options.device)
    torch.set_num_threads(1)
    is_gpu = device.type == "cuda"
    machine = {
        "device": torch.cuda.get_device_name(device) if is_gpu else cpu_model(),
        "date": datetime.date.today().isoformat(),
    }
    rows = []
    for batch, hidden in SIZES_OF_A_GPU if is_gpu else SIZES:
        learners = {
            name: make_learner(
                device, batch, "captured" if is_gpu else "eager", hidden=hidden, **settings
            )
            for name, settings in CONTESTANTS.items()
        }
        updates = 160 if is_gpu else 1
        for index in range(-1, options.rounds):
            times = {}
            for name, learner in learners.items():
                finish(device)
                start, made = time.perf_counter(), 0
                while made == 0 or time.perf_counter() < start + options.seconds:
                    learner.update(num_updates=updates)
                    made += updates
                finish(device)
                times[name] = 1000 * (time.perf_counter() - start) / made
            for name, milliseconds in times.items() if index >= 0 else ():  # it warmed up
                row = {"what": name, "batch": batch, "hidden": hidden[0], "round": index}
                row |= {"ms": round(milliseconds, 3)}
                row |= {"ratio": round(times["float32"] / milliseconds, 3)}
                rows.append(row | machine)
        table = pd.DataFrame(rows)
        name = "autocast_gpu.csv" if is_gpu else "autocast.csv"
        table.to_csv(options.output / name, index=False)
    print(table.groupby(["batch", "hidden", "what"], sort=False)[["ms", "ratio"]].median())


if __name__ == "__main__":
    main()
