"""Comparisons of made-up studies, of which every figure is known."""

from __future__ import annotations

import io
from dataclasses import asdict
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from rllib_odac.evaluation.compare import Comparison, read_studies
from rllib_odac.evaluation.comparison_files import format_comparison, write_comparison
from rllib_odac.experiments.spec import RunSpec
from rllib_odac.experiments.study import Study
from rllib_odac.experiments.study_results import StudyResults
from rllib_odac.experiments.sweeps.results import SweepResults
from rllib_odac.experiments.sweeps.space import read_space
from rllib_odac.experiments.sweeps.spec import SweepSpec
from rllib_odac.experiments.sweeps.sweep import Sweep
from rllib_odac.files import write_json
from tests.unit.test_study import BOX, SUMMARY

METHODS = ("odac", "her", "none")  # the last is a name that pandas might take for a missing value
SEEDS = {"box": 4, "reach": 2}
LABELS = {"odac": "ODAC", "her": "HER"}


def score(task, method, seed):
    """The success rate at the end, up to one minus the place of the method / 4."""
    return 1 - METHODS.index(method) / 4 - seed / 100 - (task == "reach") / 20


def make_study(out, tasks=("box", "reach"), methods=METHODS, without=(), **fields):
    """Results whose distance is 1 − success, and whose success grows evenly over ten rows."""
    study = Study(
        tasks=dict.fromkeys(tasks, BOX),
        methods={method: {} for method in methods},
        labels={method: LABELS[method] for method in methods if method in LABELS},
        seeds={task: SEEDS[task] for task in tasks},
        **fields,
    )
    with StudyResults(study, out) as results:
        for run in study.runs():
            if run.key[:2] in without:
                continue
            end = score(*run.key)
            curve = pd.DataFrame({"env_steps": 1000 * np.arange(1, 11)})
            curve["wall_s"] = curve["env_steps"] / 500
            curve["success_rate"] = end * np.arange(1, 11) / 10
            figures = {"success_rate": end, "final_distance": 1 - end}
            figures["normalized_distance"] = 100 * (1 - end)
            results.add(run, SUMMARY | figures, curve.to_csv(index=False))
    return out


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    return read_studies([make_study(tmp_path_factory.mktemp("results") / "study")])


def test_figures_of_each_task_and_method(studies):
    comparison = Comparison(studies, threshold=0.89)
    rows = comparison.tasks.set_index(["task", "method"])
    assert list(rows.index) == [(task, method) for task in SEEDS for method in METHODS]
    row = rows.loc[("box", "odac")]  # 1, 0.99, 0.98, 0.97
    assert row["seeds"] == 4
    assert row["mean"] == pytest.approx(0.985)
    assert row["std"] == pytest.approx(np.std([0, 0.01, 0.02, 0.03], ddof=1))
    assert row["iqm"] == pytest.approx(0.985)
    assert 0.97 <= row["iqm_low"] < 0.985 < row["iqm_high"] <= 1
    # 0.9 × 1 and 0.9 × 0.99 reach it in the ninth row, the others in the last
    assert (row["steps"], row["seconds"], row["reached"]) == (9500, 19, 4)
    assert rows.loc[("box", "her"), "reached"] == 0
    assert np.isnan(rows.loc[("box", "her"), "steps"])


def test_figures_over_tasks(studies):
    comparison = Comparison(studies)
    rows = comparison.methods.set_index("method")
    # box 1, 0.99, 0.98, 0.97; reach 0.95, 0.94 twice: the middle four of eight
    assert rows.loc["odac", "iqm"] == pytest.approx((0.95 + 0.95 + 0.97 + 0.98) / 4)
    assert rows.loc["odac", "iqm_low"] < rows.loc["odac", "iqm"] < rows.loc["odac", "iqm_high"]
    assert np.isnan(rows.loc["odac", "improvement"])
    assert rows.loc["her", "improvement"] == 1
    swapped = Comparison(studies, baseline="none").methods.set_index("method")
    assert swapped.loc["odac", "improvement"] == 0


@pytest.mark.parametrize("metric", ["final_distance", "normalized_distance"])
def test_a_smaller_distance_is_better(studies, metric):
    comparison = Comparison(studies, metric=metric)
    assert comparison.methods.set_index("method").loc["her", "improvement"] == 1
    assert comparison.mixes_units == (metric == "final_distance")
    assert ("iqm" in comparison.methods) == (metric != "final_distance")


