"""A learner with made-up episodes, without Ray; and what event files of TensorBoard hold."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from ray.rllib.core import DEFAULT_MODULE_ID
from tensorboardX.proto.event_pb2 import Event

from rllib_odac import GoalEpisode, make_env
from tests.conftest import small_config

STEPS = 20


def episode(seed=0, steps=STEPS):
    """Places in the plane with their goal, made up."""
    rng = np.random.default_rng(seed)
    places = rng.uniform(-3, 3, (steps + 1, 2)).astype(np.float32)
    goal = np.broadcast_to(rng.uniform(-3, 3, 2).astype(np.float32), places.shape)
    return GoalEpisode(places, places, goal, rng.uniform(-1, 1, (steps, 2)).astype(np.float32))


def make_learner(**settings):
    env = make_env("odac/Box2D-v0")
    spaces = {DEFAULT_MODULE_ID: (env.observation_space, env.action_space)}
    learner = small_config(**settings).build_learner(spaces=spaces)
    learner.add_episodes([episode(seed) for seed in range(4)])
    learner._set_goal_scale()
    return learner


def read_scalars(directory: Path) -> dict[str, dict[int, float]]:
    """Values by name and step; each record is its length, a checksum, the event, a checksum."""
    found: dict[str, dict[int, float]] = {}
    for file in sorted(directory.glob("events.out.tfevents.*")):
        data, start = file.read_bytes(), 0
        while start < len(data):
            (size,) = struct.unpack_from("<Q", data, start)
            event = Event.FromString(data[start + 12 : start + 12 + size])
            for value in event.summary.value:
                found.setdefault(value.tag, {})[event.step] = value.simple_value
            start += 16 + size
    return found
