"""Sweeps: search spaces, studies, mistakes, importance and results, all without Ray running."""

from __future__ import annotations

import json
import pickle
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import yaml
from ray import tune

from rllib_odac.cli.sweep import main
from rllib_odac.experiments.spec import RunSpec, read_spec
from rllib_odac.experiments.sweeps.importance import importances
from rllib_odac.experiments.sweeps.report import report
from rllib_odac.experiments.sweeps.results import SweepResults
from rllib_odac.experiments.sweeps.space import Domain, initial, read_space
from rllib_odac.experiments.sweeps.spec import SweepSpec, read_sweep_spec
from rllib_odac.experiments.sweeps.sweep import Sweep, check_storage
from rllib_odac.storage import Storage
from rllib_odac.tuned import SWEEPS

SPACE = {"lr": {"log_uniform": [1e-4, 1e-2]}, "hidden": {"choice": [[32, 32], [64]]}}


def make_spec(**changes) -> SweepSpec:
    spec = SweepSpec(RunSpec("odac/Box2D-v0", steps=1000), read_space(SPACE))
    return replace(spec, **changes)


def make_sweep(tmp_path, **changes) -> Sweep:
    return Sweep(**({"spec": make_spec(), "name": "one", "storage": str(tmp_path)} | changes))


# Spaces and studies -------------------------------------------------------------------------------


def test_draws_fill_their_domains():
    rng = np.random.default_rng(0)
    drawn = [Domain("log_uniform", (1e-4, 1e-2)).draw(rng) for _ in range(2000)]
    assert 1e-4 <= min(drawn) < 1.1e-4
    assert 0.9e-2 < max(drawn) <= 1e-2
    assert np.median(drawn) == pytest.approx(1e-3, rel=0.15)  # uniform in its logarithm
    assert {Domain("integer", (2, 4)).draw(rng) for _ in range(100)} == {2, 3, 4}
    assert {Domain("choice", ("a", None)).draw(rng) for _ in range(100)} == {"a", None}
    assert Domain("uniform", (0.9, 0.99)).clipped(1.08) == 0.99
    assert Domain("integer", (1, 10)).clipped(12) == 10


@pytest.mark.parametrize(
    ("space", "words"),
    [
        ({}, "must name at least one setting"),
        ({"learning_rate": {"uniform": [0, 1]}}, "'learning_rate', which is no setting"),
        ({"lr": {"normal": [0, 1]}}, "must have one of"),
        ({"lr": {"uniform": ["3e-4", 1]}}, "YAML reads 3e-4 as a string"),
        ({"lr": {"uniform": [1, 0.1]}}, "the lower first"),
        ({"kl_weight": {"log_uniform": [0, 1]}}, "must be positive"),
        ({"prior_discount": {"uniform": [0.9, 1.0]}}, "strictly between 0 and 1"),
        ({"random_action_steps": {"integer": [1, 2.5]}}, "two whole numbers"),
        ({"lr": {"choice": [0.1, 0.1]}}, "different values"),
        ({"seed": {"choice": [1, 2]}}, "no setting of ODACConfig to search over"),
    ],
)
def test_a_wrong_space_is_told_in_one_sentence(space, words):
    with pytest.raises(ValueError, match=words) as caught:
        read_space(space)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("path", sorted(SWEEPS.glob("*.yaml")), ids=lambda p: p.stem)
def test_every_study_file_is_whole(path):
    study = read_sweep_spec(path, {"env": "odac/Box2D-v0"} if path.stem == "any" else None)
    study.run_spec(study.defaults()).config()
    for i in (0, -1):  # the ends of every interval together
        study.run_spec({name: domain.values[i] for name, domain in study.space.items()}).config()


