"""Everything that is to be measured on a GPU, in under eight minutes.

    python benchmarks/gpu.py                 # writes results/gpu.csv
    python benchmarks/gpu.py --device cpu    # the same; a recording stands for the CUDA graph

FetchPush's shapes, made-up transitions, the networks of the defaults, batches of 256 and of 4,096:

- `tests`: the tests marked `gpu`; on a CPU those of the executor on it.
- `updates/s`: of the learner by each executor, sampling and relabelling included, and with layers
  in bfloat16, beside the same update as a bare loop over batches that lie ready, on a GPU this
  loop compiled, and SAC + HER of Stable-Baselines3. They take turns; products are TF32 for all but
  Stable-Baselines3 on a GPU.
- `transitions/s`: that a learner takes into its replay, on a GPU from pinned memory.
- `operations`: dispatched in an update, sampling included, views left out, and tensors allocated.
- `fused`: what is left of an update's networks, target, losses and of their backward pass when they
  are compiled, by Inductor's own count: calls of libraries and of functions that it made.
- `launches`: calls by which the host starts work on the GPU, an update, by PyTorch's profiler.
- `memory`: at most held on the GPU while a contestant is measured, those before it included.
- `difference`: the largest of any parameter after 100 updates, in learning rates, between executors
  and, from the same batches, between the GPU and the CPU.
- `solved`: Fetch Reach from nothing to 95 % of its goals, with either executor.

A part that fails or finds no time is a row that says so. Rows name the card and are written as they
come.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import itertools
import logging
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from against_revision import revision_of
from ray.rllib.core import DEFAULT_MODULE_ID
from seconds_to_solve import solve_ours
from throughput import HIDDEN, STEPS, BareODAC, make_episodes, make_sb3
from torch._inductor import metrics as inductor
from torch._inductor.utils import run_and_get_code
from torch.utils._pytree import tree_map_only

from rllib_odac import ODACConfig, make_env
from rllib_odac.agent.batch import Batch, make_batches
from rllib_odac.agent.recording import HostReads
from rllib_odac.experiments.study_runner import cpu_model
from rllib_odac.learner import UPDATES_PER_DRAW, ODACTorchLearner

ROOT = Path(__file__).parents[1]
SECONDS = 480  # in all
BATCHES, EXECUTORS = (256, 4096), ("eager", "captured")
WARM = 3  # calls, after which everything is compiled or recorded
GPU_TESTS = [
    "tests/unit/test_executor.py",
    "tests/unit/test_devices.py",
    "tests/distributed/test_gpu.py",
]


class Rows:
    """What was measured, in a file from the first row on."""

    def __init__(self, path: Path, device: torch.device) -> None:
        self._path, self._rows = path, list[dict[str, Any]]()
        self._start = time.perf_counter()
        is_gpu = device.type == "cuda"
        self._machine = {
            "device": torch.cuda.get_device_name(device) if is_gpu else cpu_model(),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "revision": revision_of(ROOT),
            "date": datetime.date.today().isoformat(),
        }

    def add(
        self, part: str, what: str, value: float | str | None, batch: int | None = None
    ) -> None:
        """Writes one, and prints it."""
        row = {"part": part, "what": what, "batch": batch, "value": value}
        self._rows.append(row | self._machine)
        pd.DataFrame(self._rows).to_csv(self._path, index=False)
        print(f"{self.seconds():5.0f} s  {part}, {what}, batch {batch}: {value}", flush=True)

    def seconds(self) -> float:
        """Since the beginning."""
        return time.perf_counter() - self._start

    @contextlib.contextmanager
    def part(self, name: str, batch: int | None = None) -> Iterator[None]:
        """Lets what follows fail, and only that."""
        try:
            if self.seconds() > SECONDS:
                raise TimeoutError("no time was left")
            yield
        except Exception as error:
            self.add(name, f"failed: {type(error).__name__}", str(error).split("\n")[0], batch)


def make_learner(device: torch.device, batch: int, executor: str, **settings: Any) -> Any:
    """A learner with 50,000 transitions."""
    env = make_env("FetchPush-v4")
    config = ODACConfig().environment("FetchPush-v4").debugging(seed=0, log_level="ERROR")
    config.apply_settings(
        {
            "hidden": HIDDEN,
            "train_batch_size_per_learner": batch,
            "executor": executor,
            "num_gpus_per_learner": int(device.type == "cuda"),
            "replay_capacity": 100_000,
        }
        | settings
    )
    spaces = {DEFAULT_MODULE_ID: (env.observation_space, env.action_space)}
    learner = config.build_learner(spaces=spaces)
    learner.update(episodes=make_episodes(50_000 // STEPS), num_updates=1)
    return learner


def batches_of(learner: ODACTorchLearner, size: int, count: int) -> list[Batch]:
    """Batches as the learner draws them."""
    return make_batches(
        learner.networks, [learner.replay.sample(count * size)], size, learner._noise
    )


def updates_a_call(device: torch.device, batch: int) -> int:
    """A whole draw, but where a recording on the CPU would not fit into memory."""
    return UPDATES_PER_DRAW if device.type == "cuda" or batch <= 256 else 1


Call = Callable[[int], object]  # makes so many updates


def contestants(device: torch.device, size: int) -> dict[str, Callable[[], Call]]:
    """What is measured: functions that make it, by name."""

    def learner(executor: str, **settings: Any) -> Call:
        made = make_learner(device, size, executor, **settings)
        return lambda count: made.update(num_updates=count)

    def bare(is_compiled: bool) -> Call:
        made = make_learner(device, size, "eager")
        turns = itertools.cycle(batches_of(made, size, UPDATES_PER_DRAW))
        loop = BareODAC(made)
        update = torch.compile(loop.update) if is_compiled else loop.update
        return lambda count: [update(batch) for batch in itertools.islice(turns, count)]

    def sb3() -> Call:
        model = make_sb3(make_env("FetchPush-v4"), make_episodes(10_000 // STEPS), str(device))
        return lambda count: model.train(count, size)

    everyone = {
        "bare": lambda: bare(is_compiled=False),
        "bare, compiled": lambda: bare(is_compiled=True),
        "eager": lambda: learner("eager"),
        "captured": lambda: learner("captured"),
        "captured, bfloat16": lambda: learner("captured", autocast="bfloat16"),
        "captured, compiled": lambda: learner("captured", torch_compile_learner=True),
        "stable_baselines3": sb3,
    }
    if device.type == "cuda":
        return everyone
    # A processor without bfloat16 instructions would take minutes for a large batch.
    slow = ("compiled", *(["bfloat16"] if size > 256 else []))
    return {n: make for n, make in everyone.items() if not any(word in n for word in slow)}


def finish(device: torch.device) -> None:
    """Waits for the GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure_updates(rows: Rows, device: torch.device, size: int, seconds: float) -> None:
    """Updates a second, rounds in turns, and launches and memory on a GPU."""
    count, ready = updates_a_call(device, size), dict[str, Call]()
    for name, make in contestants(device, size).items():
        with rows.part(f"updates/s of {name}", size):
            call = make()
            for _ in range(WARM):
                call(count)
            finish(device)
            ready[name] = call
    rates: dict[str, list[float]] = {name: [] for name in ready}
    for _ in range(3):
        for name, call in ready.items():
            finish(device)
            start, made = time.perf_counter(), 0
            while time.perf_counter() - start < seconds / 3:
                call(count)
                made += count
            finish(device)
            rates[name].append(made / (time.perf_counter() - start))
    for name, values in rates.items():
        rows.add("updates/s", name, round(statistics.median(values), 2), size)
    if device.type != "cuda":
        return
    for name, call in ready.items():
        with rows.part("launches", size):
            torch.cuda.reset_peak_memory_stats(device)
            kinds = torch.profiler.ProfilerActivity
            with torch.profiler.profile(activities=[kinds.CPU, kinds.CUDA]) as profile:
                call(count)
                finish(device)
            launches = sum(e.count for e in profile.key_averages() if "Launch" in e.key)
            rows.add("launches", name, launches / count, size)
            held = torch.cuda.max_memory_allocated(device) / 2**20
            rows.add("memory", f"{name}, MiB", round(held, 1), size)


