"""Joining or starting Ray, and whether what a configuration asks for fits on the cluster.

Ray lets an actor that no node can hold wait for ever, and RLlib waits with it. What can never be
placed is refused here, in one sentence, before anything is built; what only an autoscaler can make
room for, after a deadline.
"""

from __future__ import annotations

import json
import logging
import math
import os
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rllib_odac.config import ODACConfig

SECONDS_TO_ANSWER = 10.0
ROOM_TIMEOUT = "ODAC_ROOM_TIMEOUT_S"  # of the environment: how long an autoscaler may take
DEFAULT_ROOM_TIMEOUT_S = 1800.0
UNIT = 10_000  # Ray counts resources in ten-thousandths

logger = logging.getLogger(__name__)

Resources = tuple[tuple[str, int], ...]  # names and ten-thousandths, sorted
Counts = tuple[int, ...]  # how many of each kind


@dataclass(frozen=True)
class Processes:
    """Processes of one kind that a run starts through Ray.

    Attributes:
        setting: The setting that says how many.
        count: How many.
        resources: What Ray reserves for each of them, such as {"CPU": 1}.
    """

    setting: str
    count: int
    resources: Mapping[str, float]

    @property
    def reserved(self) -> dict[str, float]:
        """The resources without those that it needs none of, which Ray refuses to reserve."""
        return {name: amount for name, amount in self.resources.items() if amount}

    def __str__(self) -> str:
        return f"{self.setting} is {self.count} ({_amounts(self.resources)} each)"


def processes(config: ODACConfig) -> list[Processes]:
    """The processes that an algorithm of this configuration starts beside the one it runs in."""
    from rllib_odac.ray_compat import resource_bundles

    bundles = resource_bundles(config)
    return [Processes(n, len(each), each[0]) for n, each in bundles.items() if each and n != "jobs"]


def own_process(config: ODACConfig) -> Processes:
    """The process that an algorithm runs in, for those who reserve resources for it.

    Tune and a study do; in a plain process it holds none of Ray's.
    """
    from rllib_odac.ray_compat import resource_bundles

    return Processes("jobs", 1, resource_bundles(config)["jobs"][0])


def num_cpus(wanted: Iterable[Processes]) -> int:
    """CPUs that Ray reserves for these processes, in whole ones."""
    return math.ceil(sum(kind.count * kind.resources.get("CPU", 0) for kind in wanted))


def address_to_join(address: str | None = None) -> str | None:
    """The address of the cluster to join, or None to start Ray on this machine.

    Args:
        address: What the user says: HOST:PORT, "auto", "local" or None for what the variable
            RAY_ADDRESS says, as it does in a process that was submitted as a Ray job.
    """
    address = address or os.environ.get("RAY_ADDRESS")
    return None if address == "local" else address


def join_or_start(address: str | None = None, num_cpus: int = 1, **options: Any) -> None:
    """Joins a Ray cluster, or starts Ray on this machine.

    Args:
        address: The cluster's; see `address_to_join`.
        num_cpus: CPUs that a Ray started here has at least. If the machine has fewer, processes
            share them.
        **options: Further ones of `ray.init`.

    Raises:
        ValueError: If no cluster answers at the address, or it cannot be joined.
    """
    import ray

    if (joined := address_to_join(address)) is not None:
        _check_it_answers(joined)
        try:
            ray.init(address=joined, **options)
        except ConnectionError as error:
            # Once any Ray was started on a machine, `ray start` there asks for its token.
            hint = (
                "it asks for a token, so set RAY_AUTH_MODE=token"
                if "InvalidAuthToken" in str(error.__cause__)
                else " ".join(str(error).split()).rstrip(".")
            )
            raise ValueError(
                f"address is '{joined}', but the Ray cluster there cannot be joined: {hint}."
            ) from error
    else:
        cpus = max(os.cpu_count() or 1, num_cpus)
        # Else Ray keeps a record of each of the last 100,000 calls, which only its dashboard shows:
        # over hours some hundred megabytes.
        os.environ.setdefault("RAY_task_events_report_interval_ms", "0")
        # With the 15 of Ray env runners starve where a learner or anyone else keeps a core busy.
        os.environ.setdefault("RAY_worker_niceness", "0")
        # Without "local", Ray would join any cluster that it finds on this machine.
        ray.init(address="local", num_cpus=cpus, include_dashboard=False, **options)


