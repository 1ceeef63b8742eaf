"""Each scheduler and searcher through Tune itself, from a trial's first step to the report."""

from __future__ import annotations

import logging
from dataclasses import replace

import pandas as pd
import pytest
from ray import tune

from rllib_odac.experiments.spec import RunSpec
from rllib_odac.experiments.sweeps.space import read_space
from rllib_odac.experiments.sweeps.spec import SweepSpec
from rllib_odac.experiments.sweeps.sweep import Sweep, check_storage, run_sweep
from rllib_odac.storage import Storage
from tests.conftest import starts_trials
from tests.object_stores import s3_server

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.timeout(900), starts_trials]

BASE = RunSpec(
    "odac/Box2D-v0",
    steps=1000,
    evaluate_every=250,
    evaluation_episodes=2,
    final_episodes=4,
    settings={"hidden": [16], "train_batch_size_per_learner": 16, "num_envs_per_env_runner": 4},
)


@pytest.fixture(params=["disk", "bucket"])
def storage(request, tmp_path):
    if request.param == "disk":
        yield str(tmp_path)
    else:
        with s3_server() as uri:
            yield f"{uri}/sweeps"


@pytest.mark.parametrize(
    ("scheduler", "searcher"), [("asha", "random"), ("pbt", "random"), ("none", "optuna")]
)
def test_a_sweep_from_beginning_to_end(storage, scheduler, searcher, monkeypatch):
    if searcher == "optuna":
        pytest.importorskip("optuna", reason='needs pip install "rllib-odac[sweep]"')
    import ray

    ray.shutdown()  # its workers are to know the bucket
    ray.init(num_cpus=4, include_dashboard=False, logging_level=logging.ERROR)
    space = read_space({"lr": {"log_uniform": [1e-4, 1e-2]}})
    kinds = {"scheduler": scheduler, "searcher": searcher}
    # A population starts processes for each exchange of configurations: two are enough.
    base = replace(BASE, steps=800) if scheduler == "pbt" else BASE
    sweep = Sweep(SweepSpec(base, space), name="one", storage=storage, trials=3, **kinds)
    check_storage(sweep, resume=False)
    said = []
    results = run_sweep(sweep, on_trial=said.append)
    folder = Storage.of(sweep.uri)
    names = (folder / "results").names()
    assert {"results.csv", "report.html"} <= names
    rows = pd.read_csv((folder / "results" / "results.csv").open())
    assert len(rows) == 3
    assert rows["env_steps"].max() == base.steps
    if scheduler == "pbt":
        assert rows["env_steps"].eq(base.steps).all()
    assert results.failed.empty
    if scheduler != "pbt":  # it may get more trials
        more = replace(sweep, trials=5)
        check_storage(more, resume=True)
        extended = run_sweep(more, on_trial=said.append)
        assert len(extended.trials) == 5
        columns = ["trial", "configuration"]
        assert extended.trials[columns][:3].equals(results.trials[columns])
        assert extended.trials["configuration"].tolist() == list(range(5))
        assert len(said) == 5
        assert said[-1].startswith("5/5 ")
        assert len(set(extended.trials["lr"])) == 5
    assert tune.Tuner.can_restore(sweep.uri)
    ray.shutdown()
