"""What the driver does for a sample, by the number of env runners: see that it does not grow.

    python benchmarks/driver_cost.py                              # of this revision
    python benchmarks/driver_cost.py --package ../before          # of a checkout of another one too

Stand-ins for 8, 64, 256 and 1,000 env runners take two requests each, as in training, and answer
one after the other, 300 times a second however many they are; all of them are one actor of Ray's,
so that nothing but the driver's bookkeeping differs. Measured is the CPU time of the
driver's thread, and of its whole process with Ray's threads, over the samples of some seconds,
five times; medians.
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
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd

HERE = Path(__file__).resolve().parents[1]
NUMBERS = (8, 64, 256, 1000)
REQUESTS_EACH = 2
SAMPLES_A_SECOND = 300
Row = dict[str, Any]


def group_of(stand_ins: int, actor: Any) -> Any:
    """What `EnvRunnerRequests` asks of RLlib's group, with all env runners healthy."""
    handle = SimpleNamespace(apply=SimpleNamespace(remote=lambda *_: actor.sample.remote()))
    actors = dict.fromkeys(range(1, stand_ins + 1), handle)
    healthy = list(actors)
    manager = SimpleNamespace(
        actors=lambda: actors,
        num_actors=lambda: stand_ins,
        num_healthy_actors=lambda: stand_ins,
        healthy_actor_ids=lambda: healthy,
        is_actor_healthy=lambda runner: True,
    )
    return SimpleNamespace(_worker_manager=manager)


def measure(stand_ins: int, seconds: float, repeats: int) -> list[Row]:
    """CPU time a sample, of the package on the path."""
    import ray

    from rllib_odac.runtime.cluster import join_or_start
    from rllib_odac.runtime.env_runner_requests import EnvRunnerRequests, PolicySnapshot, Sample
    from rllib_odac.runtime.faults import StepAccounting

    join_or_start("local", num_cpus=1, log_to_driver=False, logging_level=logging.ERROR)

    @ray.remote
    class Answers:
        def sample(self) -> Sample:
            time.sleep(1 / SAMPLES_A_SECOND)
            return Sample(None, 0, 100, 100, None)

    group = group_of(stand_ins, Answers.remote())
    snapshot = PolicySnapshot()
    arguments = (group, 60.0, 600.0, StepAccounting())
    if hasattr(EnvRunnerRequests, "idlest"):
        from rllib_odac.runtime.arrivals import Arrivals

        arrivals = Arrivals()
        requests = EnvRunnerRequests(*arguments, arrivals)

        def step() -> int:
            requests.check_env_runners()
            while (runner := requests.idlest(REQUESTS_EACH)) is not None:
                requests.request(runner, min(100, 10**9 - requests.env_steps_expected), snapshot)
            return len(requests.collect(arrivals.take(1)))

    else:  # until revision 549d4a0
        from rllib_odac.runtime.learner_calls import wait

        requests = EnvRunnerRequests(*arguments)

        def step() -> int:
            requests.check_env_runners()
            for runner in requests.free_runners(REQUESTS_EACH):
                requests.request(runner, min(100, 10**9 - requests.env_steps_expected), snapshot)
            return len(requests.collect(wait(requests.references, 1)))

    while not step():
        pass  # the actor starts
    end = time.perf_counter() + 1
    while time.perf_counter() < end:
        step()
    rows = []
    for repeat in range(repeats):
        thread, process, count = time.thread_time(), time.process_time(), 0
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            count += step()
        thread_s, process_s = time.thread_time() - thread, time.process_time() - process
        row = {"thread_us": 1e6 * thread_s / count, "process_us": 1e6 * process_s / count}
        rows.append({"repeat": repeat, "samples": count, **row})
    return rows


def revision_of(package: Path) -> str:
    command = ["git", "-C", str(package), "describe", "--always", "--dirty"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description="What the driver does for a sample.")
    parser.add_argument("--package", type=Path, help="a checkout to measure besides")
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--stand-ins", type=int, help=argparse.SUPPRESS)  # in a process of its own
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("results"))
    options = parser.parse_args()
    if options.stand_ins is not None:
        print(json.dumps(measure(options.stand_ins, options.seconds, options.repeats)))
        return
    packages = [HERE, *([options.package.resolve()] if options.package else [])]
    rows: list[Row] = []
    for number, package in itertools.product(NUMBERS, packages):
        command = [sys.executable, __file__, "--stand-ins", str(number)]
        command += ["--seconds", str(options.seconds), "--repeats", str(options.repeats)]
        environment = os.environ | {"PYTHONPATH": str(package)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        about = {"revision": revision_of(package), "env_runners": number}
        rows += [about | row for row in json.loads(done.stdout.splitlines()[-1])]
        print(rows[-1], flush=True)
    table = pd.DataFrame(rows).round(1)
    cpu = re.findall("model name.*: (.*)", Path("/proc/cpuinfo").read_text())[0]
    medians = table.groupby(["revision", "env_runners"])[["thread_us", "process_us"]].median()
    report = {
        "command": shlex.join(["python", *sys.argv]),
        "date": f"{datetime.datetime.now():%Y-%m-%d %H:%M}",
        "machine": {"cpu": cpu, "cores": len(os.sched_getaffinity(0))},
        "versions": {package: version(package) for package in ("ray",)},
        "medians": medians.reset_index().to_dict("records"),
    }
    options.output.mkdir(parents=True, exist_ok=True)
    table.to_csv(options.output / "driver_cost.csv", index=False)
    (options.output / "driver_cost.json").write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
