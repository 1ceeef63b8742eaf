"""What a sweep found: trials and configurations, what mattered, and the files written of it."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from rllib_odac.experiments.spec import RunSpec, read_spec
from rllib_odac.experiments.sweeps.importance import importances
from rllib_odac.experiments.sweeps.report import report
from rllib_odac.experiments.sweeps.results import SweepResults
from tests.small_sweeps import make_sweep


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