def test_a_study_is_its_base_with_what_is_said_on_top(tmp_path):
    (tmp_path / "base.json").write_text(
        json.dumps({"env": "FetchReach-v4", "steps": 50, "settings": {"tau": 0.1, "lr": 0.01}})
    )
    stop = {"steps": 70, "success_rate": 0.8, "grace": 30}
    told = {"base": "base.json", "space": SPACE, "stop": stop}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(told))
    study = read_sweep_spec(tmp_path / "study.yaml", {"objective": "her"})
    assert study.base.steps == 70
    assert study.base.stop_success == 0.8
    assert study.grace_steps == 30
    assert study.defaults() == {"lr": 0.01, "hidden": (256, 256)}
    spec = study.run_spec({"lr": 0.5}, seed=3)
    assert (spec.objective, spec.seed, spec.settings) == ("her", 3, {"tau": 0.1, "lr": 0.5})


def test_settings_of_the_density_are_searched_only_where_it_is_learned():
    any_study = SWEEPS / "any.yaml"
    odac, her = (
        read_sweep_spec(any_study, {"env": "odac/Box2D-v0", "objective": objective}).space
        for objective in ("odac", "her")
    )
    assert set(odac) - set(her) == {"dynamics_min_scale"}


# Mistakes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"trials": 0}, "trials is 0, but must be a whole number of at least 1"),
        ({"seeds": 0}, "seeds is 0, but must be a whole number of at least 1"),
        ({"scheduler": "hyperband"}, "scheduler is 'hyperband', but must be \"asha\""),
        ({"searcher": "grid"}, "searcher is 'grid', but must be \"random\""),
        ({"name": "a/b"}, "name is 'a/b', but must be letters, digits"),
        ({"name": ".."}, "name is '..', but must be letters, digits"),
        ({"scheduler": "pbt", "seeds": 2}, "seeds is 2, but must be 1 with pbt"),
        ({"scheduler": "pbt", "trials": 1}, "trials is 1, but must be at least 2 with pbt"),
        ({"scheduler": "pbt", "searcher": "optuna"}, "must be random with pbt"),
        (
            {
                "scheduler": "pbt",
                "spec": make_spec(space=read_space({"hidden": {"choice": [[8]]}})),
            },
            "must have one of",
        ),
    ],
)
def test_a_wrong_sweep_is_told_in_one_sentence(tmp_path, monkeypatch, changes, words):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    with pytest.raises(ValueError, match=words):
        make_sweep(tmp_path, **changes)


@pytest.mark.parametrize(
    ("option", "value"), [("searcher", "optuna"), ("wandb", "p"), ("mlflow", "u")]
)
def test_a_package_that_is_missing_is_named(tmp_path, monkeypatch, option, value):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    package, extra = ("optuna", "sweep") if option == "searcher" else (option, "tracking")
    told = rf"needs the package '{package}'.*pip install \"rllib-odac\[{extra}\]\""
    with pytest.raises(ValueError, match=told):
        make_sweep(tmp_path, **{option: value})


def test_storage_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    for storage in (str(tmp_path / "file" / "below"), "nowhere://x"):
        with pytest.raises(ValueError, match=f"storage is '{storage}', which cannot be written"):
            check_storage(make_sweep(tmp_path, storage=storage), resume=False)


def test_storage_is_a_directory_or_a_uri(tmp_path):
    folder = Storage.of((tmp_path / "deep" / "er").as_uri()) / "sweep"
    (tmp_path / "local").mkdir()
    (tmp_path / "local" / "a.json").write_text('{"b": 1}')
    folder.check_writable()
    folder.upload(tmp_path / "local")
    assert (folder / "a.json").read_json() == {"b": 1}
    assert (folder / "c.json").read_json() is None
    assert folder.names() == {"a.json"}
    sweep = make_sweep(tmp_path, storage=(tmp_path / "deep").as_uri() + "/")
    assert sweep.uri == f"file://{tmp_path}/deep/one"
    assert make_sweep(tmp_path, storage="~/deep").uri == str(Path.home() / "deep" / "one")


