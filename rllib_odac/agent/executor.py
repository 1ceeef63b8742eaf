"""How updates are carried out: call by call, or recorded once and repeated as a whole.

An update is a few hundred small operations. On a GPU calling them takes longer than computing them,
unless they are captured as one CUDA graph, which one call starts. A graph repeats operations on the
same memory, so that what differs from one time to the next has to lie in tensors: the replay's
counters, the learning rate, the state of random generators.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from rllib_odac.agent.action_prior import PreviousPolicyPrior
from rllib_odac.agent.actor_critic import ActorCritic
from rllib_odac.agent.batch import Batch
from rllib_odac.agent.divergence import Watched
from rllib_odac.agent.recording import HostReads, Recording
from rllib_odac.agent.update import Update

logger = logging.getLogger(__name__)

EAGER, CAPTURED = "eager", "captured"
Result = TypeVar("Result")


class Updated(NamedTuple):
    """The last of some updates from one draw, and those whose loss is still to be looked at."""

    batch: Batch
    update: Update
    watched: Sequence[Watched]


class Graph(Protocol):
    """Work that is recorded and repeated."""

    def record(self, work: Callable[[], Result]) -> Result:
        """Does the work once, and remembers it."""

    def replay(self) -> None:
        """Does it again, on the same memory."""


class CudaGraph:
    """A CUDA graph.

    Args:
        generators: Whose numbers the work draws.
        stream: That it is captured on, apart from the one in use.
    """

    def __init__(self, generators: Sequence[torch.Generator], stream: torch.cuda.Stream) -> None:
        self._graph = torch.cuda.CUDAGraph()
        self._stream = stream
        for generator in generators:
            self._graph.register_generator_state(generator)

    def record(self, work: Callable[[], Result]) -> Result:
        """Does the work once, and remembers it."""
        # Other threads, such as Ray's, may use the device meanwhile.
        with torch.cuda.graph(self._graph, stream=self._stream, capture_error_mode="thread_local"):
            result = work()
        self._graph.replay()  # capturing computes nothing
        return result

    def replay(self) -> None:
        """Does it again, on the same memory."""
        self._graph.replay()


class Executor:
    """Calls `work(count)`; if "captured", it does so twice and then repeats it as recorded.

    The first time it is watched: where the host reads from the device, the work is called every
    time, which is said once. The second time is for what is made when first needed.

    Args:
        kind: "eager" or "captured".
        work: Does `count` updates, in tensors alone; what it returns is the memory that holds the
            results of the last of them.
        after_replay: Does what is left to the host after a repetition, given these results.
        device: Where it works.
        generators: Whose numbers it draws.
        obstacle: Why it cannot be captured whatever it does, in words.
    """

    def __init__(
        self,
        kind: str,
        work: Callable[[int], Updated],
        after_replay: Callable[[Updated], None],
        device: torch.device,
        generators: Sequence[torch.Generator],
        obstacle: str | None = None,
    ) -> None:
        self._work = work
        self._after_replay = after_replay
        self._generators = generators
        self._stream: torch.cuda.Stream | None = None
        self.is_captured = kind == CAPTURED and obstacle is None
        if self.is_captured and device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._is_watched = False
        if kind == CAPTURED and obstacle is not None:
            logger.warning("Updates run eagerly: %s.", obstacle)
        self.forget()

    def forget(self) -> None:
        """Records anew, as has to be when a tensor that lasts has been replaced by another."""
        self._warm: set[tuple[int, Hashable]] = set()
        self._graphs: dict[tuple[int, Hashable], tuple[Graph, Updated]] = {}

    @property
    def num_graphs(self) -> int:
        """How many are recorded: one for each number of updates and variant."""
        return len(self._graphs)

    def __call__(self, count: int, variant: Hashable = None) -> Updated:
        """Does `count` updates.

        Args:
            count: Number of updates.
            variant: What else decides which operations they are.
        """
        if not self.is_captured:
            return self._work(count)
        key = count, variant
        if key in self._graphs:
            graph, result = self._graphs[key]
            graph.replay()
            self._after_replay(result)
            return result
        if not self._is_watched:
            return self._on_stream(lambda: self._watched(count))
        if key not in self._warm:
            self._warm.add(key)
            return self._on_stream(lambda: self._work(count))
        graph = Recording() if self._stream is None else CudaGraph(self._generators, self._stream)
        # Without gradients' functions, which would tie the next pass to the stream of this one.
        result = graph.record(lambda: _detached(self._work(count)))
        self._graphs[key] = graph, result
        return result

    def _watched(self, count: int) -> Updated:
        # Compiled code is not seen from below, and what is first called so would never be compiled.
        with torch.compiler.set_stance("force_eager"), HostReads() as reads:
            result = self._work(count)
        self._is_watched = True
        if reads.found:
            self.is_captured = False
            logger.warning("Updates run eagerly: the host waits at %s.", reads.found[0])
        return result

    def _on_stream(self, work: Callable[[], Updated]) -> Updated:
        """Does work that warms up where it will be captured."""
        if self._stream is None:
            return _detached(work())
        here = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(here)
        with torch.cuda.stream(self._stream):
            result = _detached(work())
        here.wait_stream(self._stream)
        return result


def _detached(result: Updated) -> Updated:
    detached: Updated = tree_map_only(Tensor, Tensor.detach, result)
    return detached


def fit_optimizer(optimizer: torch.optim.Optimizer, executor: str) -> None:
    """Makes learning rates tensors, which captured updates see change, or else numbers."""
    is_captured = executor == CAPTURED
    for group in optimizer.param_groups:
        device = group["params"][0].device
        dtype = torch.float32 if device.type == "cuda" else torch.float64  # as Adam reads it
        rate = float(group["lr"])
        group["lr"] = torch.tensor(rate, dtype=dtype, device=device) if is_captured else rate
        group["capturable"] = is_captured


def learning_rate(optimizer: torch.optim.Optimizer) -> float:
    """The learning rate of all parameters."""
    return float(optimizer.param_groups[0]["lr"])


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Sets the learning rate, in place where it is a tensor."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(lr)
        else:
            group["lr"] = float(lr)  # RLlib gives a tensor of its own, which goes on changing


def obstacle(networks: ActorCritic, *, skips: bool, distributed: bool) -> str | None:
    """Why updates cannot be captured whatever their operations are, in words; None if they can.

    Args:
        networks: Which are trained.
        skips: Whether updates that are not finite are skipped.
        distributed: Whether there are several learners.
    """
    if isinstance(networks.action_prior, PreviousPolicyPrior):
        return 'action_prior "previous" counts updates'
    if skips:
        return 'on_divergence "skip" counts what it skips'
    return "several learners wait for each other" if distributed else None
