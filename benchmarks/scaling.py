"""How fast training is on a cluster, and what holds it up first: predicted from measured times.

    python benchmarks/scaling.py                                # measures, then predicts
    python benchmarks/scaling.py --services benchmarks/results/scaling/scaling.json   # predicts
    python benchmarks/scaling.py --check benchmarks/results/scaling/measured.csv

What every piece of work takes is measured first, on this machine: by env runner and learner alone
in this process, and by the driver's thread in a real training with two learners. `simulation.py`
tells what follows, with its assumptions; a cluster has cores enough, a check the cores of the
machine that was measured.

A point's bottleneck is what is busy for the largest share of the time; `lag limit` where nothing is
for 90 % of it and requests were held back.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import logging
import os
import re
import shlex
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
import ray
import torch
from ray.rllib.core import COMPONENT_RL_MODULE, DEFAULT_MODULE_ID
from simulation import DRIVER, ENV_RUNNERS, LAG_LIMIT, LEARNERS, Services, Setting, Simulation

from rllib_odac import ODACConfig
from rllib_odac.env_runner import GoalEnvRunner
from rllib_odac.runtime.learner_calls import _update, wait
from rllib_odac.runtime.pace import UPDATES_PER_CALL

RESULTS = Path(__file__).parent / "results" / "scaling"

# Measuring ----------------------------------------------------------------------------------------


def measure(env: str, seconds: float) -> Services:
    """What the pieces of work take here, each measured for so many seconds."""
    config = ODACConfig().environment(env).debugging(seed=0, log_level="ERROR")
    config.evaluation(evaluation_interval=None)
    alone, update = measure_alone(config, seconds)
    remote = config.copy(copy_frozen=False).env_runners(num_env_runners=1)
    remote.training(updates_per_env_step=0.02)  # messages of all kinds, and often
    algorithm = remote.learners(num_learners=2).build_algo()
    driver = measure_driver(algorithm, seconds)

    runner = algorithm.env_runner_group._worker_manager.actors()[1]
    fragments = int(2 * seconds / (alone["env_step"] * algorithm._training._fragment))
    busy = runner.apply.remote(lambda runner: [len(runner.sample()) for _ in range(fragments)])
    crowding = max(1.0, _mean(update, seconds) / (alone["update"] * UPDATES_PER_CALL))
    ray.get(busy)
    learning = algorithm._training.calls
    for _ in range(2):  # the first sets things up
        learning.call([[], []], 0, 5 * UPDATES_PER_CALL, {})
        [answered] = learning.collect(wait(learning.references, None, 2))
    together = max(each.seconds for each in answered.results) / answered.num_updates
    algorithm.stop()
    all_reduce = max(0.0, together / crowding - alone["update"])
    return Services(**alone, **driver, all_reduce=all_reduce, crowding=crowding)


def measure_alone(
    config: ODACConfig, seconds: float
) -> tuple[dict[str, float], Callable[[], None]]:
    """Work of env runners and learners, made in this process; and a call of the learner."""
    runner = GoalEnvRunner(config=config, worker_index=0)
    spaces = {DEFAULT_MODULE_ID: runner.get_spaces()[DEFAULT_MODULE_ID]}
    learner = config.build_learner(spaces=spaces)
    episodes = runner.sample(num_episodes=2 * config.num_envs_per_env_runner)
    transitions, reference = sum(map(len, episodes)), ray.put(episodes)
    module = f"{COMPONENT_RL_MODULE}/{DEFAULT_MODULE_ID}"

    def call(shard: list[Any], num_updates: int) -> None:
        result = _update(learner, [shard], num_updates, {}, False)
        if isinstance(result, Exception):
            raise result

    def publish() -> dict[str, Any]:
        weights = learner.get_state(components=[module], inference_only=True)
        weights[COMPONENT_RL_MODULE] = ray.put(weights[COMPONENT_RL_MODULE])
        return weights

    def fetch() -> None:
        runner.forget_weights_version()
        runner.set_state(weights)

    store = _mean(lambda: call([reference], 0), seconds)
    nothing = _mean(lambda: call([], 0), seconds)
    call([], UPDATES_PER_CALL)  # the first sets things up
    update = _mean(lambda: call([], UPDATES_PER_CALL), seconds)
    weights = publish()
    before, start = runner.env_steps, time.perf_counter()
    _mean(runner.sample, seconds)
    pieces = {
        "env_step": (time.perf_counter() - start) / (runner.env_steps - before),
        "fetch": _mean(fetch, seconds),
        "update": (update - nothing) / UPDATES_PER_CALL,
        "store": (store - nothing) / transitions,
        "learner_call": nothing,
        "publish": _mean(publish, seconds),
    }
    return pieces, lambda: call([], UPDATES_PER_CALL)


def measure_driver(algorithm: Any, seconds: float) -> dict[str, float]:
    """CPU time of the driver's thread in asynchronous training, by what it was spent on."""
    while not algorithm._training._replay_ready:
        algorithm.training_step()
    spent, counts = Counter[str](), Counter[str]()

    def watch(owner: Any, name: str) -> None:
        function = getattr(owner, name)

        def watched(*args: Any, **kwargs: Any) -> Any:
            start = time.thread_time()
            result = function(*args, **kwargs)
            spent[name] += time.thread_time() - start
            counts[name] += 1
            return result

        setattr(owner, name, watched)

    watch(algorithm, "training_step")
    for name in ("_request", "_add", "_take_results"):
        watch(algorithm._training, name)
    watch(algorithm._training.requests, "collect")
    watch(algorithm._training.calls, "call")
    steps, end = algorithm.env_steps, time.perf_counter() + 5 * seconds
    while time.perf_counter() < end or counts["_request"] < 20:
        algorithm.training_step()
    samples = (algorithm.env_steps - steps) / algorithm._training._fragment
    whole = spent.pop("training_step")
    learners = len(algorithm._training._shards)
    pieces = {
        "request": spent["_request"] / counts["_request"],
        "sample": (spent["take"] + spent["_add"]) / samples,
        "call": spent["call"] / counts["call"] / learners,
        "answer": spent["_take_results"] / counts["call"] / learners,
        "step": (whole - spent.total()) / counts["training_step"],
    }
    algorithm.drain()
    return pieces


