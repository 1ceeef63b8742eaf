"""A study: tasks × methods × seeds, and the runs that it consists of.

A YAML file holds the fields of `Study`, a Python file defines `study`, one that is made already:

    tasks:
      reach: fetch_reach.json            # a run's settings, beside this file
      box: {env: odac/Box2D-v0, steps: 60000}
    methods:
      odac: {}
      her: {objective: her, settings: {kl_weight: 0.05}}
    seeds: 5
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import runpy
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import yaml

from rllib_odac.experiments.run import FIGURES, RunSpec, read_spec

# Without a hyphen, so that the name of a run's files, TASK-METHOD-SEED, is no other's.
_NAME = re.compile(r"[A-Za-z0-9_.]+")
_Seeds = int | Sequence[int]


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
        told = {name: value for name, value in told_fields(self.spec).items() if name != "seed"}
        told["checkpoint_every"] = self.spec.checkpoint_interval
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def command(self) -> str:
        """The `odac train` command of the same run."""
        told = {"seed": self.spec.seed, **told_fields(self.spec)}
        settings = told.pop("settings", {})
        words = ["odac", "train", told.pop("env")]
        for name, value in told.items():
            words += [f"--{name.replace('_', '-')}", str(value)]
        for name, value in settings.items():
            words += ["--set", f"{name}={value if isinstance(value, str) else repr(value)}"]
        return shlex.join(words)


def told_fields(spec: RunSpec) -> dict[str, Any]:
    """The fields that differ from their defaults, so that a new one changes nothing old."""
    defaults = {
        field.name: field.default if field.default_factory is MISSING else field.default_factory()
        for field in fields(RunSpec)
    }
    return {name: value for name, value in asdict(spec).items() if value != defaults[name]}


@dataclass
class Study:
    """Tasks × methods × seeds.

    What a run does is put together from its task's fields of `RunSpec`, its method's and its
    override's; the later come before the earlier, in `settings` key by key.

    Attributes:
        tasks: By name, a path to a run's settings as JSON, or fields of `RunSpec`.
        methods: By name, fields of `RunSpec`; {} for those of the task.
        seeds: A number, n for 0 to n − 1, or a list; or one of both for each task, by name.
        overrides: By "task/method", fields of `RunSpec`.
        labels: By method, the text that stands for it in tables and pictures.
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
        for name in ("tasks", "methods", "overrides", "labels", "reference"):
            value = getattr(self, name)
            least = 1 if name in ("tasks", "methods") else 0
            if not isinstance(value, Mapping) or len(value) < least:
                raise ValueError(
                    f"{name} is {value!r}, but must be a mapping with at least {least} entries."
                )
        for name in (*self.tasks, *self.methods):
            if not isinstance(name, str) or not _NAME.fullmatch(name):
                raise ValueError(
                    f"A task or method is called {name!r}, but its name must consist of letters, "
                    "digits, '_' and '.'."
                )
        for method, label in self.labels.items():
            _choose("labels", method, self.methods)
            if not isinstance(label, str):
                raise ValueError(f"labels['{method}'] is {label!r}, but must be a text.")
        pairs = [f"{task}/{method}" for task in self.tasks for method in self.methods]
        for pair in self.overrides:
            _choose("overrides", pair, pairs)
        for task, published in self.reference.items():
            _choose("reference", task, self.tasks)
            _check_reference(task, published, self.methods)
        _choose("reference_metric", self.reference_metric, FIGURES)
        if self.baseline is None:
            self.baseline = next(iter(self.methods))
        _choose("baseline", self.baseline, self.methods)
        if isinstance(self.seeds, Mapping) and set(self.seeds) != set(self.tasks):
            raise ValueError(
                f"seeds are given for {sorted(self.seeds)}, but must be for {sorted(self.tasks)}."
            )
        for task in self.tasks:
            self.seeds_of(task)

    def seeds_of(self, task: str) -> list[int]:
        """The seeds of a task's runs."""
        seeds = self.seeds[task] if isinstance(self.seeds, Mapping) else self.seeds
        listed = list(range(seeds)) if _is_count(seeds) and isinstance(seeds, int) else seeds
        if (
            not isinstance(listed, Sequence)
            or not listed
            or not all(_is_count(seed) for seed in listed)
            or len(set(listed)) < len(listed)
        ):
            raise ValueError(
                f"seeds is {seeds!r}, but must be a number of at least 1, or a list of different "
                "whole numbers of at least 0."
            )
        return list(listed)

    def runs(self) -> list[StudyRun]:
        """All runs, in the order of tasks, methods and seeds.

        Raises:
            ValueError: If a task's file cannot be read, or fields make no sense.
        """
        found = []
        for task, told in self.tasks.items():
            below = self._task_fields(task, told)
            for method, fields_of_method in self.methods.items():
                above = _fields(f"method '{method}'", fields_of_method)
                pair = f"{task}/{method}"
                top = _fields(f"override '{pair}'", self.overrides.get(pair, {}))
                merged = _laid_over(_laid_over(below, above), top)
                if "env" not in merged:
                    raise ValueError(f"task '{task}' names no env.")
                spec = RunSpec(**merged)
                found += [
                    StudyRun(task, method, replace(spec, seed=seed)) for seed in self.seeds_of(task)
                ]
        return found

    def _task_fields(self, task: str, told: str | Mapping[str, Any]) -> dict[str, Any]:
        with _about(f"task '{task}'"):
            if isinstance(told, str | Path):
                told = read_spec(self.directory / told)
                told.pop("seed", None)  # which a run's own config.json names
        return _fields(f"task '{task}'", told)


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
    try:
        stored = yaml.safe_load(path.read_text())
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ValueError(f"study is '{path}', which cannot be read: {error}.") from None
    known = [field.name for field in fields(Study) if field.name != "directory"]
    if not isinstance(stored, dict) or not {"tasks", "methods"} <= set(stored):
        raise ValueError(f"study is '{path}', but must hold tasks and methods.")
    for name in stored:
        if name not in known:
            raise ValueError(f"study '{path}' has the key '{name}', but must use {known}.")
    with _about(f"study '{path}'"):
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
        known = list(dict.fromkeys(run.key[i] for run in runs))
        for name in names or ():
            _choose(what, name, known)
        chosen = [run for run in chosen if not names or run.key[i] in names]
    return chosen


