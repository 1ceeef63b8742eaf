"""Which configurations a sweep tries: drawn ones, Optuna's, and those of a population."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from ray import tune

from rllib_odac.experiments.spec import RunSpec
from rllib_odac.experiments.sweeps.space import read_space
from rllib_odac.experiments.sweeps.spec import SweepSpec
from tests.small_sweeps import SPACE, make_spec, make_sweep


def test_random_configurations_start_with_the_base_and_can_be_repeated():
    from rllib_odac.experiments.sweeps.search import Drawn, draw_configurations

    study = make_spec()
    drawn = draw_configurations(study, 5, seed=1)
    assert drawn[0] == study.defaults()
    assert drawn == draw_configurations(study, 5, seed=1)
    assert drawn[:3] == draw_configurations(study, 3, seed=1)  # so a sweep may get more trials
    assert len({each["lr"] for each in drawn}) == 5
    points = Drawn(5, [4, 5])._points_to_evaluate
    assert [point["seed"] for point in points] == [4, 5] * 5
    assert [point["configuration"] for point in points[::2]] == list(range(5))


def test_tune_hands_every_trial_the_configuration_that_was_drawn_for_it():
    from rllib_odac.experiments.sweeps.search import Drawn, draw_configurations

    # Values that are no numbers: a schedule, a word, widths of layers.
    settings = {"lr": [[0, 1e-3], [600, 1e-4]], "kl_weight": "auto"}
    base = RunSpec("odac/Box2D-v0", steps=1000, settings=settings)
    study = SweepSpec(base, read_space(SPACE | {"kl_weight": {"log_uniform": [0.01, 0.1]}}))
    drawn = draw_configurations(study, 6, seed=1)
    assert drawn[0] | settings == drawn[0]
    search, space = Drawn(6, [4, 5]), Drawn.space(study, [4, 5], seed=1)
    search.add_configurations(tune.Experiment("sweep", "PPO", config=space, num_samples=12))
    trials = [search.next_trial() for _ in range(12)]
    assert search.next_trial() is None
    assert [trial.config["seed"] for trial in trials] == [4, 5] * 6
    for name in drawn[0]:
        assert [trial.config[name] for trial in trials[::2]] == [each[name] for each in drawn]


@pytest.mark.parametrize("searcher", ["random", "optuna"])
def test_a_search_that_has_ended_goes_on_where_more_trials_are_asked_for(tmp_path, searcher):
    if searcher == "optuna":
        pytest.importorskip("optuna", reason='needs pip install "rllib-odac[sweep]"')
    from rllib_odac.experiments.sweeps.sweep import _search_algorithm

    def trials_of(sweep, number):
        space = Drawn.space(sweep.spec, sweep.each_seed, sweep.seed)
        search = _search_algorithm(sweep)
        if number:  # those that it made before
            search.restore_from_dir(str(tmp_path))
        else:
            space = space if searcher == "random" else {}
            search.add_configurations(
                tune.Experiment("sweep", "PPO", config=space, num_samples=sweep.trials * 2)
            )
        made = []
        while (trial := search.next_trial()) is not None:
            made.append(trial)
            search.on_trial_complete(trial.trial_id, {"final_distance": 1.0})
        assert search.is_finished()
        search.save_to_dir(str(tmp_path), session_str=str(number))
        return made

    from rllib_odac.experiments.sweeps.search import Drawn

    kinds = {"searcher": searcher, "seeds": 2, "scheduler": "none"}
    begun = trials_of(make_sweep(tmp_path, trials=2, **kinds), 0)
    more = trials_of(make_sweep(tmp_path, trials=5, **kinds), 2)
    assert (len(begun), len(more)) == (4, 6)
    assert [trial.config["seed"] for trial in [*begun, *more]] == [0, 1] * 5
    assert len({trial.config["lr"] for trial in [*begun, *more]}) == 5
    assert len({trial.trial_id for trial in [*begun, *more]}) == 10
    assert trials_of(make_sweep(tmp_path, trials=5, **kinds), 5) == []


def test_optuna_gets_the_mean_over_seeds_and_outlives_its_process(tmp_path):
    pytest.importorskip("optuna", reason='needs pip install "rllib-odac[sweep]"')
    from rllib_odac.experiments.sweeps.search import OptunaSearcher

    def search(restart):
        searcher = OptunaSearcher(make_spec(), seeds=[0, 1], seed=0)
        told = []
        for i in range(12):
            values = searcher.suggest(f"t{i}")
            told.append(values)
            # The best learning rate is 1e-3, whatever noise a seed adds.
            distance = abs(np.log10(values["lr"]) + 3) + (0.1 if i % 2 else -0.1)
            searcher.on_trial_complete(f"t{i}", {"final_distance": distance})
            if restart and i == 4:  # between two seeds
                searcher.save(tmp_path / "state")
                searcher = OptunaSearcher(make_spec(), seeds=[0, 1], seed=0)
                searcher.restore(tmp_path / "state")
        return told, searcher

    told, searcher = search(restart=False)
    numbers = [(values.pop("configuration"), values.pop("seed")) for values in told]
    assert numbers == [divmod(i, 2) for i in range(12)]
    assert told[0::2] == told[1::2]
    assert told[0] == make_spec().defaults()
    values = [trial.value for trial in searcher._optuna.trials]
    expected = [abs(np.log10(each["lr"]) + 3) for each in told[2::2]]
    assert values == pytest.approx(expected)
    again, _ = search(restart=True)
    assert again == [
        {**values, "configuration": number, "seed": seed}
        for values, (number, seed) in zip(told, numbers, strict=True)
    ]


def test_a_population_stays_in_its_space():
    from rllib_odac.experiments.sweeps.search import make_scheduler

    space = read_space({**SPACE, "prior_discount": {"uniform": [0.9, 0.99]}})
    scheduler = pickle.loads(pickle.dumps(make_scheduler("pbt", make_spec(space=space))))
    assert scheduler._hyperparam_mutations.keys() == {"lr", "prior_discount"}
    moved = scheduler._custom_explore_fn({"lr": 1e-3, "prior_discount": 0.98 * 1.2, "tau": 0.1})
    assert moved == {"lr": 1e-3, "prior_discount": 0.99, "tau": 0.1}
