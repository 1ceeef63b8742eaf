"""Shared fixtures: one small Ray cluster a session, and threads set before PyTorch is imported."""

from __future__ import annotations

import logging
import os
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_worker_niceness", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import pytest
import torch

DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=[
            pytest.mark.gpu,
            pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no GPU"),
        ],
    ),
]


# Ray 2.60 does not quote the path of Python in the commands of workers with a runtime environment,
# which Tune's trials and the drivers of jobs are.
starts_trials = pytest.mark.skipif(
    " " in sys.executable, reason="Ray starts no trial or job where Python's path has a space"
)


@pytest.fixture(scope="session")
def ray_ends():
    """Ray is started once for all tests, and ends with the last of them."""
    import ray

    yield
    ray.shutdown()


@pytest.fixture
def ray_cluster(ray_ends):
    """A local Ray with more CPUs than the machine may have, so that every actor finds a place."""
    start_ray()


def start_ray():
    """What `ray_cluster` does, for fixtures that live longer and use `ray_ends`."""
    import ray

    from rllib_odac.runtime.cluster import join_or_start

    if not ray.is_initialized():  # as after tests with a cluster of their own
        join_or_start("local", num_cpus=6, log_to_driver=False, logging_level=logging.ERROR)


def small_config(env: str = "odac/Box2D-v0", **settings):
    """A configuration that trains in seconds."""
    from rllib_odac import ODACConfig

    defaults = {
        "hidden": (32, 32),
        "train_batch_size_per_learner": 32,
        "num_steps_before_learning": 200,
        "num_initial_random_steps": 200,
        "updates_per_env_step": 0.1,
        "num_envs_per_env_runner": 4,
        "evaluation_duration": 4,
        "min_sample_timesteps_per_iteration": 400,
        "replay_capacity": 5000,
    }
    config = ODACConfig().environment(env).debugging(seed=0, log_level="ERROR")
    return config.apply_settings(defaults | settings)
