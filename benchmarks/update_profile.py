"""Where the time of one gradient update goes: `python benchmarks/throughput.py --profile`.

Every PyTorch operation of the learner's updates is timed by itself as CPU time of the thread, which
leaves out what other processes take. Calling an operation costs as much as the cheapest of them, a
view, takes: that much of each, and what remains of an update that runs untimed, is Python, the
dispatcher, the autograd engine and RLlib.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from rllib_odac.agent.batch import Batch, make_batches
from rllib_odac.learner import UPDATES_PER_DRAW, ODACTorchLearner

KINDS = {
    "matrix products": {"mm", "addmm", "bmm", "baddbmm"},
    "Adam": {"_fused_adam_", "_foreach_add_"},
    "Polyak": {"_foreach_lerp_"},
    "ReLU": {"relu_", "threshold_backward"},
}
ACTIVATIONS = 256 * 256  # numbers in the smallest tensor of a hidden layer's activations
BATCH_WORK = "replay, relabelling, normalising, noise"
REST = "calls: Python, dispatcher, autograd engine, RLlib"


class OperationTimer(TorchDispatchMode):
    """Adds up nanoseconds and calls of each kind of operation, those of the backward pass apart."""

    def __init__(self) -> None:
        super().__init__()
        self.nanoseconds: dict[tuple[str, str], list[int]] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        start = time.thread_time_ns()
        result = func(*args, **(kwargs or {}))
        elapsed = time.thread_time_ns() - start
        during = "backward" if torch._C._current_graph_task_id() >= 0 else "other"
        name = func.overloadpacket.__name__
        largest = max((a.numel() for a in args if isinstance(a, Tensor)), default=0)
        other = (
            "sums and views of activations"
            if largest >= ACTIVATIONS
            else "densities, actions, losses, copies"
        )
        kind = next((kind for kind, names in KINDS.items() if name in names), other)
        self.nanoseconds.setdefault((kind, during), []).append(elapsed)
        return result


def _microseconds(call: Callable[[], object], repeats: int) -> float:
    """Median CPU time of the thread for one call."""
    times = []
    for _ in range(repeats):
        start = time.thread_time_ns()
        call()
        times.append(time.thread_time_ns() - start)
    return float(pd.Series(times).median()) / 1e3


def profile_update(
    learner: ODACTorchLearner, batches: Sequence[Batch], repeats: int = 300
) -> pd.DataFrame:
    """Microseconds and operations of each part of one update.

    Args:
        learner: With a filled replay.
        batches: What its updates are made from, noise included.
        repeats: Updates that are timed.
    """
    turns = iter(range(10**9))

    def update() -> None:
        learner._step(batches[next(turns) % len(batches)])

    def draw() -> None:
        size = learner.config.train_batch_size_per_learner
        draw = learner.replay.sample(UPDATES_PER_DRAW * size)
        make_batches(learner.networks, [draw], size, learner._noise)

    torch.set_flush_denormal(True)
    _microseconds(update, 50)  # warms up
    whole = _microseconds(update, repeats)
    with OperationTimer() as timer:
        for _ in range(repeats):
            update()
    call = np.percentile(np.concatenate(list(timer.nanoseconds.values())), 10)
    rows = [
        {
            "part": kind,
            "pass": during,
            "us": np.maximum(0, np.array(ns) - call).sum() / repeats / 1e3,
            "operations": len(ns),
        }
        for (kind, during), ns in timer.nanoseconds.items()
    ]
    table = pd.DataFrame(rows).sort_values("us", ascending=False)
    table["operations"] //= repeats
    drawing = _microseconds(draw, 50) / UPDATES_PER_DRAW
    table.loc[len(table)] = [REST, "", whole - table["us"].sum(), 0]
    table.loc[len(table)] = [BATCH_WORK, "", drawing, 0]
    table["share"] = table["us"] / table["us"].sum()
    return table.round({"us": 1, "share": 3})
