"""The learner's options of arithmetic: what they change and what they leave as it is."""

from __future__ import annotations

import pytest
import torch
from ray.rllib.core import DEFAULT_MODULE_ID

from rllib_odac import GoalEpisode, make_env
from tests.conftest import small_config


def updated(config):
    """A learner and its losses after three updates from made-up episodes."""
    env = make_env("odac/Box2D-v0")
    spaces = {DEFAULT_MODULE_ID: (env.observation_space, env.action_space)}
    learner = config.debugging(seed=0).build_learner(spaces=spaces)
    generator = torch.Generator().manual_seed(0)
    size = env.observation_space["observation"].shape[0]
    columns = [torch.rand(21, n, generator=generator) for n in (size, 2, 2)]
    actions = torch.rand(20, 2, generator=generator) * 2 - 1
    episode = GoalEpisode(*(c.numpy() for c in (*columns, actions)))
    learned = learner.update(episodes=[episode], num_updates=3)[DEFAULT_MODULE_ID]
    return learner, {k: float(v) for k, v in learned.items() if k.endswith("_loss")}


@pytest.mark.parametrize("precision", ["high", "medium"])
def test_matmul_precision_changes_losses_little_and_only_in_updates(precision):
    _, exact = updated(small_config())
    _, rounded = updated(small_config(matmul_precision=precision))
    assert rounded == pytest.approx(exact, rel=0.03, abs=0.03)
    assert torch.get_float32_matmul_precision() == "highest"


def test_rllibs_compilation_compiles_the_update_and_changes_nothing():
    _, expected = updated(small_config())
    config = small_config().framework(
        torch_compile_learner=True, torch_compile_learner_dynamo_backend="aot_eager"
    )
    learner, losses = updated(config)
    assert hasattr(learner._compute_update, "_torchdynamo_orig_callable")
    assert losses == pytest.approx(expected, rel=1e-4, abs=1e-5)