def measure_ingestion(rows: Rows, device: torch.device) -> None:
    """Transitions a second that a learner takes in, by the episodes that come at once."""
    learner = make_learner(device, 256, "eager")
    for count in (1, 10, 100):
        episodes, start, taken = make_episodes(count), time.perf_counter(), 0
        while time.perf_counter() - start < 1.0:
            learner.add_episodes(episodes)
            taken += count * STEPS
        finish(device)
        rate = taken / (time.perf_counter() - start)
        rows.add("transitions/s", f"{count} episodes at once", round(rate))


def count_operations(rows: Rows, device: torch.device) -> None:
    """Operations and tensors of an update, of each objective."""
    for objective in ("odac", "her", "sac", "discern", "uvd", "contrastive", "quasimetric"):
        with rows.part("operations"):
            settings = {} if objective != "her" else {"objective_settings": {"reward": "success"}}
            learner = make_learner(device, 256, "captured", objective=objective, **settings)
            with HostReads() as reads:
                learner._updates_of_one_draw(1)
            what = f"{objective}, host waits {len(reads.found)}"
            rows.add("operations", what, reads.operations, 256)
            rows.add("operations", f"{objective}, tensors allocated", reads.allocated, 256)


def count_fused(rows: Rows, device: torch.device) -> None:
    """Calls in a compiled update, both passes."""
    inductor.reset()
    _, modules = run_and_get_code(make_learner, device, 256, "eager", torch_compile_learner=True)
    calls = sum(len(re.findall(r"extern_kernels\.\w+\(", module)) for module in modules)
    fused = sum(len(re.findall(r"^ +(?:cpp|triton)_\w+\S*\(", each, re.M)) for each in modules)
    rows.add("fused", "odac, calls of libraries", calls, 256)
    rows.add("fused", "odac, calls of fused functions", fused, 256)
    rows.add("fused", "odac, loops in these", inductor.generated_kernel_count, 256)


