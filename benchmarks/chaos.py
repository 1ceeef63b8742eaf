"""Training while its processes are killed, at moments that a seed decides.

    python benchmarks/chaos.py env-runners --kills 100    # one training, on three nodes
    python benchmarks/chaos.py driver --kills 20          # `odac train`, and `--resume` each time

`env-runners`: three remote env runners, a remote learner and an env runner that evaluates beside
them, on a cluster of three nodes on this machine. Again and again the process of one env runner, of
either kind, gets SIGKILL, whatever it is doing; Ray starts it anew. With `--node-share` some of the
kills take a whole node with all that it holds, and another one joins later; the head node, with
driver and learner, is spared. In the end nothing may be missing from the accounts: every
environment step counted is in the replay, in an episode that is going on, or entered as lost with
its env runner, and no episode is in the replay twice. Lost may be only what was with the killed:
episodes going on, and those that no learner had fetched.

`driver`: a training in one process, `odac train`, gets SIGKILL, whatever it is doing, starting and
saving included, and is resumed. It must end exactly as one that nobody killed: then nothing was
lost for good and nothing counted twice. Nor may a process of Ray's be left in the end: its agents
notice late that they are alone.

Both end with 100 episodes on held-out goals, that must be reached as if nothing had happened.
"""

from __future__ import annotations

import argparse
import datetime
import json
import logging
import os
import random
import re
import shlex
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gymnasium as gym
import pandas as pd
import psutil
import ray
import torch
from ray.cluster_utils import Cluster

from rllib_odac import ODACConfig
from rllib_odac.algorithm import ODAC
from rllib_odac.learner import ODACTorchLearner

NODES = 3
STORE = 80 * 2**20  # bytes of each node's object store
EVERY = 500  # steps between evaluations of a driver that is killed, and between checkpoints
STARTING = 0.2  # share of kills of a driver that do not wait until it trains
SECONDS_TO_NOTICE = 150  # that one is alone
ENVS, FRAGMENT = 2, 10  # of an env runner: an episode ends after a few requests
Row = dict[str, Any]


# Env runners --------------------------------------------------------------------------------------


def start_cluster() -> Cluster:
    """Three nodes on this machine; one more place than there are env runners of both kinds."""
    head = {"num_cpus": 3, "resources": {"learner": 1}, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head | {"object_store_memory": STORE})
    for _ in range(NODES - 1):
        cluster.add_node(num_cpus=1, object_store_memory=STORE)
    cluster.wait_for_nodes()
    ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
    return cluster


def build(options: argparse.Namespace) -> ODAC:
    config = ODACConfig().environment(options.env).debugging(seed=options.seed, log_level="ERROR")
    config.env_runners(
        num_env_runners=NODES, num_envs_per_env_runner=ENVS, rollout_fragment_length=FRAGMENT
    )
    config.learners(num_learners=1, custom_resources_per_learner={"learner": 1})
    config.training(updates_per_env_step=options.updates_per_env_step, max_weight_lag=200)
    config.evaluation(evaluation_duration=10, evaluation_num_env_runners=1)
    return config.reporting(min_sample_timesteps_per_iteration=1).build_algo()


