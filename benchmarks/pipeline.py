"""Training end to end: whether sampling and learning fill the machine, and what the driver pays.

    python benchmarks/pipeline.py                    # all sweeps
    python benchmarks/pipeline.py --sweep balance    # one of them; the others' results are kept
    python benchmarks/pipeline.py --quick            # whether it runs; its figures mean nothing

Whole `ODAC` algorithms at their defaults, one thread in each process, driven by `training_step`, as
`train()` does between two reports. A window begins after a quarter of its length has gone by, and
ends with the first step after its time.

`balance`: one remote env runner, and the learner in the driver. For every number of updates per
environment step, asynchronous and synchronous training take turns within every round, next to

- `sampling alone`: the same without updates, and
- `updates alone`: `ODACTorchLearner.update` on a filled replay, and nothing else.

No training can be faster than the slower of these two, `bound`. `trained_steps_per_s` are steps
that were collected and whose updates were made, the lesser of the two: what sampling is ahead by in
the end does not count. `learner_share` is the part of the time in which the learner worked. All
algorithms live through all rounds and are drained before another one's turn.

`growth`: every number of env runners with every number of learners, at one ratio of updates.

- `driver_cpu_s_per_1000_steps`: user and system time of the driver process with all its threads,
  Ray's included, but not of Ray's own processes. With remote learners it must stay flat.
- `received_bytes_per_step`, `sent_bytes_per_step`: everything that the driver's Ray client
  deserialises and serialises: results of calls with the references and metrics in them, arguments
  of calls, objects that it puts or gets. Taken where Ray does it, frames around them excluded.
- `episode_bytes_per_step`: the arrays of all `GoalEpisode`s unpickled in the driver. Where the
  learner is the driver this is how episodes reach the replay; with remote learners it must be 0.
- `replay_bytes_per_transition`: what a replay has allocated, by its capacity.

`evaluation`: one remote env runner and the learner in the driver, asynchronous, with an evaluation
of 20 episodes each `--evaluate-every` steps: `beside` by an env runner of its own, `between` by the
driver, which does nothing else meanwhile, next to `none`. `evaluations` ended in the window.
"""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import logging
import math
import os
import re
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import ray
import torch
from ray._private.serialization import SerializationContext

from rllib_odac import ODAC, GoalEpisode, ODACConfig
from rllib_odac.learner import ODACTorchLearner
from rllib_odac.runtime.pace import UPDATES_PER_CALL

SAMPLING, UPDATES = "sampling alone", "updates alone"
SETTING = ["mode", "updates_per_env_step", "num_env_runners", "num_learners"]
Row = dict[str, Any]


class Traffic:
    """Bytes that this process, no other, passes through Ray from now on."""

    def __init__(self) -> None:
        self.received = self.sent = self.episodes = 0
        serialize = SerializationContext.serialize
        deserialize = SerializationContext._deserialize_object

        def counting_serialize(context: Any, value: Any) -> Any:
            serialized = serialize(context, value)
            self.sent += serialized.total_bytes
            return serialized

        def counting_deserialize(context: Any, data: Any, *rest: Any) -> Any:
            self.received += 0 if data is None else memoryview(data).nbytes
            return deserialize(context, data, *rest)

        def counting_setstate(episode: GoalEpisode, state: tuple[None, dict[str, Any]]) -> None:
            for name, value in state[1].items():
                setattr(episode, name, value)
                self.episodes += getattr(value, "nbytes", 0)

        SerializationContext.serialize = counting_serialize
        SerializationContext._deserialize_object = counting_deserialize
        GoalEpisode.__setstate__ = counting_setstate


def build(
    env: str,
    mode: str,
    updates_per_env_step: float,
    num_env_runners: int,
    num_learners: int,
    evaluators: int | None = None,
) -> ODAC:
    """An algorithm that learns already, with nothing under way."""
    config = ODACConfig().environment(env).debugging(seed=0, log_level="ERROR")
    config.env_runners(num_env_runners=num_env_runners).learners(num_learners=num_learners)
    asynchronous = False if mode == "sync" else "auto"
    config.training(updates_per_env_step=updates_per_env_step, asynchronous=asynchronous)
    config.evaluation(evaluation_interval=None if evaluators is None else 1)
    algorithm = config.evaluation(evaluation_num_env_runners=evaluators or 0).build_algo()
    while not algorithm._training._replay_ready:
        algorithm.training_step()
    algorithm.drain()
    return algorithm


