"""Sweeps: search spaces, studies and mistakes, all without Ray running."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

from rllib_odac.cli.sweep import main
from rllib_odac.experiments.sweeps.space import Domain, initial, read_space
from rllib_odac.experiments.sweeps.spec import read_sweep_spec
from rllib_odac.experiments.sweeps.sweep import check_storage
from rllib_odac.storage import Storage
from rllib_odac.tuned import SWEEPS
from tests.small_sweeps import SPACE, make_spec, make_sweep

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