def compare(rows: Rows, device: torch.device) -> None:
    """How far parameters are apart after 100 updates, in learning rates."""
    exact = {"matmul_precision": "highest"}
    eager, captured = (make_learner(device, 256, executor, **exact) for executor in EXECUTORS)
    for learner in (eager, captured):
        for _ in range(99 // 11):
            learner.update(num_updates=11)
    rows.add("difference", "captured and eager", _apart(eager, captured), 256)
    here, there = (make_learner(torch.device(d), 256, "eager", **exact) for d in (device, "cpu"))
    here.networks.load_state_dict(there.networks.state_dict())
    for learner in (here, there):
        for state in learner.get_optimizer().state.values():
            for value in state.values():
                value.zero_()
    for batch in itertools.islice(itertools.cycle(batches_of(there, 256, 16)), 100):
        there._step(batch)
        here._step(tree_map_only(torch.Tensor, lambda x: x.to(device), batch))
    rows.add("difference", f"{device.type} and cpu", _apart(here, there), 256)


def _apart(one: ODACTorchLearner, other: ODACTorchLearner) -> float:
    pairs = zip(one.networks.parameters(), other.networks.parameters(), strict=True)
    largest = max(float((a.detach().cpu() - b.detach().cpu()).abs().max()) for a, b in pairs)
    return round(largest / one.config.lr, 6)


def run_tests(rows: Rows, device: torch.device) -> None:
    """The tests that need a GPU, or on a CPU those of the executor."""
    asked = [*GPU_TESTS, "-m", "gpu"]
    if device.type == "cpu":
        asked = ["tests/unit/test_executor.py", "-m", "not gpu"]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *asked]
    done = subprocess.run(
        command, check=False, cwd=ROOT, capture_output=True, text=True, timeout=200
    )
    print(done.stdout[-3000:])
    [counts] = re.findall(r"^(\d+ .*?)(?: in [\d.]+s.*)$", done.stdout, re.MULTILINE)[-1:]
    rows.add("tests", "passed" if done.returncode == 0 else "not passed", counts)


def solve(rows: Rows, device: torch.device) -> None:
    """Seconds until Fetch Reach is solved."""
    for executor in EXECUTORS if device.type == "cuda" else EXECUTORS[:1]:
        with rows.part("solved"):
            gpus = int(device.type == "cuda")
            row = solve_ours(0, 3000, executor=executor, num_gpus_per_learner=gpus)
            rows.add("solved", f"{executor}, seconds of training", row["train_s"] or "not solved")
            rows.add("solved", f"{executor}, environment steps", row["env_steps"])


def main() -> None:
    """Runs every part."""
    parser = argparse.ArgumentParser(description="Measures what a GPU does for updates.")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each contestant and batch")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("results"))
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device is cuda, but PyTorch sees no GPU; 'cpu' runs the same script.")
    device = torch.device(options.device)
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    rows = Rows(options.output / ("gpu.csv" if device.type == "cuda" else "gpu_cpu.csv"), device)
    with rows.part("operations"):
        count_operations(rows, device)
    with rows.part("fused"):
        count_fused(rows, device)
    with rows.part("difference"):
        compare(rows, device)
    with rows.part("transitions/s"):
        measure_ingestion(rows, device)
    if device.type == "cuda":  # learners set it for their own products, bare loops do not
        torch.set_float32_matmul_precision("high")
    for size in BATCHES:
        with rows.part("updates/s", size):
            measure_updates(rows, device, size, options.seconds)
    torch.set_float32_matmul_precision("highest")
    with rows.part("tests"):
        run_tests(rows, device)
    with rows.part("solved"):
        solve(rows, device)


if __name__ == "__main__":
    main()
