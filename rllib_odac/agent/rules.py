"""`Rules`: how values are estimated and the policy follows them, whatever the objective is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rllib_odac.agent.objectives import AnyObjective

EXPLICIT, EXPECTILE, SOFT, RETURNS = "explicit", "expectile", "soft", "returns"
POSTERIOR, ADVANTAGE, DDPG_BC, IMITATION = "posterior", "advantage", "ddpg_bc", "imitation"


@dataclass(frozen=True)
class Rules:
    """Policy evaluation and policy improvement.

    Attributes:
        values: V(s', g) is "explicit", Q − w KL of a fresh action of the policy, or it is a network
            fitted to Q of replayed actions alone: their τ-"expectile", or their "soft" maximum
            w log E_{a~π_β} exp(Q/w), the value of the posterior against the behaviour. With
            "returns" there is V(s, g) alone, the τ-expectile of what targets say of the logged
            steps (Park et al. 2023, arXiv 2307.11949, eq. 4, there of one step): of several ways
            on from s the best one counts, where Q(s, a, g) would be the mean of those after a.
        expectile: τ.
        extraction: The policy follows the "posterior", maximising Q − w KL of its own actions; or
            it imitates replayed ones by their "advantage"; or both, as "ddpg_bc": it maximises Q in
            units of the batch's mean |Q|, and the likelihood of replayed actions. "imitation" looks
            at no value.
        bc_weight: Weight of that likelihood.
        conservative_weight: Weight of a penalty on values of actions that the replay does not hold
            (Kumar et al. 2020, arXiv 2006.04779); 0 for none.
        rollout_weight: Weight of steps that p_ψ makes up in the critics' loss; see `rollouts`.
        disagreement_weight: w_u, of the disagreement of p_ψ's models in rewards; see `back_up`.
    """

    values: str = EXPLICIT
    expectile: float = 0.9
    extraction: str = POSTERIOR
    bc_weight: float = 0.03
    conservative_weight: float = 0.0
    rollout_weight: float = 0.0
    disagreement_weight: float = 0.0

    @property
    def is_in_sample(self) -> bool:
        """Whether values come from replayed actions alone."""
        return self.values != EXPLICIT

    @property
    def fits_values_to_critics(self) -> bool:
        """Whether there is a network V(s, g) besides critics Q(s, a, g)."""
        return self.values in (EXPECTILE, SOFT)

    def check(self, kl_weight: float | str, objective: AnyObjective) -> None:
        """Checks that they fit what else is asked for.

        Raises:
            ValueError: With one sentence on the first that does not.
        """
        if self.is_in_sample and objective.auxiliary is not None:
            name = type(objective).__name__
            raise ValueError(f'values is "{self.values}", but must be "explicit" with {name}.')
        if self.extraction == ADVANTAGE and not self.is_in_sample:
            raise ValueError(
                'extraction is "advantage", but must be "posterior" or "ddpg_bc" where values is '
                '"explicit": there is no V(s, g) to compare with.'
            )
        if self.values == RETURNS and self.extraction in (POSTERIOR, DDPG_BC):
            raise ValueError(
                f'extraction is "{self.extraction}", but must be "advantage" or "imitation" where '
                'values is "returns": there is no Q(s, a, g) to climb.'
            )
        for name in ("conservative_weight", "rollout_weight"):
            if self.values == RETURNS and getattr(self, name) > 0:
                raise ValueError(
                    f'{name} is {getattr(self, name):g}, but must be 0 where values is "returns": '
                    "no value is of an action."
                )
        if kl_weight == 0 and (self.values == SOFT or self.extraction == ADVANTAGE):
            raise ValueError(
                f'kl_weight is 0, but must be positive with values "{self.values}" and extraction '
                f'"{self.extraction}": it is their temperature.'
            )
