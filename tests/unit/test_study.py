"""Studies: what their runs are, how they are written down, and one sentence for each mistake."""

from __future__ import annotations

import json
import shlex
import time
from dataclasses import replace
from pathlib import Path

import pytest
from ray.util import placement_group_table
from typer.testing import CliRunner

import rllib_odac.experiments.run
from rllib_odac.cli import app
from rllib_odac.experiments import study_runner
from rllib_odac.experiments.spec import RunSpec
from rllib_odac.experiments.study import Study, read_study, select, validate
from rllib_odac.experiments.study_results import ROW_COLUMNS, StudyResults
from rllib_odac.experiments.study_runner import run_study, train_run

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
CONFIGS = Path(__file__).parents[2] / "tune_configs"
BOX = {"env": "odac/Box2D-v0", "steps": 600, "settings": {"hidden": (16, 16), "tau": 0.1}}
METHODS = {"odac": {}, "her": {"objective": "her", "settings": {"tau": 0.2, "kl_weight": 0.05}}}
SUMMARY = {
    **{"env": "odac/Box2D-v0", "objective": "odac", "env_steps": 600, "updates": 100},
    **{"wall_s": 9.5, "success_rate": 0.1, "final_distance": 1 / 3, "normalized_distance": 9.0},
    **{"evaluation_episodes": 100, "versions": {"ray": "2", "torch": "2", "python": "3"}},
    **{"cpu": "one", "cores": 2, "jobs": 2},
}


def small_study(**fields):
    return Study(**({"tasks": {"box": BOX}, "methods": METHODS, "seeds": 2} | fields))


def test_runs_are_laid_over_one_another_in_order():
    override = {"steps": 900, "settings": {"kl_weight": 0.5}}
    study = small_study(overrides={"box/her": override}, seeds=[3, 1])
    runs = study.runs()
    assert [str(run) for run in runs] == [
        *("box odac seed 3", "box odac seed 1", "box her seed 3", "box her seed 1"),
    ]
    odac, her = runs[1].spec, runs[3].spec
    assert odac == RunSpec(**BOX | {"seed": 1, "settings": {"hidden": [16, 16], "tau": 0.1}})
    assert (her.objective, her.steps, her.seed) == ("her", 900, 1)
    assert her.settings == {"hidden": [16, 16], "tau": 0.2, "kl_weight": 0.5}
    assert runs[3].name == "box-her-1"


def test_seeds_may_differ_by_task():
    study = small_study(tasks={"box": BOX, "reach": BOX}, seeds={"box": 2, "reach": [7]})
    assert [run.key for run in study.runs()][::3] == [("box", "odac", 0), ("box", "her", 1)]
    assert [run.spec.seed for run in select(study.runs(), tasks=["reach"])] == [7, 7]


def test_select():
    runs = small_study().runs()
    assert [run.key for run in select(runs, methods=["her"], seeds=[1])] == [("box", "her", 1)]
    assert select(runs) == runs
    for names, sentence in (({"tasks": ["bax"]}, "task has 'bax'"), ({"seeds": [2]}, "seed has 2")):
        with pytest.raises(ValueError, match=sentence):
            select(runs, **names)


def test_the_digest_is_the_settings_without_the_seed():
    first, second, other, _ = small_study().runs()
    assert first.digest == second.digest != other.digest
    assert replace(first, spec=replace(first.spec, stop_success=0.9)).digest != first.digest
    # written out or left to its default, as a run's own config.json and a task's file have it
    assert replace(first, spec=replace(first.spec, checkpoint_every=1000)).digest == first.digest
    assert len(first.digest) == 12


