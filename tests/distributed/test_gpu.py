"""Runs whose learner is on a GPU, and checkpoints from there to the CPU and back."""

from __future__ import annotations

import numpy as np
import pytest

from rllib_odac import ODAC
from tests.conftest import DEVICES, small_config

pytestmark = pytest.mark.distributed


@pytest.mark.parametrize("source", DEVICES)
@pytest.mark.parametrize("target", DEVICES)
def test_a_checkpoint_of_one_device_goes_on_on_another(source, target, ray_cluster, tmp_path):
    def config(device):
        return small_config(num_gpus_per_learner=int(device == "cuda"))

    saved = config(source).build_algo()
    saved.train()
    saved.save_to_path(tmp_path / "checkpoint")
    before = module_of(saved)
    saved.stop()
    restored = config(target).build_algo()
    restored.restore_from_path(tmp_path / "checkpoint")
    after, updates = module_of(restored), restored.updates
    assert updates > 0
    assert before.keys() == after.keys()
    for name, values in before.items():
        np.testing.assert_array_equal(values, after[name], err_msg=name)
    restored.train()
    assert restored.updates > updates
    restored.stop()


def module_of(algorithm: ODAC):
    """Everything that the learner's networks and normalisers hold."""
    [state] = algorithm.learner_group.foreach_learner(
        lambda learner: {n: v.cpu().numpy() for n, v in learner.networks.state_dict().items()}
    )
    return state.get()