def env_runner_processes() -> list[psutil.Process]:
    """Those that run now, the oldest first."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if process.cmdline()[:1] and process.cmdline()[0].startswith("ray::GoalEnvRunner"):
                found.append((process.create_time(), process))
        except psutil.Error:
            continue  # it has just ended
    return [process for _, process in sorted(found, key=lambda each: each[0])]


def kill_env_runners(
    options: argparse.Namespace, algorithm: ODAC, cluster: Cluster
) -> Iterator[Row]:
    """Trains and kills; a row a kill."""
    rng, start = random.Random(options.seed), time.perf_counter()
    kills, due = 0, start
    while kills < options.kills:
        algorithm.train()
        if time.perf_counter() < due or not (processes := env_runner_processes()):
            continue
        victim, nodes = rng.choice(processes), list(cluster.worker_nodes)
        title = victim.cmdline()[0].removeprefix("ray::GoalEnvRunner").lstrip(".")
        if len(nodes) < NODES - 1:
            cluster.add_node(num_cpus=1, object_store_memory=STORE, wait=False)
        if rng.random() < options.node_share and nodes:
            cluster.remove_node(rng.choice(nodes), allow_graceful=False)
            killed = "node"
        else:
            victim.kill()
            killed = "process"
        kills += 1
        due = time.perf_counter() + rng.uniform(*options.pause)
        yield {
            "kill": kills,
            "second": round(time.perf_counter() - start, 2),
            "killed": killed,
            "was_doing": (title or "waiting") if killed == "process" else None,
            "running": len(processes),
            "env_steps": algorithm.env_steps,
            "updates": algorithm.updates,
            "env_steps_lost": algorithm.fault_counters.env_steps_lost,
        }


def episodes_of(learner: ODACTorchLearner) -> list[tuple[int, int]]:
    """Length and fingerprint of every episode in the replay."""
    episodes = learner.replay.episodes()
    return [(len(each), hash(each.observation.tobytes())) for each in episodes]


def env_runners_outcome(algorithm: ODAC, options: argparse.Namespace) -> dict[str, Any]:
    """The accounts after the last kill, and what has been learned."""
    before = algorithm.env_steps
    while algorithm.env_steps < max(before + 1000, options.steps):
        result = algorithm.train()
    algorithm.drain()
    (episodes,) = [each.get() for each in algorithm.learner_group.foreach_learner(episodes_of)]
    replayed, losses = sum(length for length, _ in episodes), algorithm.fault_counters
    unfinished = algorithm._training.accounting.unfinished
    config, owed = (
        algorithm.config,
        algorithm.env_steps - algorithm.config.num_steps_before_learning,
    )
    # With a killed env runner: episodes going on, and those that no learner has fetched, which may
    # be as far behind as it is allowed to.
    horizon = gym.spec(config.env).max_episode_steps
    waiting = config.max_weight_lag / config.updates_per_env_step
    most_lost = losses.env_runners_lost * (ENVS * horizon + waiting)
    checks = {
        "every step is accounted for": algorithm.env_steps
        == replayed + unfinished + losses.env_steps_lost,
        "no episode is in the replay twice": len({key for _, key in episodes}) == len(episodes),
        "updates are those that the steps ask for": algorithm.updates
        == int(owed * config.updates_per_env_step),
        "no more is lost than was with the killed": losses.env_steps_lost <= most_lost,
        "no env runner is mourned that was not killed": losses.env_runners_lost
        <= options.kills * (2 if options.node_share else 1),  # a node may have held two
    }
    evaluated = algorithm.evaluate_held_out(100)
    samples_lost = result["learners"]["__all_modules__"]["samples_lost"]
    return {
        "env_steps": algorithm.env_steps,
        "updates": algorithm.updates,
        "in_replay": replayed,
        "unfinished": unfinished,
        "losses": result["faults"],
        "samples_lost": samples_lost,
        "success_rate": evaluated["success_rate"],
        "checks": checks,
    }


def chaos_of_env_runners(options: argparse.Namespace, csv: Path) -> dict[str, Any]:
    cluster = start_cluster()
    try:
        algorithm = build(options)
        rows: list[Row] = []
        for row in kill_env_runners(options, algorithm, cluster):
            rows.append(row)
            print(row, flush=True)
            pd.DataFrame(rows).to_csv(csv, index=False)
        outcome = env_runners_outcome(algorithm, options)
        algorithm.stop()
        return outcome
    finally:
        ray.shutdown()
        cluster.shutdown()


# The driver ---------------------------------------------------------------------------------------


def command(options: argparse.Namespace, out: Path) -> list[str]:
    # fmt: off
    return [
        sys.executable, "-m", "rllib_odac.cli", "train", options.env, "--out", str(out),
        "--steps", str(options.steps), "--seed", str(options.seed),
        "--evaluate-every", str(EVERY), "--checkpoint-every", str(EVERY),
        "--set", f"updates_per_env_step={options.updates_per_env_step}",
    ]
    # fmt: on


def saved_steps(out: Path) -> int:
    """Environment steps of the newest checkpoint."""
    names = [path.name for path in (out / "checkpoints").glob("step_*[0-9]")]
    return max((int(name.removeprefix("step_")) for name in names), default=0)


def wait_till_it_trains(process: subprocess.Popen[bytes], out: Path) -> None:
    """Returns when a run that was started just now has its networks, or is over."""
    start, progress = time.time(), out / "progress.csv"  # written when training begins
    while process.poll() is None and not (progress.exists() and progress.stat().st_mtime > start):
        time.sleep(0.05)


def watch_the_last(children: list[psutil.Process], row: Row) -> None:
    """Enters how long those that a killed driver had started have outlived it."""
    start = time.perf_counter()
    _, left = psutil.wait_procs(children, timeout=SECONDS_TO_NOTICE)
    row["processes_left"] = len(left)
    row["seconds_till_last_is_gone"] = round(time.perf_counter() - start, 1)


def kill_driver(options: argparse.Namespace, out: Path) -> Iterator[Row]:
    """Starts, kills and resumes; a row a kill. Ends when the training does."""
    rng, start, watches = random.Random(options.seed), time.perf_counter(), []
    for kill in range(1, options.kills + 1):
        before = saved_steps(out)
        process = subprocess.Popen(
            [*command(options, out), *(["--resume"] if (out / "config.json").exists() else [])],
            stdout=subprocess.DEVNULL,
        )
        starting, pause = rng.random() < STARTING, rng.uniform(*options.pause)
        if not starting:
            wait_till_it_trains(process, out)
        try:
            process.wait(pause)
            break  # it has come to its end
        except subprocess.TimeoutExpired:
            children = psutil.Process(process.pid).children(recursive=True)
            process.kill()
            process.wait()
        progress = out / "progress.csv"
        reported = pd.read_csv(progress)["env_steps"].max() if progress.exists() else 0
        row = {
            "kill": kill,
            "second": round(time.perf_counter() - start, 2),
            "was_starting": starting,
            "processes": 1 + len(children),
            "env_steps_saved_before": before,
            "env_steps_saved": saved_steps(out),
            "env_steps_reported": 0 if pd.isna(reported) else int(reported),
            "was_saving": any((out / "checkpoints").glob("*.partial")),
        }
        watch = threading.Thread(target=watch_the_last, args=(children, row))
        watch.start()
        watches.append(watch)
        yield row
    for watch in watches:
        watch.join()


def driver_outcome(options: argparse.Namespace, out: Path, rows: list[Row]) -> dict[str, Any]:
    """The end of the killed run, and that of one that nobody kills."""
    subprocess.run([*command(options, out), "--resume"], check=True, stdout=subprocess.DEVNULL)
    whole = out.with_name("undisturbed")
    subprocess.run(command(options, whole), check=True, stdout=subprocess.DEVNULL)
    progress = [pd.read_csv(run / "progress.csv") for run in (out, whole)]
    return judge_driver(rows, *progress, json.loads((out / "summary.json").read_text()))


def judge_driver(
    rows: list[Row], killed: pd.DataFrame, whole: pd.DataFrame, summary: Row
) -> dict[str, Any]:
    """What a killed run came to, beside the progress of one that nobody killed."""
    ours, theirs = (progress.drop(columns="wall_s") for progress in (killed, whole))
    lost = [max(0, row["env_steps_reported"] - row["env_steps_saved"]) for row in rows]
    checks = {
        "it ends as a run that nobody killed": ours.equals(theirs),
        "no process is left in the end": not any(row["processes_left"] for row in rows),
        "no checkpoint is lost": all(
            row["env_steps_saved"] >= row["env_steps_saved_before"] for row in rows
        ),
        "no more is lost than since the last checkpoint": max(lost) <= EVERY + 100,  # of a round
    }
    return {
        "kills_before_the_end": len(rows),
        "seconds_till_last_process_is_gone": max(row["seconds_till_last_is_gone"] for row in rows),
        "kills_while_starting": sum(row["was_starting"] for row in rows),
        "kills_while_saving": sum(row["was_saving"] for row in rows),
        "env_steps": summary["env_steps"],
        "updates": summary["updates"],
        "success_rate": summary["success_rate"],
        "checks": checks,
    }


def chaos_of_driver(options: argparse.Namespace, csv: Path) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as directory:
        out, rows = Path(directory) / "killed", []
        for row in kill_driver(options, out):
            rows.append(row)
            print(row, flush=True)
        pd.DataFrame(rows).to_csv(csv, index=False)
        return driver_outcome(options, out, rows)


# ------------------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description="Kills what trains, and looks what is left.")
    parser.add_argument("what", choices=["env-runners", "driver"])
    parser.add_argument("--kills", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--env", default="FetchReach-v4")
    parser.add_argument("--steps", type=int, default=6000, help="to train for, at least")
    parser.add_argument("--updates-per-env-step", type=float, default=0.5)
    parser.add_argument(
        "--pause", type=float, nargs=2, help="seconds between kills, from and to [1 4; driver 0 8]"
    )
    parser.add_argument(
        "--node-share", type=float, default=0.0, help="of kills of env runners that take a node"
    )
    parser.add_argument("--least-success", type=float, default=0.95)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("results"))
    options = parser.parse_args()
    of_driver = options.what == "driver"
    options.pause = options.pause or ((0.0, 8.0) if of_driver else (1.0, 4.0))
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    options.output.mkdir(parents=True, exist_ok=True)
    name = f"chaos_{options.what.replace('-', '_')}" + ("_and_nodes" if options.node_share else "")
    start = time.perf_counter()
    chaos = chaos_of_driver if of_driver else chaos_of_env_runners
    outcome = chaos(options, options.output / f"{name}.csv")
    cpu = re.findall("model name.*: (.*)", Path("/proc/cpuinfo").read_text())[0]
    report = {
        "command": shlex.join(["python", *sys.argv]),
        "date": f"{datetime.datetime.now():%Y-%m-%d %H:%M}",
        "machine": {"cpu": cpu, "cores": len(os.sched_getaffinity(0))},
        "versions": {package: version(package) for package in ("torch", "ray")},
        "env": options.env,
        "seed": options.seed,
        "kills": options.kills,
        "seconds": round(time.perf_counter() - start, 1),
    } | outcome
    learned = outcome["success_rate"] >= options.least_success
    report["checks"][f"success is at least {options.least_success:.0%}"] = learned
    (options.output / f"{name}.json").write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))
    sys.exit(0 if all(report["checks"].values()) else 1)


if __name__ == "__main__":
    main()