def check_python_path() -> None:
    """Refuses to start what Ray gives a runtime environment, as Tune's trials, in some paths.

    Ray 2.60 puts the path of Python into a shell command without quotes: in a path with a space no
    such worker ever starts, and Tune would try for minutes.

    Raises:
        ValueError: If the path of Python has a space.
    """
    if " " in sys.executable:
        raise ValueError(
            f"Python is '{sys.executable}', but for sweeps it must be in a path without a space: "
            "Ray cannot start their trials otherwise."
        )


def check_room(wanted: Sequence[Processes]) -> None:
    """Checks that the cluster Ray is connected to can hold these processes when it is empty.

    What others use now is waited for. Where an autoscaler may add nodes, it is asked to, and has
    `room_timeout_s` for it. Nothing is checked inside a placement group, whose resources are
    reserved already.

    Raises:
        ValueError: With one sentence on what was asked for and what there is.
    """
    import ray

    if not ray.is_initialized():
        ray.init()  # as RLlib would a moment later
    if ray.util.get_current_placement_group() is not None:
        return
    nodes = _nodes()
    if can_be_placed(wanted, nodes):
        return
    if _autoscales():
        _wait_for_room(wanted)
    else:
        raise ValueError(
            f"{' and '.join(map(str, wanted))}, which the Ray cluster can never hold: it has "
            f"{_offer(wanted, nodes)}; lower their number, or what each of them reserves (such as "
            "num_cpus_per_env_runner)."
        )


def room_timeout_s() -> float:
    """Seconds that an autoscaler may take to make room, by the variable ODAC_ROOM_TIMEOUT_S.

    Raises:
        ValueError: If it is no positive number.
    """
    told = os.environ.get(ROOM_TIMEOUT) or str(DEFAULT_ROOM_TIMEOUT_S)
    try:
        seconds = float(told)
    except ValueError:
        seconds = math.nan
    if not seconds > 0:
        raise ValueError(f"{ROOM_TIMEOUT} is '{told}'; it must be a positive number of seconds.")
    return seconds


def no_room_in_time(wanted: Sequence[Processes]) -> ValueError | None:
    """What to raise when the deadline has passed; None if there is room, which others use."""
    nodes = _nodes()
    if can_be_placed(wanted, nodes):
        return None
    return ValueError(
        f"{' and '.join(map(str, wanted))}, for which the Ray cluster has made no room within "
        f"{room_timeout_s():g} s: it has {_offer(wanted, nodes)}; look at `ray status` for what it "
        f"tries to add, lower their number, or set {ROOM_TIMEOUT} to more seconds."
    )


def _wait_for_room(wanted: Sequence[Processes]) -> None:
    """Has the autoscaler add nodes, by a reservation that is given back when they are there."""
    from ray.util import placement_group, remove_placement_group

    timeout_s = room_timeout_s()
    deadline = time.monotonic() + timeout_s
    asked = " and ".join(map(str, wanted))
    logger.warning("Waiting up to %g s for the autoscaler to make room: %s.", timeout_s, asked)
    places = [kind.reserved for kind in wanted if kind.reserved for _ in range(kind.count)]
    reservation = placement_group(places)
    try:
        while no_room := no_room_in_time(wanted):
            if time.monotonic() > deadline:
                raise no_room
            reservation.wait(1.0)
    finally:
        remove_placement_group(reservation)


