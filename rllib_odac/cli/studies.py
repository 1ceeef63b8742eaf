"""`odac study` and `odac compare`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rllib_odac.cli.common import (
    Debug,
    errors_in_one_sentence,
    one_sentence,
    quiet_libraries,
    start_ray,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rllib_odac.experiments.study import StudyRun


def study(
    file: Annotated[Path, typer.Argument(help="A study: .yaml, or .py that defines `study`.")],
    out: Annotated[Path | None, typer.Option(help=r"Results \[runs/NAME OF THE FILE].")] = None,
    runs: Annotated[
        Path | None, typer.Option(help="Run directories, checkpoints and all [OUT/runs].")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(help=r"Runs at once \[as many as there are CPUs].")
    ] = None,
    tasks: Annotated[
        list[str] | None, typer.Option("--task", help="Only this task; may be repeated.")
    ] = None,
    methods: Annotated[
        list[str] | None, typer.Option("--method", help="Only this method; may be repeated.")
    ] = None,
    seeds: Annotated[
        list[int] | None, typer.Option("--seed", help="Only this seed; may be repeated.")
    ] = None,
    missing: Annotated[
        bool, typer.Option("--missing", help="Only list the runs that have no result yet.")
    ] = False,
    address: Annotated[
        str | None, typer.Option(help=r"Join this Ray cluster \[start Ray on this machine].")
    ] = None,
    debug: Debug = False,
) -> None:
    """Make every run of a study: tasks x methods x seeds. Started again, it goes on."""
    from rllib_odac.experiments.study import read_study, select, validate
    from rllib_odac.experiments.study_results import StudyResults
    from rllib_odac.experiments.study_runner import processes_of, run_study

    with errors_in_one_sentence(debug), quiet_libraries(debug):
        if jobs is not None and jobs < 1:
            raise ValueError(f"jobs is {jobs}, but must be at least 1.")
        planned = read_study(file)
        out = out or Path("runs") / file.stem
        results = StudyResults(planned, out)
        chosen = select(planned.runs(), tasks, methods, seeds)
        todo = results.missing(chosen)
        if missing:
            for run in todo:
                print(run)
            return
        failures = []
        if todo:
            # Every mistake shows here, before Ray starts.
            validate(chosen)
            wanted = processes_of(todo, jobs or 1)
            start_ray(wanted, debug, address, sum(kind.count for kind in wanted))
            reporter = _Reporter(len(chosen), len(chosen) - len(todo))
            failures = run_study(
                planned, out, runs, jobs, chosen, on_start=reporter.start, on_end=reporter.end
            )
        for run, error in failures:
            print(f"error: {run}: {one_sentence(error)}", file=sys.stderr)
        print(results.path)
        if failures:
            raise typer.Exit(1)


def compare(
    directories: Annotated[list[Path], typer.Argument(help="Runs, sweeps and results of studies.")],
    metric: Annotated[
        str, typer.Option(help="success_rate, final_distance or normalized_distance.")
    ] = "success_rate",
    threshold: Annotated[
        float, typer.Option(help="Success rate whose first time is shown, in (0, 1].")
    ] = 0.9,
    baseline: Annotated[
        str | None, typer.Option(help=r"Method the others are compared with \[the study's].")
    ] = None,
    curve: Annotated[
        str, typer.Option(help="Column of progress that the picture's curves show.")
    ] = "success_rate",
    out: Annotated[
        Path | None, typer.Option(help="Also write compare.txt, .md, .csv and .png there.")
    ] = None,
    style: Annotated[
        str, typer.Option("--format", help="What is printed: text, markdown or csv.")
    ] = "text",
    debug: Debug = False,
) -> None:
    """Compare runs, those of sweeps, and the methods of studies: tables, intervals and pictures."""
    with errors_in_one_sentence(debug), quiet_libraries(debug):
        from rllib_odac.evaluation.compare import Comparison, read_studies
        from rllib_odac.evaluation.comparison_files import format_comparison, write_comparison

        comparison = Comparison(read_studies(directories), metric, threshold, baseline, curve)
        print(format_comparison(comparison, style), end="")
        if out is not None:
            for path in write_comparison(comparison, out):
                print(path, file=sys.stderr)


class _Reporter:
    """A line when a run starts and one when it ends."""

    def __init__(self, runs: int, ended: int) -> None:
        self._runs = runs
        self._ended = ended

    def start(self, run: StudyRun) -> None:
        """Shows that a run starts."""
        print(f"{run}: starts", flush=True)

    def end(self, run: StudyRun, row: Mapping[str, str] | None) -> None:
        """Shows how a run ended."""
        self._ended += 1
        print(f"{self._ended}/{self._runs} {run}: {_figures(row)}", flush=True)


def _figures(row: Mapping[str, str] | None) -> str:
    if row is None:
        return "failed"
    return (
        f"success {100 * float(row['success_rate']):.0f} %, final distance "
        f"{float(row['final_distance']):.3g} ({float(row['normalized_distance']):.3g} %), "
        f"{float(row['wall_s']):.0f} s"
    )
