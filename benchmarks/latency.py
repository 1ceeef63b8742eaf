"""How long a policy takes to act, on one core: a checkpoint's and every exported format's.

    python benchmarks/latency.py

One observation a call, through `load_policy`, its checks of the observation included; networks with
two hidden layers of 256 and the shapes of FetchPush (observation 25, goal 3, action 4), one thread.
No time depends on what a policy has learned, so it has learned nothing. The contestants take turns
within every round, so that a slow spell of the machine hits all of them. `bare module` is the
PyTorch module alone, without the checks.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import re
import shlex
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from rllib_odac import load_policy
from rllib_odac.agent.networks import RunningNormalizer
from rllib_odac.agent.policies import SquashedGaussianPolicy
from rllib_odac.deploy import FORMATS, export_policy
from rllib_odac.deploy.files import files_of, read_policy
from rllib_odac.deploy.spec import INPUTS, BoxSpec, PolicySpec

OBSERVATION, GOAL, ACTION, HIDDEN = 25, 3, 4, (256, 256)
CALLS = 200  # of each contestant in a round
Act = Callable[[dict[str, Any]], Any]


def untrained_policy(directory: Path) -> None:
    """Writes a policy with first weights, as a checkpoint holds it."""
    spaces = {
        name: BoxSpec((size,), "float32", (None,) * size, (None,) * size)
        for name, size in zip(INPUTS, (OBSERVATION, GOAL, GOAL), strict=True)
    }
    spaces["action"] = BoxSpec((ACTION,), "float32", (-2.0,) * ACTION, (2.0,) * ACTION)
    spec = PolicySpec("FetchPush-v4", "ODACObjective", 0, 0, HIDDEN, spaces)
    torch.manual_seed(0)
    modules = {
        "policy": SquashedGaussianPolicy(OBSERVATION + 2 * GOAL, ACTION, HIDDEN),
        "observation_normalizer": RunningNormalizer(OBSERVATION),
    }
    arrays = {
        f"{module}.{name}": tensor.numpy()
        for module, network in modules.items()
        for name, tensor in network.state_dict().items()
    }
    goals = {"goal_center": np.zeros(GOAL, np.float32), "goal_scale": np.ones((), np.float32)}
    for name, content in files_of(spec, arrays | goals).items():
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).write_bytes(content)


def contestants(checkpoint: Path) -> dict[str, Act]:
    """What acts, by name."""
    _, network = read_policy(checkpoint)

    def bare(observation: dict[str, Any]) -> Any:
        with torch.inference_mode():
            return network(*(torch.from_numpy(observation[name])[None] for name in INPUTS))

    acts: dict[str, Act] = {"bare module": bare, "checkpoint": load_policy(checkpoint)}
    acts["checkpoint, sampled"] = load_policy(checkpoint, sample=True, seed=0)
    for style in FORMATS:
        export_policy(checkpoint, checkpoint / style, style)
        acts[style] = load_policy(checkpoint / style)
    return acts


def measure(acts: dict[str, Act], rounds: int) -> pd.DataFrame:
    """Microseconds a call: median and 99th percentile of each contestant in each round."""
    rng = np.random.default_rng(0)
    sizes = zip(INPUTS, (OBSERVATION, GOAL, GOAL), strict=True)
    observation = {name: rng.standard_normal(size, dtype=np.float32) for name, size in sizes}
    rows = []
    for number in range(-1, rounds):  # the first warms up
        for name, act in acts.items():
            times = []
            for _ in range(CALLS):
                start = time.perf_counter_ns()
                act(observation)
                times.append((time.perf_counter_ns() - start) / 1e3)
            median, slow = np.percentile(times, [50, 99])
            rows.append({"round": number, "policy": name, "median_us": median, "p99_us": slow})
    table = pd.DataFrame(rows).round(1)
    return table[table["round"] >= 0]


def main() -> None:
    """Measures, writes the rows and the medians, and prints them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    load_before = os.getloadavg()
    cpu = re.findall("model name.*: (.*)", Path("/proc/cpuinfo").read_text())[0]
    with tempfile.TemporaryDirectory() as directory:
        untrained_policy(Path(directory))
        table = measure(contestants(Path(directory)), arguments.rounds)
    table.to_csv(arguments.out / "latency.csv", index=False)
    medians = table.groupby("policy", sort=False)[["median_us", "p99_us"]].median().round(1)
    report = {
        "command": shlex.join(["python", "benchmarks/latency.py", *sys.argv[1:]]),
        "date": f"{datetime.datetime.now():%Y-%m-%d %H:%M}",
        "machine": {"cpu": cpu, "threads": 1, "load_before": load_before},
        "versions": {name: version(name) for name in ("torch", "onnxruntime", "numpy")},
        "median_us": medians["median_us"].to_dict(),
        "p99_us": medians["p99_us"].to_dict(),
    }
    (arguments.out / "latency.json").write_text(json.dumps(report, indent=2) + "\n")
    print(medians)


if __name__ == "__main__":
    main()
