"""The runs of a study as Ray tasks: each in a worker process and a run directory of its own."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rllib_odac.experiments.run import Run
from rllib_odac.experiments.spec import RunSpec, check_same, read_spec
from rllib_odac.experiments.study import Study, StudyRun
from rllib_odac.experiments.study_results import StudyResults
from rllib_odac.files import PARTIAL, locked
from rllib_odac.runtime.cluster import Processes, check_room, num_cpus, own_process, processes

LOCK_TIMEOUT_S = 60.0  # a worker whose driver was killed lives on for some seconds


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

    Started again after an interruption, it resumes each run from its newest checkpoint. Ray is
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
        jobs = jobs or _room_for(waiting)
        running: dict[Any, tuple[StudyRun, Any]] = {}  # by the task's reference
        try:
            while waiting or running:
                while waiting and len(running) < jobs:
                    run = waiting.pop(0)
                    on_start(run)
                    reference, group = _start(run.spec, directory / run.name, jobs)
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
        finally:  # which also ends the runs of an interrupted study
            for _, group in running.values():
                ray.util.remove_placement_group(group)
    return failures


def processes_of(runs: Iterable[StudyRun], jobs: int = 1) -> list[Processes]:
    """The processes of the largest of the runs, `jobs` times."""
    specs = {run.key[:2]: run.spec for run in runs}.values()  # a seed makes no difference
    largest = max(map(_processes, specs), key=num_cpus, default=[])
    return [replace(kind, count=jobs * kind.count) for kind in largest]


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
    with locked(lock, f"'{directory}'", LOCK_TIMEOUT_S):
        (directory / f"config.json{PARTIAL}").unlink(missing_ok=True)  # of a run killed at once
        _check_same_run(spec, directory)
        machine = directory / "machine.json"

        def note_machine(row: Mapping[str, Any]) -> None:
            content = {"cpu": cpu_model(), "cores": os.cpu_count(), "jobs": jobs}
            machine.write_text(json.dumps(content))

        summary = Run(spec, directory, resume=True, on_row=note_machine).train()
        # Where a run was made elsewhere and only its results are taken, the machine is unknown.
        made_on = json.loads(machine.read_text()) if machine.exists() else {}
        return summary | made_on, (directory / "progress.csv").read_text()


def cpu_model() -> str:
    """The name of this machine's processor."""
    path = Path("/proc/cpuinfo")
    for line in path.read_text().splitlines() if path.exists() else ():
        if line.startswith("model name"):
            return line.split(":")[1].strip()
    return platform.processor()


def _processes(spec: RunSpec) -> list[Processes]:
    config = spec.config()
    return [own_process(config), *processes(config)]


def _room_for(runs: Sequence[StudyRun]) -> int:
    """How many of the runs Ray's CPUs hold at once."""
    import ray

    wanted = processes_of(runs)
    check_room(wanted)
    cpus = int(ray.cluster_resources().get("CPU", 0))
    return max(1, cpus // max(1, num_cpus(wanted)))


def _start(spec: RunSpec, directory: Path, jobs: int) -> tuple[Any, Any]:
    """Starts a run in a placement group of its own, where its env runners and learners fit too."""
    import ray
    from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

    # In RLlib's own order: its env runners ask for a bundle by its number.
    bundles = [kind.reserved for kind in _processes(spec) for _ in range(kind.count)]
    group = ray.util.placement_group(bundles)
    # A process serves one run only, so that none sees what another left behind.
    remote = ray.remote(max_calls=1)(train_run).options(
        num_cpus=bundles[0].get("CPU", 0),
        num_gpus=bundles[0].get("GPU", 0),
        scheduling_strategy=PlacementGroupSchedulingStrategy(
            group, placement_group_bundle_index=0, placement_group_capture_child_tasks=True
        ),
    )
    return remote.remote(spec, directory, jobs), group


def _check_same_run(spec: RunSpec, directory: Path) -> None:
    """Refuses any difference: `Run` may go on with a run that was shorter, a study may not."""
    path = directory / "config.json"
    if not path.exists():
        return
    interval = spec.checkpoint_interval_with(spec.config())
    wanted = asdict(replace(spec, checkpoint_every=interval))
    stored = asdict(RunSpec(**read_spec(path)))
    check_same(wanted, stored, f"the run in '{directory}'", "give another --runs")