def test_only_common_tasks_enter_what_holds_over_tasks(tmp_path):
    out = make_study(tmp_path / "study", without=[("box", "her")])
    comparison = Comparison(read_studies([out]))
    assert comparison.common_tasks == ["reach"]
    assert len(comparison.tasks) == 5
    text = format_comparison(comparison)
    assert "not all methods having runs of them: box." in text
    assert "Over tasks: reach" in text


def test_nothing_in_common_leaves_the_tasks_alone(tmp_path):
    directories = [
        make_study(tmp_path / "a", tasks=["box"], methods=["odac"]),
        make_study(tmp_path / "b", tasks=["reach"], methods=["her"]),
    ]
    comparison = Comparison(read_studies(directories))
    assert comparison.common_tasks == []
    assert "box, reach." in format_comparison(comparison)
    assert len(pd.read_csv(io.StringIO(format_comparison(comparison, "csv")))) == 2
    assert len(write_comparison(comparison, tmp_path / "out")) == 4


def test_studies_are_merged(tmp_path):
    reference = {"reach": {"odac": (1.5, 0.2)}}
    directories = [
        make_study(tmp_path / "a", tasks=["box"], methods=["odac", "her"]),
        make_study(tmp_path / "b", tasks=["reach"], methods=["her", "odac"], reference=reference),
    ]
    comparison = Comparison(read_studies(directories), metric="normalized_distance")
    assert comparison.task_names == ["box", "reach"]
    assert comparison.baseline == "odac"
    assert list(comparison.methods["improvement"].dropna()) == [1]
    text = format_comparison(comparison)
    assert "paper" in text.splitlines()[2]
    assert "1.5 ± 0.2" in text
    other = format_comparison(Comparison(read_studies(directories)))
    assert "1.5 ± 0.2" not in other
    assert "--metric normalized_distance shows them" in other
    with pytest.raises(ValueError, match="box-odac-0, which another directory has too"):
        read_studies([directories[0], directories[0]])


def test_styles(studies):
    comparison = Comparison(studies)
    text, markdown = (format_comparison(comparison, style) for style in ("text", "markdown"))
    assert "box    ODAC    4      98.5  1.3  98.5 [97.0, 100.0]" in text
    assert "| box | ODAC | 4 | 98.5 | 1.3 | 98.5 [97.0, 100.0] |" in markdown
    assert "P(ODAC is better) [95 %]" in text
    table = pd.read_csv(io.StringIO(format_comparison(comparison, "csv")), keep_default_na=False)
    assert table["task"].tolist() == ["box"] * 3 + ["reach"] * 3 + ["all"] * 3
    assert table["method"].tolist() == [*METHODS] * 3
    again = Comparison(studies)
    assert format_comparison(again, "csv") == format_comparison(comparison, "csv")


