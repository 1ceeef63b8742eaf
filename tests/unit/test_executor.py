"""Updates as they were recorded are the updates that would have been made, and can be captured."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters

from rllib_odac.agent.recording import HostReads, Recording
from rllib_odac.agent.update import compute_update
from tests.conftest import DEVICES
from tests.made_up import episode, make_learner

OBJECTIVES = {
    "odac": {},
    "horizon": {},
    "her": {"objective_settings": {"reward": "success"}},
    "sac": {},
    "discern": {"objective_settings": {"num_decoys": 7}},
    "uvd": {},
    "contrastive": {},
    "quasimetric": {},
    "gciql": {},
    "gcbc": {},
}


def learner_for(objective, **settings):
    return make_learner(**OBJECTIVES[objective], objective=objective, **settings)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_no_update_waits_for_the_device_and_each_does_what_the_one_before_did(objective):
    learner = learner_for(objective, executor="captured")
    learner.update(num_updates=2)
    seen = []
    for _ in range(3):
        with HostReads() as reads:
            learner._updates_of_one_draw(2)
        learner._guard.read()
        assert reads.found == []
        seen.append((reads.operations, reads.allocated))
    assert len(set(seen)) == 1
    assert seen[0][0] > 100


@pytest.mark.parametrize(
    "read",
    [
        lambda x: x.sum().item(),
        lambda x: x[x > 0],
        lambda x: x.nonzero(),
        lambda x: bool((x > 0).any()),
        lambda x: x.masked_select(x > 0),
    ],
)
def test_what_a_host_reads_is_found(read):
    with HostReads() as reads:
        read(torch.arange(4.0))
    assert reads.found


def test_indices_and_copies_on_one_device_are_no_reads():
    x = torch.arange(4.0)
    with HostReads() as reads:
        x[torch.tensor([1, 2])] = x[torch.tensor([2, 1])].double().float()
    assert reads.found == []


def test_a_recording_reads_its_inputs_again_but_not_what_python_computed():
    x, factor = torch.ones(3), 2.0
    recording = Recording()
    made = recording.record(lambda: (x * factor).relu_().view(3, 1)[1:])
    x.fill_(5.0)
    factor = 7.0
    recording.replay()
    assert made.flatten().tolist() == [10.0, 10.0]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("objective", ["odac", "her", "uvd", "quasimetric"])
def test_a_hundred_captured_updates_are_those_of_the_eager_executor(objective, device):
    settings = {"num_gpus_per_learner": int(device == "cuda"), "relabel_candidates": 3}
    if objective == "odac":
        settings |= {"kl_weight": "auto", "num_critics": 3, "target_critics": 2, "grad_clip": 1.0}
        settings |= {"dynamics_members": 3, "disagreement_weight": -1.0}
    learners = [learner_for(objective, executor=e, **settings) for e in ("eager", "captured")]
    told = []
    for learner in learners:
        for call in range(5):  # with new episodes and another learning rate in between
            if call == 3:
                learner._set_optimizer_lr(learner.get_optimizer(), 1e-4)
            new = episode(10 + call, terminated=call == 4)  # the first terminal state
            told.append(learner.update(episodes=[new], num_updates=60 if call == 4 else 20))
    eager, captured = learners
    # Of 16 updates and of 4, and of 16 with terminal states, of which the last call has the first.
    assert captured._executor.num_graphs == 3
    assert eager.num_updates == captured.num_updates == 140
    expected = eager.networks.state_dict()
    for name, value in captured.networks.state_dict().items():
        if device == "cpu":
            assert torch.equal(value, expected[name]), name
        else:
            torch.testing.assert_close(value, expected[name], rtol=1e-2, atol=1e-3)
    if device == "cpu":
        names = told[4]["default_policy"].keys()
        losses = [name for name in names if name.endswith("_loss")]
        assert losses
        for name in losses:
            assert float(told[4]["default_policy"][name]) == float(told[9]["default_policy"][name])


@pytest.mark.parametrize("executor", ["eager", "captured"])
def test_updates_go_on_from_a_checkpoint_of_either_executor(executor):
    other = {"eager": "captured", "captured": "eager"}[executor]
    saved, loaded = learner_for("her", executor=executor), learner_for("her", executor=other)
    saved.update(num_updates=30)
    loaded.update(num_updates=60)
    loaded.set_state(saved.get_state())
    loaded.replay.generator.set_state(saved.replay.generator.get_state())
    for learner in (saved, loaded):
        learner.replay.clear()
        learner.store([episode(3)])
        for _ in range(4):
            learner.update(num_updates=16)
    expected = saved.networks.state_dict()
    for name, value in loaded.networks.state_dict().items():
        assert torch.equal(value, expected[name]), name


def test_what_cannot_be_captured_runs_eagerly_and_says_so(caplog):
    with caplog.at_level(logging.WARNING):
        skipping = learner_for("odac", executor="captured", on_divergence="skip")
        moving = learner_for("odac", executor="captured", action_prior="previous")
    assert "on_divergence" in caplog.text
    assert "action_prior" in caplog.text
    assert not skipping._executor.is_captured
    assert not moving._executor.is_captured

    caplog.clear()
    learner = learner_for("odac", executor="captured", action_prior=_validated_prior)
    learner.update(num_updates=80)
    assert caplog.text.count("run eagerly") == 1
    assert learner._executor.num_graphs == 0


def _validated_prior(observation):
    shape = (len(observation), 2)
    return torch.distributions.Uniform(
        torch.full(shape, -1.01), torch.full(shape, 1.01), validate_args=True
    )


def test_a_captured_update_that_is_not_finite_is_reported_with_its_number():
    learner = learner_for("odac", executor="captured")
    learner.update(num_updates=64)
    with torch.no_grad():
        next(learner.networks.critic.parameters()).fill_(np.nan)
    with pytest.raises(FloatingPointError, match="update 65"):
        learner.update(num_updates=16)


def test_a_captured_update_is_compiled_once_it_has_been_watched():
    learner = learner_for("odac", executor="captured", torch_compile_learner=True)
    learner._compute_update = torch.compile(compute_update, backend="aot_eager")
    torch._dynamo.reset()
    counters.clear()
    learner.update(num_updates=1)
    assert not counters["frames"]
    learner.update(num_updates=1)
    assert counters["frames"]["ok"] == 1
    assert learner._executor.is_captured