def measure(
    algorithm: ODAC, seconds: float, traffic: Traffic, evaluate_every: float = math.inf
) -> Row:
    """Rates over a window of training."""

    def counts() -> dict[str, float]:
        return {
            "seconds": time.perf_counter(),
            "steps": algorithm.env_steps,
            "updates": algorithm.updates,
            "learner": algorithm.metrics.peek("learner_seconds", default=0.0),
            "driver": time.process_time(),
            "received": traffic.received,
            "sent": traffic.sent,
            "episodes": traffic.episodes,
        }

    _train(algorithm, seconds / 4, evaluate_every)
    before = counts()
    _train(algorithm, seconds, evaluate_every)
    made = {name: value - before[name] for name, value in counts().items()}
    algorithm.metrics.reduce()  # as `train()` does; else they would pile up
    passed, steps, ratio = made["seconds"], made["steps"], algorithm.config.updates_per_env_step
    trained = min(steps, made["updates"] / ratio) if ratio else steps
    return {
        "seconds": passed,
        "env_steps_per_s": steps / passed,
        "updates_per_s": made["updates"] / passed,
        "trained_steps_per_s": trained / passed,
        "learner_share": made["learner"] / passed,
        "driver_cpu_s_per_1000_steps": 1000 * made["driver"] / steps,
        "received_bytes_per_step": made["received"] / steps,
        "sent_bytes_per_step": made["sent"] / steps,
        "episode_bytes_per_step": made["episodes"] / steps,
    }


def _train(algorithm: ODAC, seconds: float, evaluate_every: float) -> None:
    end, steps = time.perf_counter() + seconds, algorithm.env_steps
    evaluated = steps
    while time.perf_counter() < end or algorithm.env_steps == steps:
        algorithm.training_step()
        if algorithm.env_steps - evaluated >= evaluate_every:
            algorithm._run_one_evaluation()  # as `train()` does
            evaluated = algorithm.env_steps


def measure_updates(learner: ODACTorchLearner, seconds: float) -> Row:
    """Updates per second of a learner that nobody disturbs."""
    updates, start = 0, time.perf_counter()
    while (passed := time.perf_counter() - start) < seconds:
        learner.update(num_updates=UPDATES_PER_CALL)
        updates += UPDATES_PER_CALL
    return {"seconds": passed, "updates_per_s": updates / passed}


def replay_bytes(learner: ODACTorchLearner) -> float:
    """Allocated bytes per state that the replay has room for."""
    replay = learner.replay
    columns = [value for value in vars(replay).values() if isinstance(value, torch.Tensor)]
    return sum(c.nbytes for c in columns if len(c) == replay.capacity) / replay.capacity


def sweep_balance(options: argparse.Namespace, traffic: Traffic) -> Iterator[Row]:
    """Rows of one env runner and the local learner, round by round."""
    settings = [(SAMPLING, 0.0)]
    settings += [(mode, ratio) for ratio in options.ratios for mode in ("async", "sync")]
    algorithms = {setting: build(options.env, *setting, 1, 0) for setting in settings}
    learner = algorithms[settings[-1]].learner_group._learner
    for index in range(options.rounds):
        row = {"round": index, "mode": UPDATES, "num_learners": 0, "updates_per_env_step": 0.0}
        yield row | measure_updates(learner, options.seconds)
        for (mode, ratio), algorithm in algorithms.items():
            row = {"mode": mode, "updates_per_env_step": ratio, "num_env_runners": 1}
            yield (
                row
                | {"round": index, "num_learners": 0}
                | measure(algorithm, options.seconds, traffic)
            )
            algorithm.drain()
    for algorithm in algorithms.values():
        algorithm.stop()


def sweep_growth(options: argparse.Namespace, traffic: Traffic) -> Iterator[Row]:
    """Rows of every number of env runners and learners."""
    for learners, runners in itertools.product(options.learners, options.runners):
        for mode in ("async", "sync") if runners else ("sync",):  # in turns is all that one can do
            row = {"mode": mode, "updates_per_env_step": options.growth_ratio}
            algorithm = build(options.env, *row.values(), runners, learners)
            results = algorithm.learner_group.foreach_learner(replay_bytes)
            row |= {"num_env_runners": runners, "num_learners": learners}
            row |= {"replay_bytes_per_transition": next(result.get() for result in results)}
            for index in range(options.rounds):
                yield row | {"round": index} | measure(algorithm, options.seconds, traffic)
            algorithm.drain()
            algorithm.stop()


def sweep_evaluation(options: argparse.Namespace, traffic: Traffic) -> Iterator[Row]:
    """Rows of one env runner with evaluation and without, round by round."""
    ratio = options.evaluation_ratio
    algorithms = {
        mode: build(options.env, "async", ratio, 1, 0, evaluators)
        for mode, evaluators in (("none", None), ("between", 0), ("beside", 1))
    }
    ended: list[object] = []
    for algorithm in algorithms.values():
        algorithm.on_evaluation = ended.append
    for index, (mode, algorithm) in itertools.product(range(options.rounds), algorithms.items()):
        every = math.inf if mode == "none" else options.evaluate_every
        row = {"round": index, "mode": mode, "updates_per_env_step": ratio}
        before = len(ended)
        row |= measure(algorithm, options.seconds, traffic, every)
        yield row | {"num_env_runners": 1, "num_learners": 0, "evaluations": len(ended) - before}
        algorithm.drain()
    for algorithm in algorithms.values():
        algorithm.stop()


def summarize_evaluation(rows: pd.DataFrame) -> dict[str, Any]:
    """Medians of ratios that were formed round by round."""
    steps = rows.pivot_table(index="round", columns="mode", values="trained_steps_per_s")
    medians = {mode: steps[mode].median() for mode in steps}
    for mode in ("between", "beside"):
        medians[f"{mode} / none"] = (steps[mode] / steps["none"]).median()
    return medians | {"evaluations": rows.groupby("mode")["evaluations"].sum().to_dict()}


