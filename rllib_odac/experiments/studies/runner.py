"""The runs of a study as Ray tasks: each in a worker process and a run directory of its own."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rllib_odac.experiments.run import Run, RunSpec, read_spec
from rllib_odac.experiments.studies.results import StudyResults
from rllib_odac.experiments.studies.study import Study, StudyRun
from rllib_odac.files import locked
from rllib_odac.runtime.cluster import Processes, check_room, num_cpus, own_process, processes

PATIENCE = 60.0  # seconds; a worker whose driver was killed lives for some more


def run_study(
    study: Study,
    out: str | os.PathLike[str],
    runs: str | os.PathLike[str] | None = None,
    jobs: int | None = None,
    chosen: Sequence[StudyRun] | None = None,
    on_start: Callable[[StudyRun], None] = lambda run: None,
    on_end: Callable[[StudyRun, Mapping[str, str] | None], None] = lambda run, row: None,
) -> list[tuple[StudyRun, Exception]]:
    """Makes those runs of a study that have no row yet; a run that fails does not stop the others.

    Started again after an interruption, it goes on from each run's newest checkpoint. Ray is
    started if it does not run; the directories must be the same ones on all of its machines.

    Args:
        study: The study.
        out: Directory of the results.
        runs: Directory of the run directories, by default `out`/runs. A run that has finished
            there already is not made again.
        jobs: Runs at once; by default as many as Ray has CPUs for.
        chosen: Some of `study.runs()`; by default all.
        on_start: Called with a run that is about to start.
        on_end: Called with a run and its row, or None if it failed.

    Returns:
        The runs that failed, each with what it raised.

    Raises:
        ValueError: If `out` holds other results, another process is writing to it, or the cluster
            can never hold one of the runs.
    """
    import ray

    if not ray.is_initialized():
        ray.init(include_dashboard=False)
    failures = []
    with StudyResults(study, out) as results:
        directory = results.out / "runs" if runs is None else Path(runs).absolute()
        waiting = results.missing(study.runs() if chosen is None else chosen)
        room = _room_for(waiting)
        at_once = jobs or room
        running: dict[Any, tuple[StudyRun, Any]] = {}
        try:
            while waiting or running:
                while waiting and len(running) < at_once:
                    run = waiting.pop(0)
                    on_start(run)
                    reference, group = _start(run.spec, directory / run.name, at_once)
                    running[reference] = run, group
                [reference], _ = ray.wait(list(running), num_returns=1)
                run, group = running[reference]
                try:
                    summary, curve = ray.get(reference)
                except Exception as error:
                    failures.append((run, error))
                    on_end(run, None)
                else:
                    on_end(run, results.add(run, summary, curve))
                ray.util.remove_placement_group(group)
                del running[reference]
        finally:  # an interrupted study leaves no run that trains on
            for _, group in running.values():
                ray.util.remove_placement_group(group)
    return failures


def processes_of(runs: Iterable[StudyRun], jobs: int = 1) -> list[Processes]:
    """What the largest of the runs needs, so many times."""
    kinds = {run.key[:2]: run.spec for run in runs}.values()  # a seed makes no difference
    largest = max(map(_processes, kinds), key=num_cpus, default=[])
    return [replace(kind, count=jobs * kind.count) for kind in largest]


def _processes(spec: RunSpec) -> list[Processes]:
    config = spec.config()
    return [own_process(config), *processes(config)]


def train_run(spec: RunSpec, directory: Path, jobs: int) -> tuple[dict[str, Any], str]:
    """Makes a run, or what is left of it; this is what a Ray worker does.

    Args:
        spec: What to run.
        directory: Its directory.
        jobs: Runs at once, to be noted.

    Returns:
        Its summary.json with the machine it was made on, and its progress.csv.

    Raises:
        ValueError: If the directory holds another run, or another process trains into it.
    """
    directory.mkdir(parents=True, exist_ok=True)
    lock = directory.with_name(f"{directory.name}.lock")  # a run's directory must be empty at first
    with locked(lock, f"'{directory}'", PATIENCE):
        (directory / "config.json.partial").unlink(missing_ok=True)  # killed in its first moment
        _check_is_this_run(spec, directory)
        machine = directory / "machine.json"

        def note_machine(row: Mapping[str, Any]) -> None:
            content = {"cpu": cpu_model(), "cores": os.cpu_count(), "jobs": jobs}
            machine.write_text(json.dumps(content))

        summary = Run(spec, directory, resume=True, on_row=note_machine).train()
        # A run that was made elsewhere and only picked up here does not say on which machine.
        made_on = json.loads(machine.read_text()) if machine.exists() else {}
        return summary | made_on, (directory / "progress.csv").read_text()


def cpu_model() -> str:
    """The name of this machine's processor."""
    path = Path("/proc/cpuinfo")
    for line in path.read_text().splitlines() if path.exists() else ():
        if line.startswith("model name"):
            return line.split(":")[1].strip()
    return platform.processor()


def _start(spec: RunSpec, directory: Path, jobs: int) -> tuple[Any, Any]:
    """Starts a run in a reservation of its own, where its env runners and learners find room."""
    import ray
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    wanted = _processes(spec)
    # In the order in which RLlib, too, numbers them: its env runners ask for a place by its number.
    places = [kind.reserved for kind in wanted for _ in range(kind.count)]
    group = ray.util.placement_group(places)
    # A process serves one run only, so that none sees what another left behind.
    remote = ray.remote(max_calls=1)(train_run).options(
        num_cpus=places[0].get("CPU", 0),
        num_gpus=places[0].get("GPU", 0),
        scheduling_strategy=PlacementGroupSchedulingStrategy(
            group, placement_group_bundle_index=0, placement_group_capture_child_tasks=True
        ),
    )
    return remote.remote(spec, directory, jobs), group


def _room_for(runs: Sequence[StudyRun]) -> int:
    """How many of the runs Ray's CPUs hold at once."""
    import ray

    wanted = processes_of(runs)
    check_room(wanted)
    cpus = int(ray.cluster_resources().get("CPU", 0))
    return max(1, cpus // max(1, num_cpus(wanted)))


def _check_is_this_run(spec: RunSpec, directory: Path) -> None:
    """`Run` goes on with a run that was shorter; here, each must be as if left alone."""
    path = directory / "config.json"
    if not path.exists():
        return
    stored, wanted = (
        asdict(replace(one, checkpoint_every=one.checkpoint_interval))
        for one in (RunSpec(**read_spec(path)), spec)
    )
    for name, value in wanted.items():
        if stored[name] != value:
            raise ValueError(
                f"{name} is {value!r}, but the run in '{directory}' has {stored[name]!r}; give "
                "another --runs."
            )
