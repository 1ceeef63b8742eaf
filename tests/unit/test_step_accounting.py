"""The accounts of steps: whatever env runners do and whenever they die, they add up."""

from __future__ import annotations

import numpy as np
import pytest

from rllib_odac.runtime.env_runner_requests import Sample
from rllib_odac.runtime.faults import StepAccounting


class Runner:
    """Makes steps, ends episodes, loses them, and dies, at random."""

    def __init__(self, rng):
        self.rng, self.open = rng, 0

    def sample(self, number):
        made = int(self.rng.integers(1, 50))
        self.open += made
        ended = int(self.rng.integers(self.open + 1))
        self.open -= ended
        dropped = self.open if self.rng.random() < 0.1 else 0  # its environment has failed
        self.open -= dropped
        return Sample(None, ended, made, self.open, None, runner=number), dropped


@pytest.mark.parametrize("seed", range(20))
def test_every_step_is_in_a_replay_or_going_on_or_lost(seed):
    rng = np.random.default_rng(seed)
    accounting, runners = StepAccounting(), [Runner(rng) for _ in range(3)]
    env_steps = replayed = lost = dropped = deaths = 0
    for _ in range(300):
        number = int(rng.integers(len(runners)))
        event = rng.random()
        if event < 0.05:  # it dies, and this is noticed by a request that fails ...
            lost += runners[number].open
            deaths += 1
            accounting.env_runner_died(number)
            runners[number] = Runner(rng)
        elif event < 0.1:  # ... or not at all, since nothing was asked of it
            lost += runners[number].open
            runners[number] = Runner(rng)
        elif event < 0.12:  # a checkpoint is restored
            open_steps = accounting.unfinished
            restored = StepAccounting()
            restored.restore(accounting.state())
            accounting = restored
            # Those of env runners that died unnoticed count among them.
            known = sum(runner.open for runner in runners)
            lost -= open_steps - known
            dropped += open_steps
            runners = [Runner(rng) for _ in runners]
        else:
            sample, gone = runners[number].sample(number)
            env_steps, replayed = env_steps + sample.env_steps, replayed + sample.transitions
            lost += gone
            accounting.add(sample)
        losses = accounting.counters
        gone = losses.env_steps_lost + losses.env_steps_dropped
        assert env_steps == replayed + accounting.unfinished + gone
    for number, runner in enumerate(runners):  # now every death shows
        sample, gone = runner.sample(number)
        lost += gone
        accounting.add(sample)
    assert accounting.counters.env_steps_lost == lost
    assert accounting.counters.env_steps_dropped == dropped
    assert accounting.counters.env_runners_lost == deaths
