"""Steps per second of many environments in one process, by how they are put together.

    python benchmarks/vectorised.py

Random actions, resets included, the contestants in turns within every round:

- `sync`: Gymnasium's `SyncVectorEnv`, one environment after the other.
- `threads K`: `ThreadedVectorEnv`, as `env_threads=K` makes it for most environments.
- `processes 2`: two processes with `sync` of half as many each, without any message: what two cores
  give at most.
- `native`: the vector form of an environment's own (Box 2D, Ant), for Ant with threads too.
- `rollout K`: `mujoco.rollout` with K threads, physics and observations of Ant alone: no goals, no
  resets. It loses the solver's warm start between calls, so that it does not go on as one
  environment does.

`steps_per_cpu_s` is by the CPU time of all threads and processes: what an arrangement itself takes,
whatever else the machine does. `cores` is how many were had on average. `physics` is the share of
an environment's CPU time, alone, in `mj_step`, which runs without Python's lock: with enough cores
threads are at most 1 / (1 - physics) times as fast.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import multiprocessing
import os
import shlex
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import pandas as pd
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from mujoco.rollout import Rollout

from rllib_odac import make_env, make_vector_env
from rllib_odac.envs.registry import OWN_ENVS
from rllib_odac.envs.threads import ThreadedVectorEnv
from rllib_odac.experiments.study_runner import cpu_model

COUNTS = {
    "odac/Box2D-v0": [10, 100, 1000],
    "odac/Ant-v0": [10, 32],
    "odac/FetchPush-v0": [10],
    "odac/SawyerFaucet-v0": [10],
}
PHYSICS = mujoco.mjtState.mjSTATE_FULLPHYSICS
Step = Callable[[], None]  # makes one of every environment


def sync(env_id: str, count: int) -> Any:
    """One environment after the other."""
    makers = [partial(make_env, env_id)] * count
    return SyncVectorEnv(makers, autoreset_mode=AutoresetMode.NEXT_STEP)


def stepping(env: Any) -> Step:
    """Steps a vector environment from the middle of its episodes on."""
    env.reset(seed=0)
    env.action_space.seed(0)
    actions = [env.action_space.sample() for _ in range(20)]
    turn = iter(range(10**9))
    return lambda: env.step(actions[next(turn) % 20])


def rollout(count: int, threads: int) -> Step:
    """Ant's physics by `mujoco.rollout`, from the states that it left."""
    env: Any = make_env("odac/Ant-v0")
    env.reset(seed=0)
    simulator = env.unwrapped.simulator
    model, steps = simulator.model, simulator.frame_skip
    start = np.empty(mujoco.mj_stateSize(model, PHYSICS))
    mujoco.mj_getState(model, simulator.data, start, PHYSICS)
    pool = Rollout(nthread=0 if threads == 1 else threads)
    data = [mujoco.MjData(model) for _ in range(threads)]
    rng, states = np.random.default_rng(0), np.tile(start, (count, 1))
    position = slice(1, 1 + model.nq + model.nv)  # after the time: what Ant observes

    def step() -> None:
        nonlocal states
        actions = rng.uniform(-1, 1, (count, 1, model.nu)).repeat(steps, axis=1)
        reached, _ = pool.rollout(model, data, states, actions)
        states = np.ascontiguousarray(reached[:, -1])
        states[:, position].astype(np.float32)

    return step


def spent(steps: int, seconds: float, cpu_seconds: float) -> dict[str, float]:
    """A row's figures."""
    return {
        "steps_per_s": round(steps / seconds, 1),
        "steps_per_cpu_s": round(steps / cpu_seconds, 1),
        "cores": round(cpu_seconds / seconds, 2),
    }


def measure(step: Step, count: int, seconds: float) -> dict[str, float]:
    """Steps for so long, in this process."""
    steps, start, cpu = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() < start + seconds:
        step()
        steps += count
    return spent(steps, time.perf_counter() - start, time.process_time() - cpu)