def test_a_sweep_is_taken_up_only_as_it_was(tmp_path):
    sweep = make_sweep(tmp_path)
    check_storage(sweep, resume=True)  # nothing there yet: it starts
    (tmp_path / "one").mkdir()
    (Storage.of(tmp_path) / "one" / "sweep.json").write_json(sweep.to_json())
    check_storage(sweep, resume=True)
    with pytest.raises(ValueError, match=r"holds a sweep already.*--resume"):
        check_storage(sweep, resume=False)
    check_storage(replace(sweep, trials=30), resume=True)  # which it may have more of
    with pytest.raises(ValueError, match=r"trials is 5, but the sweep in .* has 24"):
        check_storage(replace(sweep, trials=5), resume=True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--study", "nothing"], "study is 'nothing', but must be a .yaml file"),
        (["--env", "Nothing-v0"], "Nothing-v0"),
        (["--steps", "0"], "steps is 0, but must be a whole number of at least 1"),
        (["--storage", "/proc/nothing"], "storage is '/proc/nothing', which cannot be written"),
        (["--address", "127.0.0.1:1"], "where no Ray cluster answers"),
    ],
)
def test_the_command_tells_of_a_mistake_in_one_sentence(
    tmp_path, monkeypatch, capsys, arguments, words
):
    monkeypatch.setenv("ODAC_STORAGE", str(tmp_path))
    # Wherever the tests' own Python lies: a path with a space is another mistake.
    plain = SimpleNamespace(executable="/usr/bin/python")
    monkeypatch.setattr("rllib_odac.runtime.cluster.sys", plain)
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    told = capsys.readouterr().err
    assert ended.value.code == 2
    assert told.startswith("error: ")
    assert words in told
    assert told.count("\n") == 1


def test_python_in_a_path_with_a_space_is_refused_before_ray_starts(tmp_path, monkeypatch, capsys):
    spaced = SimpleNamespace(executable="/home/a user/venv/bin/python")
    monkeypatch.setattr("rllib_odac.runtime.cluster.sys", spaced)
    module = sys.modules[main.__module__]  # in the package, the command has its name
    monkeypatch.setattr(module, "start_ray", lambda *_: pytest.fail("Ray started"))
    with pytest.raises(SystemExit) as end:
        main(["--smoke", "--storage", str(tmp_path / "storage")])
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: Python is '/home/a user/venv/bin/python', but for sweeps it")
    assert error.count("\n") == 1
    assert not (tmp_path / "storage").exists()


def test_a_schedule_stands_for_its_first_value_among_numbers():
    assert initial([[0, 1e-3], [600, 1e-4]]) == 1e-3
    assert [initial(value) for value in (0.1, "auto", [32, 32])] == [0.1, "auto", [32, 32]]


# Search -------------------------------------------------------------------------------------------


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


# Results ------------------------------------------------------------------------------------------


def test_importance_finds_what_matters_and_says_when_chance_does_as_well():
    rng = np.random.default_rng(0)
    values = pd.DataFrame(
        {
            "peak": rng.uniform(-1, 1, 60),  # best in the middle
            "slope": rng.uniform(0, 1, 60),
            "kind": rng.choice(["a", "b", "c"], 60),
            "nothing": rng.uniform(0, 1, 60),
        }
    )
    figure = values["peak"] ** 2 + 0.8 * values["slope"] + 0.3 * (values["kind"] == "b")
    table = importances(values, figure.tolist(), ["peak", "slope", "nothing"])
    assert table.index[0] == "peak"
    assert table.index[-1] == "nothing"
    assert (table["p_value"].drop("nothing") < 0.05).all()
    assert table.loc["nothing", "p_value"] > 0.05
    assert table.loc["slope", "direction"] > 0
    assert np.isnan(table.loc["kind", "direction"])
    assert importances(values.head(3), figure.head(3).tolist(), ["peak"]).empty


def test_chance_alone_seems_important_no_more_often_than_its_level():
    rng = np.random.default_rng(1)
    values = pd.DataFrame(rng.uniform(size=(12, 60)), columns=[f"x{i}" for i in range(60)])
    found = importances(values, rng.uniform(size=12).tolist(), list(values.columns))
    assert (found["p_value"] < 0.05).mean() < 0.15


