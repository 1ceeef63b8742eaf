"""A goal environment that fails as a seed decides: the faults of simulators, on purpose."""

from __future__ import annotations

import itertools
import os
import signal
import time

import gymnasium as gym
import numpy as np

from rllib_odac import make_env
from rllib_odac.env_runner import TRAINING_SEEDS

FAULTS = ("raise", "nan", "inf", "stall", "kill")
_instances = itertools.count()


class Faulty(gym.Wrapper):
    """Fails at random steps and resets.

    Args:
        env: What to wrap.
        faults: Some of FAULTS, each as likely as the others.
        rate: Probability of a fault in a step or reset.
        seed: Of the schedule; each process and each instance in it has one of its own.
        after: Calls that come before the first fault.
        stall_s: Seconds that a stall takes.
        in_evaluation: Whether it fails on held-out goals alone; calls are counted there.
    """

    def __init__(
        self, env, faults=("raise",), rate=0.0, seed=0, after=0, stall_s=3600.0, in_evaluation=False
    ):
        super().__init__(env)
        self.faults, self.rate, self.after, self.stall_s = faults, rate, after, stall_s
        self.in_evaluation, self.is_held_out = in_evaluation, False
        self.schedule = np.random.default_rng([seed, os.getpid(), next(_instances)])
        self.calls = 0

    def reset(self, **kwargs):
        self.is_held_out = (kwargs.get("seed") or 0) >= TRAINING_SEEDS
        observation, info = self.env.reset(**kwargs)
        return self._fail(observation), info

    def step(self, action):
        observation, *rest = self.env.step(action)
        return self._fail(observation), *rest

    def _fail(self, observation):
        if self.in_evaluation and not self.is_held_out:
            return observation
        self.calls += 1
        if self.calls <= self.after or self.schedule.random() >= self.rate:
            return observation
        fault = self.schedule.choice(self.faults)
        if fault == "raise":
            raise OSError("the simulator lost its connection")
        if fault == "stall":
            time.sleep(self.stall_s)
        elif fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        else:
            bad = np.full_like(observation["achieved_goal"], np.nan if fault == "nan" else np.inf)
            return observation | {"achieved_goal": bad}
        return observation


def make_faulty(env="odac/Box2D-v0", **settings):
    """Makes one: what a configuration's `environment` takes."""
    return Faulty(make_env(env), **settings)
