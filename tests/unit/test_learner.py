"""The learner's options of arithmetic: what they change and what they leave as it is."""

from __future__ import annotations

import copy

import pytest
import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from torch.utils._pytree import tree_leaves

from rllib_odac import GoalEpisode, make_env
from rllib_odac.agent.batch import make_batches
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


@pytest.mark.parametrize("objective", ["odac", "contrastive", "quasimetric", "uvd"])
def test_autocast_rounds_networks_products_and_no_more(objective):
    settings = {"objective": objective, "layer_norm": "all"}
    (exact, losses), (rounded, others) = (
        updated(small_config(**settings, autocast=autocast)) for autocast in ("none", "bfloat16")
    )
    assert others == pytest.approx(losses, rel=0.05, abs=0.05)
    assert others != losses
    batch = make_batches(exact.networks, [exact.replay.sample(32)], 32, exact._noise)[0]
    for learner, eps in ((exact, 2**-24), (rounded, 2**-8)):
        inputs = batch.inputs.state_goal
        mean, _ = learner.networks.policy(inputs)
        true, _ = copy.deepcopy(learner.networks.policy).double()(inputs.double())
        assert mean.dtype == torch.float32
        assert eps / 64 < (mean - true).abs().max() / true.abs().max() < 64 * eps
        update = learner._compute_update(learner.networks, learner.objective, batch)
        tensors = tree_leaves([update.losses, update.predictions, update.target])
        kinds = {each.dtype for each in tensors if isinstance(each, torch.Tensor)}
        assert kinds == {torch.float32}
        assert {p.dtype for p in learner.networks.parameters()} == {torch.float32}


def test_fifty_updates_with_autocast_end_near_those_without():
    """Beside how far two seeds of the noise are apart, for training is chaotic."""

    def parameters(seed, autocast):
        learner, _ = updated(small_config(autocast=autocast))
        learner._noise.manual_seed(seed)
        learner.update(num_updates=50)
        return torch.cat([p.detach().flatten() for p in learner.networks.parameters()])

    exact = parameters(1, "none")
    rounding = (parameters(1, "bfloat16") - exact).norm()
    assert 0 < rounding < (parameters(2, "none") - exact).norm()


def test_rllibs_compilation_compiles_the_update_and_changes_nothing():
    _, expected = updated(small_config())
    config = small_config().framework(
        torch_compile_learner=True, torch_compile_learner_dynamo_backend="aot_eager"
    )
    learner, losses = updated(config)
    assert hasattr(learner._compute_update, "_torchdynamo_orig_callable")
    assert losses == pytest.approx(expected, rel=1e-4, abs=1e-5)