def tune_result(number, config, distance, finished=True, error=None):
    """One result as Ray Tune's grid has it."""
    metrics = {
        "trial_id": f"t{number}", "success_rate": 1 - distance, "final_distance": distance,
        "normalized_distance": 100 * distance, "env_steps": 1000 if finished else 300,
        "updates": 5, "training_iteration": 2, "time_total_s": 1.0, "finished": finished,
    }  # fmt: skip
    frame = pd.DataFrame([{**metrics, "env_steps": 500, "final_distance": 0.9}, metrics])
    return SimpleNamespace(
        metrics=metrics, config=config, error=error, path=f"/x/trial_t{number}",
        checkpoint=None, metrics_dataframe=frame,
    )  # fmt: skip


def test_results_rank_configurations_and_write_files_that_can_be_read(tmp_path):
    sweep = make_sweep(tmp_path, seeds=2)
    default, good, cut = {"lr": 1e-3, "hidden": (256, 256)}, {"lr": 2e-3, "hidden": [64]}, {
        "lr": 5e-3, "hidden": [32, 32]
    }  # fmt: skip
    grid = [
        tune_result(i, {**config, "seed": i % 2}, distance, **how)
        for i, (config, distance, how) in enumerate(
            [
                (default, 0.3, {}),
                (default, 0.5, {}),
                (good, 0.1, {}),
                (good, 0.05, {}),
                (cut, 0.01, {"finished": False}),  # looked best when it was ended
                (cut, 0.01, {}),
                ({"lr": 1e-2, "hidden": [64]}, 0.2, {"finished": False, "error": OSError("lost")}),
            ]
        )
    ]
    results = SweepResults.of(grid, sweep)
    ranked = results.configurations
    assert ranked["configuration"].tolist() == [1, 0, 2, 3]
    assert ranked["status"].tolist() == ["finished", "finished", "stopped", "failed"]
    assert ranked["final_distance"].iloc[0] == pytest.approx(0.075)
    assert ranked["passed"].tolist() == [True, False, False, False]
    assert results.default is not None
    assert results.default["configuration"] == 0
    assert results.failed["error"].tolist() == ["lost"]

    results.write(tmp_path)
    rows = pd.read_csv(tmp_path / "results.csv")
    assert len(rows) == 7
    assert rows["hidden"].tolist()[:3] == ["[256, 256]", "[256, 256]", "[64]"]
    parquet = pd.read_parquet(tmp_path / "results.parquet")
    assert parquet["final_distance"].tolist() == rows["final_distance"].tolist()
    spec = RunSpec(**read_spec(tmp_path / "best.json"))
    assert spec == results.best_spec()
    spec.config()
    page = report(results)
    assert "Best final distance: 0.075" in page
    assert "default 0.4" in page
    assert "lost" in page
    assert "1 of 4 configurations pass" in page


@pytest.mark.parametrize("searcher", ["random", "optuna"])
def test_configurations_keep_their_numbers_when_tune_has_forgotten_their_order(tmp_path, searcher):
    """It brings the trials of a resumed sweep in the order of their last results, newest first."""
    if searcher == "optuna":
        pytest.importorskip("optuna", reason='needs pip install "rllib-odac[sweep]"')
    sweep = make_sweep(tmp_path, seeds=2, searcher=searcher, scheduler="none")
    names = range(6) if searcher == "random" else [4, 0, 3, 5, 1, 2]  # Tune's, or made up
    rates = [3e-3, 3e-3, 1e-3, 1e-3, 2e-3, 2e-3]
    grid = []
    for i, (name, lr) in enumerate(zip(names, rates, strict=True)):
        config = {"lr": lr, "hidden": [64], "configuration": i // 2, "seed": i % 2}
        grid.append(tune_result(name, config, 0.1))
    table = SweepResults.of(grid, sweep).trials
    assert table["configuration"].tolist() == [0, 0, 1, 1, 2, 2]
    assert table["lr"].tolist() == rates
    pd.testing.assert_frame_equal(SweepResults.of(grid[::-1], sweep).trials, table)
