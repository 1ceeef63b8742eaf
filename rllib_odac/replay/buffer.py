"""Replay of whole goal-conditioned episodes with hindsight relabelling at sampling time.

`GoalReplay` keeps every state once, in columns of tensors on one device. An episode of T steps
takes T + 1 consecutive rows of a ring; the transitions that can be sampled are a second ring of
row numbers, so that a minibatch is a handful of index operations, on a CPU or a GPU alike, and
never a Python loop.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rllib_odac.replay.blocks import Block, in_blocks, pack, write
from rllib_odac.replay.episodes import Array, GoalEpisode, cut_episodes
from rllib_odac.replay.file import read_arrays, write_arrays
from rllib_odac.replay.logged_share import drawn_numbers
from rllib_odac.replay.relabelling import (
    NUM_NEAR,
    RelabelStrategy,
    first_false,
    row_of_episode,
    validate_relabelling,
)
from rllib_odac.replay.transitions import Transitions


class GoalReplay:
    """Columnar ring buffer of whole episodes with hindsight relabelling.

    Args:
        capacity: Number of states kept. An episode of T steps takes T + 1 of them; when room is
            needed, whole episodes leave, oldest first.
        observation_dim: D.
        goal_dim: G.
        action_dim: A.
        relabel: Probability of each `RelabelStrategy`; they sum to 1.
        device: Where columns live and batches are made.
        seed: Seed of the buffer's own random generator.
        auxiliary_goal: Where a further goal of each transition comes from, or None for no such
            goal. Any strategy but "own".
        discount: γ of the strategy "discounted".
        candidates: Draws of a transition and its hindsight goal, of which the first whose goal is
            not reached already is kept; in every other row of a batch.
        logged_share: Share of the draws that come from the episodes that `mark_logged` was called
            for, as long as any of them is left; None draws all transitions alike.

    Raises:
        ValueError: On a size below one or probabilities that do not sum to one.
    """

    def __init__(
        self,
        capacity: int,
        observation_dim: int,
        goal_dim: int,
        action_dim: int,
        relabel: Mapping[str, float],
        device: str | torch.device = "cpu",
        seed: int | None = None,
        auxiliary_goal: RelabelStrategy | None = None,
        discount: float = 0.95,
        candidates: int = 1,
        logged_share: float | None = None,
    ) -> None:
        sizes = {
            "candidates": candidates,
            "capacity": capacity,
            "observation_dim": observation_dim,
            "goal_dim": goal_dim,
            "action_dim": action_dim,
        }
        for name, size in sizes.items():
            least = 0 if name == "observation_dim" else 1  # all that matters may be in the goal
            if size < least:
                raise ValueError(f"{name} is {size}, but must be at least {least}.")
        self.capacity = int(capacity)
        self.device = torch.device(device)
        self.relabel = validate_relabelling(relabel)
        self.auxiliary_goal = auxiliary_goal
        self.discount = discount
        self.candidates = candidates
        self.logged_share = logged_share
        self.generator = torch.Generator(device=self.device)
        if seed is not None:
            self.generator.manual_seed(seed)

        # Not zeroed: the operating system gives memory only to the pages that are written.
        def column(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.empty((self.capacity, *shape), dtype=dtype, device=self.device)

        # Side by side in one matrix, so that a state is one gather from one place in memory.
        widths = {
            "observation": observation_dim,
            "achieved_goal": goal_dim,
            "desired_goal": goal_dim,
            "actions": action_dim,  # of the step that leaves the state; unused in the last row
        }
        self._states = column(sum(widths.values()))
        self._columns = dict(
            zip(widths, torch.split(self._states, list(widths.values()), dim=-1), strict=True)
        )
        # Of each transition: its own row, and its episode's first and last row. Rows are counted
        # without end; a row's place in the ring is its number modulo the capacity.
        self._entries = column(3, dtype=torch.int64)
        self._terminated = column(dtype=torch.bool)
        self.has_terminal_states = False  # so far; transitions say which they are once it is True

        self._episodes: deque[tuple[int, bool]] = deque()  # (steps, terminated), oldest first
        self._head = 0  # row of the next state
        self._next_entry = 0  # number of the next transition, counted in the same way
        self._num_states = 0
        self._num_transitions = 0
        self._num_logged = 0  # of these, the oldest
        # First and number of what can be drawn, and how much of it is logged; a captured draw reads
        # what stands here by then.
        counters = torch.zeros(3, dtype=torch.int64, device=self.device)
        self._oldest, self._drawable, self._logged = counters
        self._thresholds = torch.tensor(
            [self.relabel.get(strategy, 0.0) for strategy in RelabelStrategy],
            dtype=torch.float64,
            device=self.device,
        ).cumsum(0)[:-1]

    def __len__(self) -> int:
        """Number of transitions that can be sampled."""
        return self._num_transitions

    @property
    def num_added(self) -> int:
        """Number of transitions that have come in since it was empty, those that left included."""
        return self._next_entry

    @property
    def num_episodes(self) -> int:
        """Number of episodes held."""
        return len(self._episodes)

    @property
    def num_states(self) -> int:
        """Number of rows in use, at most `capacity`."""
        return self._num_states

    @property
    def widths(self) -> tuple[int, int, int]:
        """D, G and A."""
        dims = {name: values.shape[1] for name, values in self._columns.items()}
        return dims["observation"], dims["achieved_goal"], dims["actions"]

    def add(self, episode: GoalEpisode) -> None:
        """Appends one episode, as `extend`."""
        self.extend([episode])

    def extend(self, episodes: Iterable[GoalEpisode]) -> None:
        """Appends episodes and evicts the oldest ones as far as room is needed.

        An episode that was cut before its end is stored as far as it went; only a terminal state
        makes its last transition terminal. An episode without a step is ignored.

        Raises:
            ValueError: If an episode is longer than the whole buffer, or holds NaN or infinity.
        """
        widths = {name: values.shape[1] for name, values in self._columns.items()}
        for group in in_blocks(episodes, self.capacity):
            self._store(pack(group, widths, pinned=self.device.type == "cuda"))

    def _store(self, block: Block) -> None:
        num_states, num_transitions = len(block.states), len(block.entries)
        while self._num_states + num_states > self.capacity:
            evicted, _ = self._episodes.popleft()
            self._num_states -= evicted + 1
            self._num_transitions -= evicted
            self._num_logged = max(0, self._num_logged - evicted)
        write(self._states, self._head, block.states)
        write(self._entries, self._next_entry, block.entries.add_(self._head))
        write(self._terminated, self._next_entry, block.terminated)
        self.has_terminal_states |= any(terminated for _, terminated in block.episodes)
        self._episodes.extend(block.episodes)
        self._head += num_states
        self._num_states += num_states
        self._next_entry += num_transitions
        self._num_transitions += num_transitions
        self._tell_device()

    def sample(self, batch_size: int, reached_distance: float | Tensor = 0.0) -> Transitions:
        """Draws transitions alone, as `sample_steps`."""
        return self.sample_steps(batch_size, 1, reached_distance)[0]

    def sample_steps(
        self, batch_size: int, num_steps: int, reached_distance: float | Tensor = 0.0
    ) -> list[Transitions]:
        """Draws transitions uniformly, with replacement, a goal for each, and what followed.

        With several `candidates` those whose hindsight goal is reached already are drawn again, in
        every other row. Step k of the list is k steps after the first; where the episode is
        shorter it is its last one once more.

        Args:
            batch_size: B.
            num_steps: Steps of each, at least 1.
            reached_distance: Distance of φ(s) and g below which it is, in the environment's units.

        Raises:
            ValueError: If the buffer is empty.
        """
        if self._num_transitions == 0:
            raise ValueError("The replay is empty: add an episode before sampling.")
        fraction = self._random(4, self.candidates * batch_size)
        entry = self._draw_entry(fraction[0])
        row, first, last = self._entries.index_select(0, entry).unbind(-1)

        strategy = torch.bucketize(fraction[1, :batch_size], self._thresholds, right=True)
        strategy = strategy.repeat(self.candidates)
        goal_row = last
        for index, name in enumerate(RelabelStrategy):
            if self.relabel.get(name, 0.0) == 0.0 or name == RelabelStrategy.OWN:
                continue
            candidate = self._goal_row(name, row, first, last, fraction[2], fraction[3])
            goal_row = torch.where(strategy == index, candidate, goal_row)
        relabelled = strategy != list(RelabelStrategy).index(RelabelStrategy.OWN)
        if self.candidates > 1:
            way = self._achieved(goal_row) - self._achieved(row)
            is_trivial = relabelled & (way.norm(dim=-1) < reached_distance)
            # Every other row is left as it came: that a reached goal has to be kept is learned too.
            is_drawn_again = torch.arange(batch_size, device=self.device) % 2 == 0
            chosen = first_false(is_trivial.view(self.candidates, batch_size) & is_drawn_again)
            columns = (entry, row, first, last, goal_row, relabelled)
            entry, row, first, last, goal_row, relabelled = (values[chosen] for values in columns)

        desired_goal = self._columns["desired_goal"].index_select(0, row % self.capacity)
        goal = torch.where(relabelled.unsqueeze(-1), self._achieved(goal_row), desired_goal)
        auxiliary_goal = None
        if self.auxiliary_goal is not None:
            fractions = self._random(2, batch_size)
            auxiliary_row = self._goal_row(self.auxiliary_goal, row, first, last, *fractions)
            auxiliary_goal = self._achieved(auxiliary_row)
        drawn = self._transitions(row, entry, goal, relabelled)
        steps = [drawn._replace(auxiliary_goal=auxiliary_goal)]
        for number in range(1, num_steps):
            ahead = torch.minimum(row + number, last - 1) - row
            # The entries of an episode's steps lie one behind the other.
            step = self._transitions(row + ahead, entry + ahead, goal, relabelled)
            steps.append(step._replace(within=row + number < last))
        return steps

    def _transitions(
        self, row: Tensor, entry: Tensor, goal: Tensor, relabelled: Tensor
    ) -> Transitions:
        """Transitions (B,) that leave these rows, of these entries, judged by goals (B, G)."""
        observation, achieved_goal, _, actions = self._gather(row)
        next_observation, next_achieved_goal, _, _ = self._gather(row + 1)
        return Transitions(
            observation=observation,
            next_observation=next_observation,
            achieved_goal=achieved_goal,
            next_achieved_goal=next_achieved_goal,
            goal=goal,
            actions=actions,
            terminated=(
                self._terminated[entry % self.capacity] if self.has_terminal_states else None
            ),
            relabelled=relabelled,
        )

    def _goal_row(
        self,
        strategy: RelabelStrategy,
        row: Tensor,
        first: Tensor,
        last: Tensor,
        fraction: Tensor,
        other_fraction: Tensor,
    ) -> Tensor:
        """Rows (B,) whose achieved goals are the goals of transitions, drawn by fractions (B,)."""
        match strategy:
            case RelabelStrategy.RANDOM:
                return self._reached_row(other_fraction)
            case RelabelStrategy.NEAR:
                others = self._reached_row(self._random(NUM_NEAR, len(row)).flatten())
                ends = self._achieved(others).view(NUM_NEAR, len(row), -1)
                nearest = (ends - self._achieved(row)).norm(dim=-1).argmin(0, keepdim=True)
                return others.view(NUM_NEAR, -1).gather(0, nearest).squeeze(0)
        return row_of_episode(strategy, row, first, last, fraction, self.discount)

    def _reached_row(self, fraction: Tensor) -> Tensor:
        """Rows (B,) of any states that were ever reached by a step, by fractions (B,)."""
        return self._row(self._draw_entry(fraction)) + 1

    def _row(self, entry: Tensor) -> Tensor:
        return self._entries[:, 0].index_select(0, entry)

    def _achieved(self, row: Tensor) -> Tensor:
        return self._columns["achieved_goal"].index_select(0, row % self.capacity)

    def _random(self, rows: int, count: int) -> Tensor:
        # Double precision: a float32 fraction cannot reach every transition of a large buffer.
        return torch.rand(
            (rows, count), generator=self.generator, dtype=torch.float64, device=self.device
        )

    def sample_achieved(self, count: int) -> Tensor:
        """Draws (N, G) goals that were achieved, uniformly over states that a step has reached.

        Raises:
            ValueError: If the buffer is empty.
        """
        if self._num_transitions == 0:
            raise ValueError("The replay is empty: add an episode before sampling.")
        return self._achieved(self._reached_row(self._random(1, count)[0]))

    def sample_displacements(self, count: int) -> Tensor:
        """Draws (N, G) ways from what a state achieved to what a later one of its episode did."""
        fraction, other = self._random(2, count)
        row, first, last = self._entries.index_select(0, self._draw_entry(fraction)).unbind(-1)
        later = row_of_episode(RelabelStrategy.FUTURE, row, first, last, other, self.discount)
        return self._achieved(later) - self._achieved(row)

    def _gather(self, row: Tensor) -> tuple[Tensor, ...]:
        states = self._states.index_select(0, row % self.capacity)
        return torch.split(states, [values.shape[1] for values in self._columns.values()], dim=-1)

    def mark_logged(self) -> None:
        """Takes all that is held for a log's, of which `logged_share` speaks."""
        self._num_logged = self._num_transitions
        self._tell_device()

    def _draw_entry(self, fraction: Tensor) -> Tensor:
        number = drawn_numbers(fraction, self._drawable, self._logged, self.logged_share)
        entry: Tensor = (self._oldest + number) % self.capacity
        return entry

    def _tell_device(self) -> None:
        self._oldest.fill_(self._next_entry - self._num_transitions)
        self._drawable.fill_(self._num_transitions)
        self._logged.fill_(self._num_logged)

    def clear(self) -> None:
        """Forgets every episode; the random state stays."""
        self._episodes.clear()
        self._head = self._next_entry = self._num_states = self._num_transitions = 0
        self._num_logged = 0
        self._tell_device()

    def _columns_in_order(self) -> dict[str, Array]:
        """Copies of the states held, oldest first."""
        rows = torch.arange(self._head - self._num_states, self._head, device=self.device)
        slots = rows % self.capacity
        return {name: values[slots].cpu().numpy() for name, values in self._columns.items()}

    def episodes(self) -> list[GoalEpisode]:
        """Copies of the episodes held, oldest first."""
        return list(cut_episodes(self._columns_in_order(), self._episodes))

    def goals_of_episodes(self) -> tuple[Tensor, Tensor]:
        """Goals (E, G) at the beginning of episodes, and achieved ones at their end, in memory."""
        starts = np.cumsum([0, *(steps + 1 for steps, _ in self._episodes)])
        rows = torch.from_numpy(starts + self._head - self._num_states).to(self.device)
        desired = self._columns["desired_goal"][rows[:-1] % self.capacity]
        return desired.cpu(), self._achieved(rows[1:] - 1).cpu()

    def write(self, stream: Any) -> None:
        """Writes episodes and random state to a binary stream, front to back, as a `file`."""
        arrays = self._columns_in_order()
        arrays["episodes"] = np.array(self._episodes, dtype=np.int64).reshape(-1, 2)
        arrays["generator"] = self.generator.get_state().numpy()
        header = {"generator_device": self.device.type, "logged": self._num_logged}
        write_arrays(stream, header, arrays)

    def read(self, stream: Any, name: str) -> None:
        """Replaces the contents and the random state by what `write` wrote.

        Episodes beyond this buffer's capacity are dropped, oldest first. The random state is kept
        only between devices of one type, whose generators are alike.

        Args:
            stream: Binary, and can be read in any order.
            name: What messages call it.

        Raises:
            ValueError: If it is no replay, of another version, damaged or of other sizes.
        """
        header, arrays = read_arrays(stream, name)
        for column, values in self._columns.items():
            if arrays[column].shape[1:] != values.shape[1:]:
                raise ValueError(
                    f"The replay file {name} holds '{column}' of size {arrays[column].shape[1]}, "
                    f"but this environment has size {values.shape[1]}."
                )
        self.clear()
        columns = {column: arrays[column] for column in self._columns}
        self.extend(cut_episodes(columns, arrays["episodes"].tolist()))
        self._num_logged = min(header.get("logged", 0), self._num_transitions)
        self._tell_device()
        if header["generator_device"] == self.device.type:
            self.generator.set_state(torch.from_numpy(arrays["generator"].copy()))
