"""Beginning with another run's networks: what is taken over, what is named, what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ray.rllib.core import DEFAULT_MODULE_ID

from rllib_odac import make_env
from rllib_odac.checkpoints.manifest import write_manifest
from rllib_odac.checkpoints.networks import networks_files
from rllib_odac.checkpoints.pretrained import begin_with, pretrained
from rllib_odac.storage import Storage
from tests.conftest import small_config

LEARNED = {"action_prior": "behavior", "values": "soft"}


def learners(**settings):
    """A configuration, and a learner of it in this process."""
    config = small_config(**settings)
    env = make_env(config.env)
    spaces = {DEFAULT_MODULE_ID: (env.observation_space, env.action_space)}
    return config, config.build_learner_group(spaces=spaces)


def checkpoint(path, **settings):
    """The networks of a new learner as a checkpoint holds them."""
    config, group = learners(**settings)
    weights = group._learner.module[DEFAULT_MODULE_ID].get_state()
    for name, content in networks_files(weights, config).items():
        (Storage.of(path) / name).parent.make_directory()
        (Storage.of(path) / name).write_bytes(content)
    write_manifest(Storage.of(path), {"env_steps": 0}, {})
    return {name: torch.from_numpy(np.array(array)) for name, array in weights.items()}


def warnings(caplog):
    """What our own loggers have warned of."""
    return [each.getMessage() for each in caplog.records if each.name.startswith("rllib_odac")]


@pytest.mark.parametrize("settings", [{}, LEARNED, {"dynamics_members": 3}], ids=str)
def test_everything_that_was_learned_is_taken_over(tmp_path, caplog, settings):
    weights = checkpoint(tmp_path, **settings, seed=1)
    config, group = learners(**settings, seed=2)
    state = torch.random.get_rng_state()
    begin_with(config, group, tmp_path)
    assert warnings(caplog) == []
    assert torch.equal(torch.random.get_rng_state(), state)
    ours = group._learner.module[DEFAULT_MODULE_ID].state_dict()
    assert ours.keys() == weights.keys()
    assert all(torch.equal(ours[name], weights[name]) for name in ours)


def test_what_a_checkpoint_does_not_hold_is_named(tmp_path, caplog):
    weights = checkpoint(tmp_path, objective="her", seed=1)
    config, group = learners(**LEARNED, seed=2)
    networks = group._learner.networks
    before = {name: values.clone() for name, values in networks.state_dict().items()}
    begin_with(config, group, tmp_path)
    fresh = ("dynamics", "action_prior", "state_value")
    assert warnings(caplog) == [
        f"Trained from scratch, as '{tmp_path}' has none: {', '.join(fresh)}."
    ]
    for name, values in networks.state_dict().items():
        stays = name.startswith(fresh)
        assert torch.equal(values, before[name] if stays else weights[f"networks.{name}"]), name


@pytest.mark.parametrize(
    ("theirs", "ours", "sentence"),
    [
        ({}, {"dynamics_members": 3}, "dynamics_members is 3, but must be 1 to begin with the dyn"),
        ({"dynamics_members": 2}, {}, "dynamics_members is 1, but must be 2 to begin with the dyn"),
        ({}, {"hidden": (8,)}, r"hidden is \[8\], but must be \[32, 32\] to begin with the policy"),
        ({"layer_norm": "all"}, {}, "layer_norm is 'none', but must be 'all' to begin with the po"),
        ({}, {"layer_norm": "critics"}, "layer_norm is 'critics', but must be 'none' to begin wit"),
        ({}, {"fourier_features": 6}, "fourier_features is 6, but must be 0 to begin with the pol"),
        ({}, {"num_critics": 5, "kl_weight": 0.3}, "num_critics is 5, but must be 2 to begin with"),
        ({}, {"values": "returns", "extraction": "advantage"}, "values is 'returns', but must be"),
        ({"objective": "uvd"}, {"objective": "discern"}, "objective is 'discern', but must be 'uv"),
        ({}, {"env": "FetchReach-v4"}, r"goal_center has shape \(3,\) in these spaces, but must"),
    ],
    ids=str,
)
def test_a_network_of_another_form_is_refused(tmp_path, theirs, ours, sentence):
    checkpoint(tmp_path, **theirs)
    with pytest.raises(ValueError, match=f"^{sentence}.* of '{tmp_path}'\\.$"):
        pretrained(small_config(**ours), tmp_path)


@pytest.mark.parametrize(("theirs", "ours"), [(0.3, 0.05), (0.3, "auto"), ("auto", 0.3), (0, 1)])
def test_the_kl_weight_is_a_setting_unless_it_is_learned(tmp_path, theirs, ours):
    checkpoint(tmp_path, kl_weight=theirs)
    config, group = learners(kl_weight=ours)
    begin_with(config, group, tmp_path)
    weight = float(group._learner.networks.log_kl_weight.detach().exp())
    assert weight == pytest.approx(0.1 if ours == "auto" else ours)


def test_the_previous_policy_is_at_first_the_one_begun_with(tmp_path):
    weights = checkpoint(tmp_path, seed=1)
    config, group = learners(action_prior="previous", seed=2)
    begin_with(config, group, tmp_path)
    for name, values in group._learner.networks.action_prior.policy.state_dict().items():
        assert torch.equal(values, weights[f"networks.policy.{name}"])