@pytest.mark.parametrize("metric", ["success_rate", "normalized_distance", "final_distance"])
def test_the_files(studies, tmp_path, metric):
    comparison = Comparison(studies, metric=metric, curve="wall_s")
    paths = write_comparison(comparison, tmp_path / "out")
    assert [path.name for path in paths] == [f"compare.{x}" for x in ("txt", "md", "csv", "png")]
    assert paths[-1].read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"metric": "reward"}, "metric is 'reward', but must be one of"),
        ({"threshold": 90}, r"threshold is 90, but must be in \(0, 1\]"),
        ({"baseline": "sac"}, "baseline is 'sac', but must be one of"),
        ({"curve": "env_steps"}, r"curve is 'env_steps', but must be one of (?!.*'env_steps')"),
    ],
)
def test_bad_arguments(studies, arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        Comparison(studies, **arguments)
    with pytest.raises(ValueError, match="format is 'html', but must be one of"):
        format_comparison(Comparison(studies), "html")


def test_bad_directories(tmp_path):
    with pytest.raises(ValueError, match="holds no run, no sweep and no results of a study"):
        read_studies([tmp_path / "nowhere"])
    out = make_study(tmp_path / "study")
    (out / "curves" / "box-odac-0.csv").unlink()
    with pytest.raises(ValueError, match=r"box-odac-0.csv' cannot be read"):
        read_studies([out])


def make_run(out, seed=0, objective="odac", end=1.0, **settings):
    """The directory of a finished run."""
    out.mkdir()
    spec = RunSpec("odac/Box2D-v0", objective, steps=2000, seed=seed, settings=settings)
    write_json(out / "config.json", asdict(spec))
    figures = {"success_rate": end, "final_distance": 1 - end, "normalized_distance": 100 - end}
    summary = {"env": spec.env, "objective": objective, "seed": seed, "env_steps": 2000}
    write_json(out / "summary.json", SUMMARY | summary | figures)
    progress = pd.DataFrame({"env_steps": [1000, 1500, 2000], "wall_s": [1, 2, 3]})
    progress["success_rate"] = [0.0, None, end]  # an evaluation was lost
    progress.to_csv(out / "progress.csv", index=False)
    return out


def test_runs_are_compared_by_what_differs(tmp_path):
    places = [
        make_run(tmp_path / "a", 0, lr=0.001, tau=0.05),
        make_run(tmp_path / "b", 1, lr=0.001, tau=0.05),
        make_run(tmp_path / "c", 0, lr=0.002, tau=0.05, end=0.5),
        make_run(tmp_path / "d", 0, "her", tau=0.05, end=0.25),
    ]
    read = read_studies(places)
    assert list(read.labels) == ["odac lr=0.001", "odac lr=0.002", "her"]
    assert read.baseline == "odac lr=0.001"
    text = format_comparison(Comparison(read, "success_rate", 0.9, None), "csv")
    assert "her" in text
    assert len(read.curves["odac/Box2D-v0", "her", 0]) == 2
    with pytest.raises(ValueError, match="has odac on odac/Box2D-v0, seed 0, which another direc"):
        read_studies([places[0], make_run(tmp_path / "e", 0, lr=0.001, tau=0.05)])
    (tmp_path / "a" / "summary.json").unlink()
    with pytest.raises(ValueError, match=r"a' has not finished; go on with: odac train --out .*/a"):
        read_studies(places)


def test_runs_stand_beside_a_study(tmp_path):
    study = make_study(tmp_path / "study", tasks=("box",), methods=("odac",))
    read = read_studies([study, make_run(tmp_path / "mine", 0, "her")])
    assert set(read.labels) == {"odac", "her"}
    assert set(read.rows["task"]) == {"box", "odac/Box2D-v0"}
    write_comparison(Comparison(read, "success_rate", 0.9, None), tmp_path / "out")
    assert (tmp_path / "out" / "compare.png").exists()


def make_sweep(storage):
    """The folder of a sweep of three trials, one of which was stopped early."""
    base = RunSpec("odac/Box2D-v0", steps=2000, settings={"tau": 0.05})
    space = read_space({"lr": {"log_uniform": [1e-4, 1e-2]}, "hidden": {"choice": [[8], [16]]}})
    sweep = Sweep(SweepSpec(base, space), name="one", storage=str(storage), trials=3)
    grid = []
    for number, (lr, hidden, end) in enumerate([(1e-3, (8,), 0.5), (2e-3, [16], 1.0), (1, [8], 0)]):
        figures = {"success_rate": end, "final_distance": 1 - end, "normalized_distance": 100}
        place = storage / "one" / f"trial_{number}"
        place.mkdir(parents=True)
        steps = {"env_steps": [1000, 2000], "updates": [0, 500], "time_total_s": [1.5, 3.0]}
        curve = pd.DataFrame(steps | {"success_rate": [0.0, end]})
        curve.to_csv(place / "progress.csv", index=False)
        metrics = {"trial_id": str(number), "finished": lr < 1, "env_steps": 2000, "updates": 500}
        metrics |= figures | {"time_total_s": 3.0}
        config = {"seed": 0, "lr": lr, "hidden": hidden}
        grid.append(
            SimpleNamespace(
                metrics=metrics,
                config=config,
                error=None,
                path=str(place),
                checkpoint=None,
                metrics_dataframe=None,
            )
        )
    write_json(storage / "one" / "sweep.json", sweep.to_json())
    (storage / "one" / "results").mkdir()
    SweepResults.of(grid, sweep).write(storage / "one" / "results")
    return storage / "one"


def test_runs_of_a_sweep_stand_beside_other_runs_and_a_study(tmp_path):
    sweep = make_sweep(tmp_path)
    mine = make_run(tmp_path / "mine", 0, tau=0.05, lr=0.004, hidden=[8])
    study = make_study(tmp_path / "study", tasks=("box",), methods=("odac",))
    read = read_studies([study, sweep, mine])
    assert set(read.rows["method"]) == {
        "odac",
        "odac lr=0.001 hidden=[8]",
        "odac lr=0.002 hidden=[16]",
        "odac lr=0.004 hidden=[8]",
    }
    best = "odac/Box2D-v0", "odac lr=0.002 hidden=[16]"
    assert read.curves[*best, 0]["wall_s"].tolist() == [1.5, 3.0]
    rows = Comparison(read, "success_rate", 0.9, None).tasks.set_index(["task", "method"])
    assert rows.loc[best, "mean"] == 1.0
    (sweep / "results" / "results.csv").unlink()
    with pytest.raises(ValueError, match="one' has no results yet; go on with: odac sweep --resum"):
        read_studies([sweep])
