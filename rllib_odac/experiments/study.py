"""A study: tasks × methods × seeds, and the runs that it consists of.

A YAML file holds the fields of `Study`; a Python file defines `study`, an instance:

    tasks:
      reach: fetch_reach.json            # a run's settings, beside this file or tuned ones
      box: {env: odac/Box2D-v0, steps: 60000}
    methods:
      odac: {}
      her: {objective: her, settings: {kl_weight: 0.05}}
    seeds: 5
"""

from __future__ import annotations

import hashlib
import json
import re
import runpy
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from rllib_odac.declarations import COUNT, SEED, TEXT, Rule, is_number
from rllib_odac.experiments.spec import RunSpec, check_fields, check_mapping
from rllib_odac.experiments.spec_files import RUN_FIELDS, explained, read_yaml, run_fields
from rllib_odac.metrics import FIGURES

# Without a hyphen, so that the name of a run's files, TASK-METHOD-SEED, is unique.
_NAME = re.compile(r"[A-Za-z0-9_.]+")
_Seeds = int | Sequence[int]
SEEDS = Rule(
    lambda v: COUNT.allows(v) or (len({*v}) == len(v) > 0 and all(map(SEED.allows, v))),
    "a whole number of at least 1, or a list of different seeds in [0, 2^32)",
)
MEAN_AND_STD = Rule(lambda v: len(v) == 2 and all(map(is_number, v)), "mean and standard deviation")


@dataclass(frozen=True)
class StudyRun:
    """One run of a study.

    Attributes:
        task: Its task's name.
        method: Its method's name.
        spec: What to run; its seed is the run's.
    """

    task: str
    method: str
    spec: RunSpec

    def __str__(self) -> str:
        return f"{self.task} {self.method} seed {self.spec.seed}"

    @property
    def key(self) -> tuple[str, str, int]:
        """Task, method and seed."""
        return self.task, self.method, self.spec.seed

    @property
    def name(self) -> str:
        """What its files are called."""
        return f"{self.task}-{self.method}-{self.spec.seed}"

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits that differ where anything but the seed does."""
        changed = replace(self.spec, seed=RunSpec.seed).changed_fields()
        changed["checkpoint_every"] = self.spec.checkpoint_interval
        return hashlib.sha256(json.dumps(changed, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def command(self) -> str:
        """The `odac train` command of the same run."""
        options = {"seed": self.spec.seed, **self.spec.changed_fields()}
        settings = options.pop("settings", {})
        words = ["odac", "train", options.pop("env"), "--untuned"]
        for name, value in options.items():
            words += [f"--{name.replace('_', '-')}", str(value)]
        for name, value in settings.items():
            words += ["--set", f"{name}={value if isinstance(value, str) else repr(value)}"]
        return shlex.join(words)


@dataclass
class Study:
    """Tasks × methods × seeds.

    A run's fields of `RunSpec` are its task's, overridden by its method's, overridden by those in
    `overrides`; `settings` are merged key by key.

    Attributes:
        tasks: By name, a path to a run's settings as JSON, or fields of `RunSpec`.
        methods: By name, fields of `RunSpec`; {} for those of the task.
        seeds: A number, n for 0 to n − 1, or a list; or one of both for each task, by name.
        overrides: By "task/method", fields of `RunSpec`.
        labels: By method, what it is called in tables and pictures.
        reference: By task and method, mean and standard deviation published elsewhere.
        reference_name: Where that is.
        reference_metric: What it measures, a figure of `odac train`.
        baseline: The method that the others are compared with; by default the first.
        directory: What paths of tasks are relative to; `read_study` puts the file's.

    Raises:
        ValueError: With one sentence on the first thing that is wrong.
    """

    tasks: Mapping[str, str | Mapping[str, Any]]
    methods: Mapping[str, Mapping[str, Any]]
    seeds: _Seeds | Mapping[str, _Seeds] = 3
    overrides: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    reference: Mapping[str, Mapping[str, Sequence[float]]] = field(default_factory=dict)
    reference_name: str = "paper"
    reference_metric: str = "normalized_distance"
    baseline: str | None = None
    directory: Path = field(default_factory=Path)

    def __post_init__(self) -> None:
        for name in ("tasks", "methods"):
            value = getattr(self, name)
            if not isinstance(value, Mapping) or not value:
                raise ValueError(
                    f"{name} is {value!r}, but must be a mapping with at least one entry."
                )
        for name in (*self.tasks, *self.methods):
            if not isinstance(name, str) or not _NAME.fullmatch(name):
                raise ValueError(
                    f"A task or method is called {name!r}, but its name must consist of letters, "
                    "digits, '_' and '.'."
                )
        for method, label in check_mapping("labels", self.labels, self.methods).items():
            TEXT.check(f"labels['{method}']", label)
        pairs = [f"{task}/{method}" for task in self.tasks for method in self.methods]
        check_mapping("overrides", self.overrides, pairs)
        for task, published in check_mapping("reference", self.reference, self.tasks).items():
            where = f"reference['{task}']"
            for method, figures in check_mapping(where, published, self.methods).items():
                MEAN_AND_STD.check(f"{where}['{method}']", figures)
        _check_choice("reference_metric", self.reference_metric, FIGURES)
        if self.baseline is None:
            self.baseline = next(iter(self.methods))
        _check_choice("baseline", self.baseline, self.methods)
        if isinstance(self.seeds, Mapping) and set(self.seeds) != set(self.tasks):
            raise ValueError(
                f"seeds are given for {sorted(self.seeds)}, but must be for {sorted(self.tasks)}."
            )
        for task in self.tasks:
            self.seeds_of(task)

    def seeds_of(self, task: str) -> list[int]:
        """The seeds of a task's runs."""
        seeds = self.seeds[task] if isinstance(self.seeds, Mapping) else self.seeds
        SEEDS.check("seeds", seeds)
        return list(range(seeds) if isinstance(seeds, int) else seeds)

    def runs(self) -> list[StudyRun]:
        """All runs, in the order of tasks, methods and seeds.

        Raises:
            ValueError: If a task's file cannot be read, or fields make no sense.
        """
        runs = []
        for task, given in self.tasks.items():
            of_task = run_fields(f"task '{task}'", given, self.directory)
            for method, of_method in self.methods.items():
                pair = f"{task}/{method}"
                merged = _merged(
                    of_task,
                    check_fields(f"method '{method}'", of_method, RUN_FIELDS),
                    check_fields(f"override '{pair}'", self.overrides.get(pair, {}), RUN_FIELDS),
                )
                if "env" not in merged:
                    raise ValueError(f"task '{task}' names no env.")
                for seed in self.seeds_of(task):
                    runs.append(StudyRun(task, method, RunSpec(**merged, seed=seed)))
        return runs