def _nodes() -> list[Mapping[str, float]]:
    """The resources of each node, used or not."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def has_room_now(wanted: Sequence[Processes]) -> bool:
    """Whether the processes find their places at once, beside what runs on the cluster now."""
    from rllib_odac.ray_compat import available_resources_per_node

    return can_be_placed(wanted, available_resources_per_node().values())


def can_be_placed(wanted: Sequence[Processes], nodes: Iterable[Mapping[str, float]]) -> bool:
    """Whether there is a way to place all processes on the nodes, each wholly on one of them.

    Exact. From node to node it carries every best combination of counts that the nodes so far can
    hold; there are few of them, because a run has few kinds of processes.

    Args:
        wanted: The processes.
        nodes: Resources of each node.
    """
    counts: Counter[Resources] = Counter()
    for kind in wanted:
        counts[_whole(kind.resources)] += kind.count
    counts.pop((), None)  # what needs nothing finds a place anywhere
    # The rarest kinds come first: fewer combinations have to be tried.
    kinds = tuple(sorted(counts, key=lambda kind: counts[kind]))
    goal = tuple(counts[kind] for kind in kinds)

    @cache
    def held_by(node: Resources) -> list[Counts]:
        return _best(_combinations(kinds, goal, dict(node)))

    best: list[Counts] = [(0,) * len(kinds)]
    for node in nodes:
        if goal in best:
            break
        sums = (
            tuple(min(most, old + new) for most, old, new in zip(goal, before, more, strict=True))
            for before in best
            for more in held_by(_whole(node))
        )
        best = _best(sums)
    return goal in best


def _combinations(
    kinds: Sequence[Resources], most: Counts, room: Mapping[str, int]
) -> Iterable[Counts]:
    """Counts of each kind that fit into the room together, as many of the last as still fit."""
    if not kinds:
        yield ()
        return
    kind, *rest = kinds
    fit = min(most[0], *(room.get(name, 0) // amount for name, amount in kind))
    for count in range(fit, -1, -1) if rest else [fit]:
        left = dict(room)
        for name, amount in kind:
            left[name] = left.get(name, 0) - count * amount
        for others in _combinations(rest, most[1:], left):
            yield count, *others


def _best(combinations: Iterable[Counts]) -> list[Counts]:
    """Those combinations that no other one has at least as many of everything as."""
    best: list[Counts] = []
    for candidate in sorted(set(combinations), reverse=True):
        if not any(all(c <= b for c, b in zip(candidate, other, strict=True)) for other in best):
            best.append(candidate)
    return best


def _whole(resources: Mapping[str, float]) -> Resources:
    return tuple(sorted((k, round(v * UNIT)) for k, v in resources.items() if round(v * UNIT) > 0))


def _amounts(resources: Mapping[str, float]) -> str:
    return ", ".join(f"{v:g} {k}" for k, v in resources.items() if v) or "no resources"


def _offer(wanted: Iterable[Processes], nodes: Iterable[Mapping[str, float]]) -> str:
    """What nodes have of the resources that are asked for, such as "2 nodes with 4 CPU"."""
    names = dict.fromkeys(name for kind in wanted for name, v in kind.resources.items() if v)
    kinds = Counter(_amounts({name: node.get(name, 0) for name in names}) for node in nodes)
    return " and ".join(
        f"{count} node{'s' if count > 1 else ''} with {amounts}"
        for amounts, count in kinds.most_common()
    )


def _check_it_answers(address: str) -> None:
    """Ray itself takes two minutes to notice, and then ends the process without a word."""
    from rllib_odac.ray_compat import canonical_address

    if "://" in address:
        return  # Ray Client has errors of its own
    try:
        resolved = canonical_address(address)
        if resolved is not None:
            host, _, port = resolved.rpartition(":")
            socket.create_connection((host.strip("[]"), int(port)), SECONDS_TO_ANSWER).close()
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise ValueError(
            f"address is '{address}', where no Ray cluster answers ({reason}); it must be "
            "HOST:PORT of one that runs, or auto."
        ) from None


def _autoscales() -> bool:
    """Whether Ray's autoscaler may add nodes; on a cluster put together by hand it only watches."""
    from rllib_odac.ray_compat import autoscaler_status

    is_v2, status = autoscaler_status()
    return is_v2 or has_node_types(status)


def has_node_types(status: bytes | None) -> bool:
    """Whether what the autoscaler reports, as JSON, names types of nodes that it can launch.

    It reports on nodes put together by hand too, and gives each a type called node_ID.
    """
    report = json.loads(status or "{}").get("autoscaler_report") or {}
    types = (report.get("node_type_mapping") or {}).values()
    return any(not name.startswith("node_") for name in types)
