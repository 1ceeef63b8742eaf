"""A learner with made-up episodes, without Ray; and what event files of TensorBoard hold."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from tensorboardX.proto.event_pb2 import Event

from rllib_odac import GoalEpisode, make_env
from rllib_odac.agent.batch import Batch, Inputs
from rllib_odac.agent.objectives import JudgedTransitions
from rllib_odac.replay.transitions import Transitions
from tests.conftest import small_config

STEPS = 20


def episode(seed=0, steps=STEPS, terminated=False):
    """Places in the plane with their goal, made up."""
    rng = np.random.default_rng(seed)
    places = rng.uniform(-3, 3, (steps + 1, 2)).astype(np.float32)
    goal = np.broadcast_to(rng.uniform(-3, 3, 2).astype(np.float32), places.shape)
    actions = rng.uniform(-1, 1, (steps, 2)).astype(np.float32)
    return GoalEpisode(places, places, goal, actions, terminated)


def make_transitions(goal, **columns):
    """Transitions with the columns given, the others being zeros."""
    size, zeros = len(goal), torch.zeros_like(goal)
    no = torch.zeros(size, dtype=torch.bool)
    defaults = {
        name: zeros for name in Transitions._fields if name not in ("auxiliary_goal", "within")
    }
    return Transitions(**defaults | {"goal": goal, "terminated": no, "relabelled": no} | columns)


def judge(goal, log_prob_goal=None, goal_scale=1.0, learned_reward=None, **columns):
    """Judged transitions with what is given, the rest being zeros."""
    log_prob_goal = torch.zeros(len(goal)) if log_prob_goal is None else log_prob_goal
    scale = torch.tensor(goal_scale)
    return JudgedTransitions(
        make_transitions(goal, **columns), log_prob_goal, scale, learned_reward
    )


def make_batch(transitions, state_action=None, auxiliary_noise=None):
    """A batch whose inputs are zeros but for those given."""
    size = len(transitions.goal)
    zeros = torch.zeros(size, 1)
    state_action = zeros if state_action is None else state_action
    inputs = Inputs(zeros, zeros, state_action, zeros, zeros, zeros)
    noise = torch.zeros(2, size, 1)
    return Batch(transitions, inputs, noise, auxiliary_noise=auxiliary_noise)


def make_learner(**settings):
    env = make_env("odac/Box2D-v0")
    spaces = {DEFAULT_MODULE_ID: (env.observation_space, env.action_space)}
    learner = small_config(**settings).build_learner(spaces=spaces)
    learner.add_episodes([episode(seed) for seed in range(4)])
    learner._set_goal_units()
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