def test_the_command_makes_the_same_run(monkeypatch, tmp_path):
    asked = []

    def stop(spec, *_, **__):
        asked.append(spec)
        raise ValueError("enough")

    monkeypatch.setattr(rllib_odac.experiments.run, "Run", stop)
    monkeypatch.chdir(tmp_path)
    everything = {
        **{"stop_success": 0.9, "evaluate_every": 200, "evaluation_episodes": 2},
        **{"final_episodes": 3, "checkpoint_every": 400, "num_env_runners": 1, "num_learners": 1},
        "settings": {
            **{"relabel": {"future": 0.5, "own": 0.5}, "kl_weight": "auto", "max_discount": None},
            **{"learn_discount": False, "lr": [[0, 0.001], [600, 1e-4]]},
        },
    }
    runs = small_study(overrides={"box/her": everything}).runs()
    for run in runs:
        CliRunner().invoke(app, shlex.split(run.command)[1:])
    assert asked == [run.spec for run in runs]


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"tasks": {}}, "tasks is {}, but must be a mapping"),
        ({"methods": ["odac"]}, r"methods is \['odac'\], but must be a mapping"),
        ({"tasks": {"a-b": BOX}}, "called 'a-b', but its name must consist of letters"),
        ({"tasks": {"a/b": BOX}}, "called 'a/b'"),
        ({"seeds": 0}, "seeds is 0, but must be a whole number of at least 1"),
        ({"seeds": True}, "seeds is True"),
        ({"seeds": [1, 1]}, r"seeds is \[1, 1\]"),
        ({"seeds": [-1]}, r"seeds is \[-1\]"),
        ({"seeds": "three"}, "seeds is 'three'"),
        ({"seeds": {"bax": 1}}, r"given for \['bax'\], but must be for \['box'\]"),
        ({"overrides": {"box/sac": {}}}, "overrides has the key 'box/sac', but must use"),
        ({"overrides": 3}, "overrides is 3, but must be a mapping"),
        ({"labels": {"sac": "SAC"}}, "labels has the key 'sac', but must use"),
        ({"labels": {"her": 3}}, r"labels\['her'\] is 3, but must be a text"),
        ({"baseline": "sac"}, "baseline has 'sac'"),
        ({"reference": {"bax": {}}}, "reference has the key 'bax'"),
        ({"reference": {"box": {"sac": (1, 2)}}}, r"reference\['box'\] has the key 'sac'"),
        ({"reference": {"box": {"her": (1,)}}}, "but must be mean and standard deviation"),
        ({"reference": {"box": {"her": 1}}}, "but must be mean and standard deviation"),
        ({"reference": {"box": 1}}, r"reference\['box'\] is 1, but must be a mapping"),
        ({"reference_metric": "reward"}, "reference_metric has 'reward'"),
        ({"tasks": {"box": {"steps": 5}}}, "task 'box' names no env"),
        ({"tasks": {"box": "nowhere.json"}}, "task 'box': config is 'nowhere.json', which cannot"),
        ({"tasks": {"box": 5}}, "task 'box' is 5, but must be a mapping"),
        ({"methods": {"odac": None}}, "method 'odac' is None, but must be a mapping"),
        ({"methods": {"odac": {"seed": 1}}}, "method 'odac' has the key 'seed', but must use"),
        ({"methods": {"odac": {"objective": RunSpec}}}, "must be such as JSON can hold"),
        ({"overrides": {"box/her": {"tau": 1}}}, "override 'box/her' has the key 'tau'"),
        ({"methods": {"odac": {"settings": {"tua": 1}}}}, "box/odac: There is no setting 'tua'"),
        (
            {"methods": {"fast": {"steps": 0}}},
            "box/fast: steps is 0, but must be a whole number of at least 1",
        ),
    ],
)
def test_mistakes_get_one_sentence(fields, sentence):
    with pytest.raises(ValueError, match=sentence) as info:
        validate(small_study(**fields).runs())
    assert "\n" not in str(info.value)


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.txt", "", "but must be a .yaml or a .py file"),
        ("a.yaml", "tasks: {box: {", "which cannot be read"),
        ("a.yaml", "[1]", r"a.yaml' is \[1\], but must be a mapping with some of"),
        ("a.yaml", "tasks: {}", "but must hold tasks and methods"),
        ("a.yaml", "tasks: {}\nmethods: {}\nepochs: 3", "has the key 'epochs', but must use"),
        ("a.yaml", "tasks: {}\nmethods: {}", "a.yaml': tasks is {}, but must be a mapping"),
        ("a.py", "study = 3", "must define `study`"),
        ("a.py", "studdy", "NameError: name 'studdy' is not defined"),
    ],
)
def test_files_that_make_no_sense(tmp_path, name, content, sentence):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=sentence):
        read_study(tmp_path / name)
    with pytest.raises(ValueError, match="which does not exist"):
        read_study(tmp_path / "b.yaml")


def test_yaml_and_python_say_the_same(tmp_path):
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "box.json").write_text(json.dumps(BOX | {"seed": 9}))
    (tmp_path / "a.yaml").write_text(
        "tasks: {box: tasks/box.json}\nseeds: 1\nmethods:\n  odac: {}\n  her: {objective: her}\n"
    )
    (tmp_path / "a.py").write_text(
        "from rllib_odac.experiments.study import Study\n"
        "study = Study(tasks={'box': 'tasks/box.json'}, "
        "methods={'odac': {}, 'her': {'objective': 'her'}}, seeds=1)"
    )
    runs = read_study(tmp_path / "a.yaml").runs()
    assert read_study(tmp_path / "a.py").runs() == runs
    assert [run.spec.seed for run in runs] == [0, 0]


@pytest.mark.parametrize(
    ("name", "seeds"),
    [
        *(("paper_comparison.py", 27), ("paper_ablation.py", 27), ("fetch_push_variants.yaml", 3)),
        *(("pipeline.yaml", 5), ("swept_fetch_reach.yaml", 5)),
    ],
)
def test_the_shipped_studies_can_be_run(name, seeds):
    study = read_study(CONFIGS / name)
    runs = study.runs()
    assert len(runs) == seeds * len(study.methods)
    validate(runs)