def read_study(path: Path) -> Study:
    """The study in a YAML or Python file.

    Raises:
        ValueError: If the file cannot be read, or what it holds makes no sense.
    """
    if path.suffix not in (".yaml", ".yml", ".py"):
        raise ValueError(f"study is '{path}', but must be a .yaml or a .py file.")
    if not path.is_file():
        raise ValueError(f"study is '{path}', which does not exist.")
    if path.suffix == ".py":
        try:
            study = runpy.run_path(str(path)).get("study")
        except Exception as error:
            raise ValueError(f"study '{path}': {type(error).__name__}: {error}") from error
        if not isinstance(study, Study):
            raise ValueError(f"study '{path}' must define `study`, a Study.")
        return replace(study, directory=path.parent / study.directory)
    stored = read_yaml(path, [field.name for field in fields(Study) if field.name != "directory"])
    if not {"tasks", "methods"} <= set(stored):
        raise ValueError(f"study is '{path}', but must hold tasks and methods.")
    with explained(f"study '{path}'"):
        return Study(**stored, directory=path.parent)


def select(
    runs: Sequence[StudyRun],
    tasks: Iterable[str] | None = None,
    methods: Iterable[str] | None = None,
    seeds: Iterable[int] | None = None,
) -> list[StudyRun]:
    """The runs of some tasks, methods and seeds; None stands for all.

    Raises:
        ValueError: If there is none of a name.
    """
    chosen = list(runs)
    for i, (what, names) in enumerate((("task", tasks), ("method", methods), ("seed", seeds))):
        known = dict.fromkeys(run.key[i] for run in runs)
        for name in names or ():
            _check_choice(what, name, known)
        chosen = [run for run in chosen if not names or run.key[i] in names]
    return chosen


def validate(runs: Iterable[StudyRun]) -> None:
    """Checks the settings and environments of runs, once for all seeds.

    Raises:
        ValueError: With one sentence that names task, method and setting.
    """
    for (task, method), run in {run.key[:2]: run for run in runs}.items():
        with explained(f"{task}/{method}"):
            run.spec.config()


def _check_choice(where: str, value: Any, allowed: Iterable[Any]) -> None:
    """Raises a ValueError if a value is not among those allowed."""
    if value not in (choices := list(allowed)):
        raise ValueError(f"{where} has {value!r}, but must use one of {choices}.")


def _merged(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a run, the later layers overriding the earlier, `settings` key by key."""
    merged: dict[str, Any] = {}
    settings: dict[str, Any] = {}
    for layer in layers:
        merged |= layer
        settings |= layer.get("settings", {})
    return {**merged, "settings": settings}