def validate(runs: Iterable[StudyRun]) -> None:
    """Checks the settings and environments of runs, once for all seeds.

    Raises:
        ValueError: With one sentence that names task, method and setting.
    """
    for (task, method), run in {run.key[:2]: run for run in runs}.items():
        with _about(f"{task}/{method}"):
            run.spec.config()


def _fields(where: str, told: Any) -> dict[str, Any]:
    """Fields of a `RunSpec` as JSON would give them back, so that equal runs compare equal."""
    known = [field.name for field in fields(RunSpec) if field.name != "seed"]
    if not isinstance(told, Mapping) or not isinstance(told.get("settings", {}), Mapping):
        raise ValueError(
            f"{where} is {told!r}, but must be a mapping with some of {known}, 'settings' being "
            "a mapping too."
        )
    for name in told:
        if name not in known:
            raise ValueError(f"{where} has the field '{name}', but must use {known}.")
    try:
        plain: dict[str, Any] = json.loads(json.dumps(dict(told)))
    except TypeError as error:
        raise ValueError(f"{where} must be such as JSON can hold: {error}.") from None
    return plain


def _laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    settings = {**below.get("settings", {}), **above.get("settings", {})}
    return {**below, **above, "settings": settings}


@contextlib.contextmanager
def _about(what: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{what}: {error}") from error


def _choose(what: str, name: Any, allowed: Iterable[Any]) -> None:
    if name not in list(allowed):
        raise ValueError(f"{what} has {name!r}, but must use one of {list(allowed)}.")


def _check_reference(task: str, published: Any, methods: Iterable[str]) -> None:
    if not isinstance(published, Mapping):
        raise ValueError(f"reference['{task}'] is {published!r}, but must be a mapping.")
    for method, figures in published.items():
        _choose(f"reference['{task}']", method, methods)
        if (
            not isinstance(figures, Sequence)
            or len(figures) != 2
            or not all(isinstance(figure, int | float) for figure in figures)
        ):
            raise ValueError(
                f"reference['{task}']['{method}'] is {figures!r}, but must be mean and standard "
                "deviation."
            )


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