def _mean(
    call: Callable[[], Any], seconds: float, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Seconds of a call, called for so many seconds, three times at least."""
    calls, start = 0, clock()
    while calls < 3 or clock() < start + seconds:
        call()
        calls += 1
    return (clock() - start) / calls


# Predicting ---------------------------------------------------------------------------------------


def predict(services: Services, options: argparse.Namespace) -> pd.DataFrame:
    """Every number of env runners with every number of learners, on cores enough."""
    points = itertools.product(options.ratios, options.learners, options.runners)
    rows = []
    for ratio, learners, runners in points:
        setting = Setting(runners, learners, ratio, max_weight_lag=options.max_weight_lag)
        row = {
            "updates_per_env_step": ratio,
            "num_learners": learners,
            "num_env_runners": runners,
            "max_weight_lag": options.max_weight_lag,
        }
        rows.append(row | Simulation(setting, services).run(options.seconds))
    return pd.DataFrame(rows)


def check(services: Services, measured: pd.DataFrame, seconds: float) -> pd.DataFrame:
    """Predictions beside the medians of what `pipeline.py` measured."""
    setting = ["sweep", "mode", "updates_per_env_step", "num_env_runners", "num_learners", "cores"]
    measured = measured[measured["num_env_runners"].notna()]  # not the updates alone
    rates = ["trained_steps_per_s", "updates_per_s"]
    rows = []
    for key, table in measured.groupby(setting):
        row = dict(zip(setting, key, strict=True))
        simulation = Simulation(
            Setting(
                int(row["num_env_runners"]),
                int(row["num_learners"]),
                row["updates_per_env_step"],
                asynchronous=row["mode"] != "sync",
                cores=int(row["cores"]),
            ),
            services,
        )
        prediction = simulation.run(seconds)
        steps, updates = table[rates].median()
        row["measured_steps_per_s"], row["measured_updates_per_s"] = steps, updates
        row["predicted_steps_per_s"] = prediction["env_steps_per_s"]
        row["predicted_updates_per_s"] = prediction["updates_per_s"]
        row["predicted / measured"] = prediction["env_steps_per_s"] / steps
        rows.append(row)
    return pd.DataFrame(rows)


def draw(table: pd.DataFrame, path: Path) -> None:
    """Environment steps per second over env runners, a panel for every ratio of updates."""
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    colors = {ENV_RUNNERS: "tab:green", LEARNERS: "tab:blue"}
    colors |= {DRIVER: "tab:red", LAG_LIMIT: "tab:orange"}
    markers = dict(zip(table["num_learners"].unique(), "osD^v<>P", strict=False))
    panels = list(table.groupby("updates_per_env_step", sort=False))
    size = (1 + 2.6 * len(panels), 3.6)
    figure, axes = plt.subplots(
        1, len(panels), figsize=size, sharey=True, squeeze=False, layout="constrained"
    )
    for axis, (ratio, panel) in zip(axes[0], panels, strict=True):
        for learners, line in panel.groupby("num_learners"):
            x, y = line["num_env_runners"], line["env_steps_per_s"]
            axis.plot(x, y, color="lightgray", zorder=1)
            color = line["bottleneck"].map(colors)
            axis.scatter(x, y, 18, color, marker=markers[learners], zorder=2)
        axis.set(xscale="log", yscale="log", xlabel="env runners")
        axis.set_title(f"{ratio:g} updates per step", fontsize=10)
        axis.grid(alpha=0.3)
    axes[0][0].set_ylabel("environment steps per second")
    for name in table["bottleneck"].unique():
        axes[0][0].scatter([], [], 18, colors[name], label=f"held up by {name}")
    for learners, marker in markers.items():
        axes[0][0].scatter([], [], 18, "gray", marker=marker, label=f"learners: {learners}")
    figure.legend(loc="outside lower center", ncols=len(markers), fontsize=8, frameon=False)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description="Predicts training on a cluster by simulation.")
    parser.add_argument("--env", default="odac/FetchPush-v0")
    parser.add_argument("--services", type=Path, help="scaling.json to take instead of measuring")
    parser.add_argument("--check", type=Path, metavar="CSV", help="of pipeline.py")
    parser.add_argument("--seconds", type=float, default=60.0, help="simulated in each point")
    parser.add_argument("--measured-seconds", type=float, default=5.0, help="of each service")
    parser.add_argument("--ratios", type=float, nargs="*", default=[0.5, 0.05, 0.005, 0.0005])
    runners = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000]
    parser.add_argument("--runners", type=int, nargs="*", default=runners)
    parser.add_argument("--learners", type=int, nargs="*", default=[1, 2, 4, 8])
    parser.add_argument("--max-weight-lag", type=int, default=200)
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    options.output.mkdir(parents=True, exist_ok=True)
    if options.services:
        services = Services(**json.loads(options.services.read_text())["services"])
    else:
        torch.set_num_threads(1)
        logging.disable(logging.WARNING)
        load = os.getloadavg()
        ray.init("local", num_cpus=8, include_dashboard=False, log_to_driver=False)
        services = measure(options.env, options.measured_seconds)
        ray.shutdown()
        cpu = re.findall("model name.*: (.*)", Path("/proc/cpuinfo").read_text())[0]
        report = {
            "command": shlex.join(["python", *sys.argv]),
            "date": f"{datetime.datetime.now():%Y-%m-%d %H:%M}",
            "machine": {"cpu": cpu, "cores": len(os.sched_getaffinity(0)), "load_before": load},
            "env": options.env,
            "services": asdict(services),
        }
        (options.output / "scaling.json").write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(asdict(services), indent=2))
    if options.check:
        measured = pd.read_csv(options.check)
        measured = measured[measured["env"] == options.env]
        table = check(services, measured, options.seconds)
        table.round(4).to_csv(options.output / "scaling_check.csv", index=False)
        print(table.to_string(index=False, float_format="%.4g"))
        return
    table = predict(services, options)
    table.round(4).to_csv(options.output / "scaling.csv", index=False)
    print(table.to_string(index=False, float_format="%.4g"))
    draw(table, options.output / "scaling.png")


if __name__ == "__main__":
    main()