def summarize_balance(rows: pd.DataFrame) -> dict[str, Any]:
    """Medians of ratios that were formed round by round, by updates per environment step."""
    by_mode = {mode: table.set_index("round") for mode, table in rows.groupby("mode")}
    sampling = by_mode[SAMPLING]["env_steps_per_s"]
    updates = by_mode[UPDATES]["updates_per_s"]
    summary: dict[str, Any] = {SAMPLING: sampling.median(), UPDATES: updates.median()}
    for ratio, table in rows[rows["updates_per_env_step"] > 0].groupby("updates_per_env_step"):
        modes = {mode: part.set_index("round") for mode, part in table.groupby("mode")}
        async_, sync = (modes[mode]["trained_steps_per_s"] for mode in ("async", "sync"))
        bound = pd.concat([sampling, updates / ratio], axis=1).min(axis=1)
        figures = {
            "async": async_,
            "sync": sync,
            "bound": bound,
            "async / bound": async_ / bound,
            "async / sync": async_ / sync,
            "async, learner_share": modes["async"]["learner_share"],
            "sampling alone / (updates alone / ratio)": sampling / (updates / ratio),
        }
        summary[f"updates_per_env_step={ratio:g}"] = {n: f.median() for n, f in figures.items()}
    return summary


def summarize_growth(rows: pd.DataFrame) -> dict[str, Any]:
    """Medians by setting."""
    medians = rows.drop(columns=["sweep", "round", "seconds"]).groupby(SETTING).median()
    return {
        "{}, {:g} updates/step, {:.0f} env runners, {:.0f} learners".format(*setting): dict(row)
        for setting, row in medians.iterrows()
    }


SWEEPS: dict[str, tuple[Callable[..., Iterator[Row]], Callable[..., dict[str, Any]]]] = {
    "balance": (sweep_balance, summarize_balance),
    "growth": (sweep_growth, summarize_growth),
    "evaluation": (sweep_evaluation, summarize_evaluation),
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Times training end to end.")
    parser.add_argument("--sweep", choices=list(SWEEPS), nargs="*", default=list(SWEEPS))
    parser.add_argument("--env", default="odac/FetchPush-v0")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10.0, help="of a window")
    parser.add_argument("--ratios", type=float, nargs="*", default=[0.1, 0.2, 0.5, 1.0])
    parser.add_argument("--runners", type=int, nargs="*", default=[0, 1, 2, 4, 8])
    parser.add_argument("--learners", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--growth-ratio", type=float, default=0.1, help="updates per step there")
    parser.add_argument("--evaluate-every", type=int, default=2000, help="steps")
    parser.add_argument(
        "--evaluation-ratio", type=float, default=0.5, help="updates per step there"
    )
    parser.add_argument("--quick", action="store_true", help="Box 2D, one short window of each")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("results"))
    options = parser.parse_args()
    if options.quick:
        options.env, options.rounds, options.seconds = "odac/Box2D-v0", 1, 0.5
        options.ratios, options.runners, options.learners = [0.1], [0, 1], [0, 1]
        options.evaluate_every = 100
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    load = os.getloadavg()
    # As many places as there are processes: on few cores they share, and that is what is measured.
    places = 8 + 2 * len(options.ratios) + max(options.runners) + max(options.learners)
    ray.init("local", num_cpus=places, include_dashboard=False, log_to_driver=False)
    traffic = Traffic()

    options.output.mkdir(parents=True, exist_ok=True)
    csv, report = (options.output / f"pipeline.{suffix}" for suffix in ("csv", "json"))
    summaries = json.loads(report.read_text()) if report.exists() else {}
    table = pd.read_csv(csv) if csv.exists() else pd.DataFrame({"sweep": []})
    cpu = re.findall("model name.*: (.*)", Path("/proc/cpuinfo").read_text())[0]
    machine = {"cpu": cpu, "cores": len(os.sched_getaffinity(0))}
    for name in options.sweep:
        sweep, summarize = SWEEPS[name]
        table, rows = table[table["sweep"] != name], []
        for row in sweep(options, traffic):
            rows.append({"sweep": name, "env": options.env} | row | machine)
            print({key: round(v, 4) if isinstance(v, float) else v for key, v in row.items()})
            sys.stdout.flush()
            pd.concat([table, pd.DataFrame(rows)]).round(5).to_csv(csv, index=False)
        table = pd.concat([table, pd.DataFrame(rows)])
        summaries[name] = {
            "command": shlex.join(["python", *sys.argv]),
            "date": f"{datetime.datetime.now():%Y-%m-%d %H:%M}",
            "machine": machine | {"load_before": load},
            "versions": {package: version(package) for package in ("torch", "ray")},
            "env": options.env,
            "median": summarize(pd.DataFrame(rows).drop(columns=["env", *machine])),
        }
        print(json.dumps(summaries[name]["median"], indent=2))
        report.write_text(json.dumps(summaries, indent=2) + "\n")


if __name__ == "__main__":
    main()