def test_the_shipped_studies_share_the_runs_of_odac():
    comparison, ablation, variants = (
        {run.name: run.spec for run in read_study(CONFIGS / name).runs()}
        for name in ("paper_comparison.py", "paper_ablation.py", "fetch_push_variants.yaml")
    )
    common = [comparison.keys() & others.keys() for others in (ablation, variants)]
    assert [len(names) for names in common] == [27, 6]  # ODAC's, and those uncapped
    assert all(comparison[name] == ablation[name] for name in common[0])
    assert all(comparison[name] == variants[name] for name in common[1])


@pytest.mark.parametrize(
    ("study", "results"),
    [
        ("paper_comparison.py", "paper_comparison"),
        ("paper_ablation.py", "paper_ablation"),
        ("fetch_push_variants.yaml", "fetch_push_variants"),
        ("pipeline.yaml", "pipeline_study"),
        ("swept_fetch_reach.yaml", "swept_fetch_reach"),
    ],
)
def test_committed_results_belong_to_the_shipped_studies(study, results):
    rows = StudyResults(read_study(CONFIGS / study), RESULTS / results).rows  # checks each digest
    assert rows


def test_an_interrupted_study_leaves_no_run_behind(ray_cluster, tmp_path, monkeypatch):
    def waits(spec, directory, jobs):
        if spec.seed == 0:
            raise ValueError("enough")
        time.sleep(600)

    def interrupt(run, row):
        raise KeyboardInterrupt

    def states():
        return [group["state"] for group in placement_group_table().values()]

    monkeypatch.setattr(study_runner, "train_run", waits)
    before = states().count("REMOVED")
    with pytest.raises(KeyboardInterrupt):
        run_study(small_study(methods={"odac": {}}), tmp_path, jobs=2, on_end=interrupt)
    deadline = time.monotonic() + 20
    while states().count("REMOVED") < before + 2:
        assert time.monotonic() < deadline
        time.sleep(0.1)


# Results --------------------------------------------------------------------------------------


def test_rows_stand_in_the_order_of_the_study(tmp_path):
    runs = small_study().runs()
    with StudyResults(small_study(), tmp_path / "out") as results:
        for run in (runs[3], runs[0]):
            results.add(run, SUMMARY, f"curve of {run}")
    lines = (tmp_path / "out" / "results.csv").read_text().splitlines()
    assert lines[0] == ",".join(ROW_COLUMNS)
    assert [line.split(",")[:3] for line in lines[1:]] == [
        ["box", "odac", "0"],
        ["box", "her", "1"],
    ]
    assert lines[1].endswith(runs[0].digest)
    assert (tmp_path / "out" / "curves" / "box-her-1.csv").read_text() == "curve of box her seed 1"
    again = StudyResults(small_study(), tmp_path / "out")
    assert again.missing(runs) == runs[1:3]
    assert float(again.rows["box", "odac", 0]["final_distance"]) == 1 / 3
    assert not list(tmp_path.rglob("*.partial"))
    described = json.loads((tmp_path / "out" / "study.json").read_text())
    assert [run["spec"]["seed"] for run in described["runs"]] == [0, 1, 0, 1]
    assert described["baseline"] == "odac"


def test_results_of_other_settings_are_refused(tmp_path):
    with StudyResults(small_study(), tmp_path) as results:
        results.add(small_study().runs()[0], SUMMARY, "")
    changed = small_study(tasks={"box": BOX | {"steps": 700}})
    with pytest.raises(ValueError, match="row of box odac seed 0, which was made with other sett"):
        StudyResults(changed, tmp_path)
    with pytest.raises(ValueError, match="row of box odac seed 0, which the study has not"):
        StudyResults(small_study(seeds=[1]), tmp_path)
    (tmp_path / "results.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="holds no results of a study"):
        StudyResults(small_study(), tmp_path)


def test_one_process_at_a_time_writes_results(tmp_path):
    with StudyResults(small_study(), tmp_path / "out"):
        assert StudyResults(small_study(), tmp_path / "out").rows == {}  # reading is free
        with pytest.raises(ValueError, match="is in use by another process"):
            StudyResults(small_study(), tmp_path / "out").__enter__()
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="which cannot be made"):
        StudyResults(small_study(), tmp_path / "file").__enter__()


@pytest.mark.parametrize(
    ("stored", "sentence"),
    [
        ({"steps": 700}, "steps is 600, but the run in '.*' has 700; give another --runs"),
        ({"settings": {"tau": 0.1}}, "settings is {.*}, but the run in"),
        ({"evaluation_episodes": 3}, "evaluation_episodes is 20, but the run in"),
    ],
)
def test_another_run_is_not_picked_up(tmp_path, stored, sentence):
    spec = small_study().runs()[0].spec
    whole = {"env": spec.env, "steps": 600, "settings": spec.settings, "checkpoint_every": 1000}
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text(json.dumps(whole | stored))
    with pytest.raises(ValueError, match=sentence):
        train_run(spec, tmp_path / "run", jobs=1)