def serve(env_id: str, count: int, pipe: Any) -> None:
    """A process that steps when it is asked to."""
    torch.set_num_threads(1)
    step = stepping(sync(env_id, count))
    with contextlib.suppress(EOFError):  # nobody asks any more
        while True:
            pipe.send(measure(step, count, pipe.recv()))


class Processes:
    """Some that step at the same time."""

    def __init__(self, env_id: str, count: int, processes: int) -> None:
        context = multiprocessing.get_context("spawn")
        ends = [context.Pipe() for _ in range(processes)]
        self._pipes = [ours for ours, _ in ends]
        for _, theirs in ends:
            each = count // processes
            context.Process(target=serve, args=(env_id, each, theirs), daemon=True).start()
        self.measure(0.1)  # until all are there

    def measure(self, seconds: float) -> dict[str, float]:
        """Their steps together."""
        for pipe in self._pipes:
            pipe.send(seconds)
        table = pd.DataFrame([pipe.recv() for pipe in self._pipes])
        rate, cores = table["steps_per_s"].sum(), table["cores"].sum()
        return spent(rate, 1.0, cores)


def physics_share(env_id: str) -> float:
    """How much of an environment's time is spent where other threads may run."""
    within, mj_step = 0.0, mujoco.mj_step

    def watched(*args: Any, **kwargs: Any) -> None:
        nonlocal within
        start = time.thread_time()
        mj_step(*args, **kwargs)
        within += time.thread_time() - start

    mujoco.mj_step = watched
    step = stepping(sync(env_id, 1))
    within, start = 0.0, time.thread_time()
    for _ in range(300):
        step()
    mujoco.mj_step = mj_step
    return round(within / (time.thread_time() - start), 3)


def contestants(env_id: str, count: int) -> dict[str, Callable[[float], dict[str, float]]]:
    """What is measured, by name: functions of seconds."""
    found: dict[str, Step] = {"sync": stepping(sync(env_id, count))}
    if OWN_ENVS[env_id].get("vector_entry_point"):
        found["native"] = stepping(make_vector_env(env_id, count))
    if env_id == "odac/Box2D-v0":
        return {name: partial(measure, step, count) for name, step in found.items()}
    makers = [partial(make_env, env_id)] * count
    for threads in (2, 4):
        found[f"threads {threads}"] = stepping(ThreadedVectorEnv(makers, threads))
    if env_id == "odac/Ant-v0":
        for threads in (2, 4):
            env = make_vector_env(env_id, count, env_threads=threads)
            found[f"native, threads {threads}"] = stepping(env)
        found |= {f"rollout {threads}": rollout(count, threads) for threads in (1, 2)}
    measured = {name: partial(measure, step, count) for name, step in found.items()}
    return measured | {"processes 2": Processes(env_id, count, 2).measure}


def main() -> None:
    """Measures every environment."""
    parser = argparse.ArgumentParser(description="Many environments in one process.")
    parser.add_argument("--env", choices=list(COUNTS), nargs="*", default=list(COUNTS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of a contestant in a round")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("results"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    machine = {
        "cpu": cpu_model(),
        "cores_there": len(os.sched_getaffinity(0)),
        "load_before": round(os.getloadavg()[0], 2),
        "date": datetime.date.today().isoformat(),
        "command": shlex.join(["python", *sys.argv]),
    }
    rows: list[dict[str, Any]] = []
    for env_id in options.env:
        for count in COUNTS[env_id]:
            share = {"physics": physics_share(env_id)}
            ready = contestants(env_id, count)
            for index in range(-1, options.rounds):
                for name, run in ready.items():
                    row = {"env": env_id, "num_envs": count, "round": index, "what": name}
                    row |= run(options.seconds)
                    if index >= 0:  # it warmed up
                        rows.append(row | share | machine)
            pd.DataFrame(rows).to_csv(options.output / "vectorised.csv", index=False)
    table = pd.DataFrame(rows)
    medians = table.groupby(["env", "num_envs", "what"], sort=False)
    print(medians[["steps_per_s", "steps_per_cpu_s", "cores", "physics"]].median().to_string())


if __name__ == "__main__":
    main()
