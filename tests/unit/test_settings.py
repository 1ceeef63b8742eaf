"""One declaration a setting: what Python, the command line and the documentation say of it."""

from __future__ import annotations

import inspect
import pickle
from dataclasses import MISSING
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rllib_odac import ODACConfig
from rllib_odac import settings as module
from rllib_odac.agent.objectives import OBJECTIVES
from rllib_odac.cli import app
from rllib_odac.declarations import declarations
from rllib_odac.experiments.spec import RunSpec
from rllib_odac.settings import SETTINGS


def test_the_page_of_settings_is_the_code():
    page = Path(__file__).parents[2] / "docs" / "settings.md"
    assert page.read_text() == module.as_markdown()
    assert all(f"| `{name}` |" in page.read_text() for name in SETTINGS)


def test_every_default_is_allowed_and_set():
    config = ODACConfig()
    for name, declared in SETTINGS.items():
        assert declared.rule.allows(declared.default), name
        assert getattr(config, name) == declared.default, name
    config.check_settings()


def test_mutable_defaults_are_not_shared():
    ODACConfig().env_config["size"] = 3
    RunSpec("odac/Box2D-v0").settings["tau"] = 1.0
    assert ODACConfig().env_config == {}
    assert RunSpec("odac/Box2D-v0").settings == {}


def test_training_names_every_setting():
    signature = inspect.signature(ODACConfig.training)
    text = inspect.getdoc(ODACConfig.training)
    for name, declared in SETTINGS.items():
        assert signature.parameters[name].default == declared.default
        assert f"    {name}: {declared.meaning}" in text
    assert signature.parameters["tau"].annotation is float


def test_training_takes_settings_and_those_of_rllib():
    config = ODACConfig().training(tau=0.5, lr=1e-2, grad_clip_by="norm", num_critics=3)
    assert (config.tau, config.lr, config.grad_clip_by, config.num_critics) == (
        0.5, 1e-2, "norm", 3,
    )  # fmt: skip
    assert config.training().tau == 0.5
    with pytest.raises(ValueError, match="no setting 'num_critic'; did you mean num_critics"):
        config.training(num_critic=2)
    with pytest.raises(ValueError, match=r"There is no setting 'gamma'"):
        config.apply_settings({"gamma": 0.9})


def test_settings_travel_with_the_configuration():
    config = ODACConfig().training(hidden=[8], kl_weight="auto", num_envs_per_env_runner=3)
    for copied in (
        config.copy(copy_frozen=False),
        pickle.loads(pickle.dumps(config)),
        ODACConfig.from_state(config.get_state()),
        ODACConfig().update_from_dict(config.to_dict()),
    ):
        assert {name: getattr(copied, name) for name in SETTINGS} == {
            name: getattr(config, name) for name in SETTINGS
        }


def test_networks_are_built_from_the_settings_marked_so():
    given = ODACConfig().environment("odac/Box2D-v0").model_config
    assert given["num_critics"] == 2
    assert {name for name, declared in SETTINGS.items() if declared.network} <= given.keys()
    assert not {"tau", "lr", "replay_capacity"} & given.keys()


def test_the_words_name_every_objective():
    assert all(f'"{name}"' in SETTINGS["objective"].rule.words for name in OBJECTIVES)


def test_the_command_line_explains_settings_and_fields_of_runs():
    helped = " ".join(CliRunner().invoke(app, ["train", "--help"]).output.split())
    assert all(f" {name}: " in helped for name in SETTINGS)
    for name, declared in declarations(RunSpec).items():
        option = {"begin_from": "from"}.get(name, name.replace("_", "-"))
        if name not in ("env", "settings"):
            assert f"--{option}" in helped
        assert declared.default is MISSING or declared.rule.allows(declared.default), name
    told = CliRunner().invoke(app, ["settings", "tau"])
    assert told.output == f"tau: {SETTINGS['tau'].explained()}.\n"
    assert "a number in (0, 1]; default 0.05" in told.output
    assert all(f"  {name}: " in CliRunner().invoke(app, ["settings"]).output for name in SETTINGS)
    wrong = CliRunner().invoke(app, ["settings", "taw"])
    assert wrong.exit_code == 2
    assert wrong.stderr == "error: There is no setting 'taw'; did you mean tau?\n"


def test_a_run_keeps_its_own_fields_out_of_its_settings():
    with pytest.raises(ValueError, match="settings has seed 3, but must leave it to the run's own"):
        RunSpec("odac/Box2D-v0", settings={"seed": 3}).config()


def test_fields_of_a_run_are_documented():
    text = inspect.getdoc(RunSpec)
    assert all(f"    {name}: {one.meaning}" in text for name, one in declarations(RunSpec).items())
