"""Which configurations a sweep tries, each with every seed, and which trials it ends early."""

from __future__ import annotations

import functools
import math
import pickle
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, PopulationBasedTraining
from ray.tune.search import Searcher
from ray.tune.search.basic_variant import BasicVariantGenerator
from ray.tune.search.search_generator import SearchGenerator

from rllib_odac.experiments.sweeps.space import MUTABLE, Domain
from rllib_odac.experiments.sweeps.spec import SweepSpec

TIME = "env_steps"  # what schedulers compare trials by
PERTURBATIONS = 8  # of each member of a population


def draw_configurations(spec: SweepSpec, number: int, seed: int) -> list[dict[str, Any]]:
    """The base's own configuration, then random ones."""
    rng = np.random.default_rng(seed)
    drawn = [
        {name: domain.draw(rng) for name, domain in spec.space.items()} for _ in range(number - 1)
    ]
    return [spec.defaults(), *drawn]


class Drawn(BasicVariantGenerator):
    """The first `number` configurations, each with each seed, in this order.

    It gives numbers of configurations, and the space, `Drawn.space`, looks their values up: of a
    value itself, Tune would take lists apart (a learning rate's schedule, layers' widths) and
    compare texts with numbers. Made for more configurations than a sweep had before, it goes on
    with the further ones once that sweep is restored.
    """

    def __init__(self, number: int, seeds: Sequence[int]) -> None:
        points = [{"configuration": n, "seed": seed} for n in range(number) for seed in seeds]
        super().__init__(points_to_evaluate=points)

    @staticmethod
    def space(spec: SweepSpec, seeds: Sequence[int], seed: int) -> dict[str, Any]:
        """Tune's space of the configurations that `draw_configurations` draws with a seed."""
        space = {
            name: tune.sample_from(functools.partial(_value, spec, seed, name))
            for name in spec.space
        }
        return space | {"configuration": tune.randint(0, 2**31), "seed": tune.choice(list(seeds))}

    def restore_from_dir(self, dirpath: str) -> None:
        """Reads what was drawn and what is left of it, and appends what is new."""
        wanted = list(self._points_to_evaluate)  # type: ignore[has-type]
        super().restore_from_dir(dirpath)
        more = wanted[self._total_samples :]
        (points,) = self._iterators
        points.points_to_evaluate += more
        points.num_samples_left += len(more)
        self._points_to_evaluate = wanted
        self._total_samples += len(more)
        if more:
            self._finished = False


def _value(spec: SweepSpec, seed: int, name: str, point: Any) -> Any:
    return draw_configurations(spec, point.config.configuration + 1, seed)[-1][name]


class Suggested(SearchGenerator):
    """So many trials as a searcher suggests, or more of a sweep that is restored."""

    def __init__(self, searcher: Searcher, number: int) -> None:
        super().__init__(searcher)
        self._wanted = number

    def restore_from_dir(self, dirpath: str) -> None:
        """Reads what was suggested."""
        super().restore_from_dir(dirpath)
        if self._wanted > self.total_samples:
            self._total_samples, self._finished = self._wanted, False


class OptunaSearcher(Searcher):
    """The base's own configuration, then Optuna's suggestions, each with every seed.

    Optuna's TPE sampler sees the mean over seeds of a configuration's last figures, so that it
    learns nothing from the luck of one seed.

    Args:
        spec: What is searched.
        seeds: Seeds of each configuration.
        seed: Optuna's own.
    """

    def __init__(self, spec: SweepSpec, seeds: Sequence[int], seed: int) -> None:
        import optuna

        super().__init__(metric=spec.metric, mode=spec.mode)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._space = dict(spec.space)
        self._seeds = list(seeds)
        self._optuna = optuna.create_study(
            sampler=optuna.samplers.TPESampler(seed=seed),
            direction="maximize" if spec.mode == "max" else "minimize",
        )
        self._current: tuple[Any, dict[str, Any]] = (None, spec.defaults())
        self._suggested = 0
        self._trials: dict[str, Any] = {}  # Optuna's trials by Tune's trial id
        self._values: dict[int, list[float]] = {}  # by number of Optuna's trial, one a seed

    def suggest(self, trial_id: str) -> dict[str, Any]:
        """The next configuration and seed."""
        configuration, index = divmod(self._suggested, len(self._seeds))
        if configuration > 0 and index == 0:
            trial = self._optuna.ask()
            values = {name: _suggest(trial, name, d) for name, d in self._space.items()}
            self._current = trial, values
        self._suggested += 1
        trial, values = self._current
        self._trials[trial_id] = trial
        return {**values, "configuration": configuration, "seed": self._seeds[index]}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Collects the metric of each seed, and gives Optuna the mean when all have ended."""
        import optuna

        trial = self._trials.pop(trial_id, None)
        if trial is None:  # the base's own configuration, or one that has ended before
            return
        values = self._values.setdefault(trial.number, [])
        values.append(math.nan if error or not result else float(result[self.metric]))
        if len(values) < len(self._seeds):
            return
        known = [value for value in values if math.isfinite(value)]
        if known:
            self._optuna.tell(trial, float(np.mean(known)))
        else:
            self._optuna.tell(trial, state=optuna.trial.TrialState.FAIL)

    def save(self, checkpoint_path: str) -> None:
        """Writes everything that a restored search needs."""
        with open(checkpoint_path, "wb") as file:
            pickle.dump(self.__dict__, file)

    def restore(self, checkpoint_path: str) -> None:
        """Reads what `save` wrote."""
        with open(checkpoint_path, "rb") as file:
            self.__dict__.update(pickle.load(file))


def make_scheduler(name: str, spec: SweepSpec) -> Any:
    """Tune's scheduler of that name: "asha", "pbt" or "none"."""
    steps = spec.base.steps
    if name == "asha":
        return ASHAScheduler(
            time_attr=TIME, max_t=steps, grace_period=spec.grace_steps, reduction_factor=3
        )
    if name == "pbt":
        space = {name: domain for name, domain in spec.space.items() if name in MUTABLE}
        return PopulationBasedTraining(
            time_attr=TIME,
            perturbation_interval=max(spec.base.evaluate_every, steps // PERTURBATIONS),
            hyperparam_mutations={key: domain.to_tune() for key, domain in space.items()},
            custom_explore_fn=functools.partial(clip_to, space),
        )
    return FIFOScheduler()


def clip_to(space: Mapping[str, Domain], config: dict[str, Any]) -> dict[str, Any]:
    """A configuration with what Tune's perturbation, times 0.8 or 1.2, moved out of its domain."""
    return config | {name: domain.clipped(config[name]) for name, domain in space.items()}


def _suggest(trial: Any, name: str, domain: Domain) -> Any:
    if domain.kind == "choice":  # by number, since Optuna takes no lists
        return domain.values[trial.suggest_categorical(name, list(range(len(domain.values))))]
    low, high = domain.values
    if domain.kind == "integer":
        return trial.suggest_int(name, low, high)
    return trial.suggest_float(name, low, high, log=domain.kind == "log_uniform")
