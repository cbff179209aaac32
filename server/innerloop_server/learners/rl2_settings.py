"""Settings of RL2: what each means, what it may be, and its default, in one place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from innerloop.arrays import Discrete
from innerloop_server.domain import LearnerSpec
from innerloop_server.errors import InvalidField
from innerloop_server.learners import trial_ppo_settings
from innerloop_server.learners.setting_checks import WIDEST_LAYER, read, require, require_start, require_widths
from innerloop_server.learners.trial_ppo_settings import TrialPpoSettings, check_told

MEMORIES = ("gru", "transformer")
MOST_BLOCKS = 8
MOST_HEADS = 64
LARGEST_REWARD = 1e6
"""That a tally may start from."""
WIDEST_SPAN = 1_024
MOST_KEPT = 2**19
"""Numbers that a transformer keeps for a row: sessions write them to disk with every step, and clients send them."""
OUTER = trial_ppo_settings.OUTER
"""Settings that only training reads: another training of the same learner may change these and no others."""


@dataclass(frozen=True)
class Rl2Settings(TrialPpoSettings):
    """The network of RL2 and how it is trained. ``LearnerSpec.settings`` holds these as JSON values."""

    # The network.
    encoder_sizes: tuple[int, ...] = (64,)
    """Widths of the tanh layers in front of the memory."""
    memory: str = "gru"
    """``gru``: one vector that every step changes. ``transformer``: every step is kept, and attended to."""
    memory_size: int = 64
    """Width of the memory."""
    memory_layers: int = 2
    """Blocks of the transformer."""
    memory_heads: int = 4
    """Heads of each block; they share ``memory_size``, an even width each."""
    memory_span: int = 0
    """Steps that the transformer looks back on, its present one included; 0: a whole trial, or ``WIDEST_SPAN`` steps of
    a longer one. A row keeps ``2 * memory_layers * memory_size`` numbers of each."""
    hidden_sizes: tuple[int, ...] = (64,)
    """Widths of the hidden tanh layers behind the memory, of the policy and of the value."""
    last_layer_scale: float = 0.01
    """Shrinks the policy's last layer at the start, so that it starts out indifferent."""
    initial_log_std: float = -0.5
    """Log standard deviation of raw actions at the start (Box actions)."""
    transitions: bool = False
    """The network also reads the observation before: where it did what it did. Without it whoever is to learn what an
    action is worth in which state has to remember that, for one step."""
    tallies: bool = False
    """The policy counts what each action brought in each state, and reads the posterior mean reward of each action in
    the present one and ``1 / sqrt(count + 1)``. For Discrete observations and actions."""
    tally_mean: float = 0.0
    """What a reward is thought to be before the first."""
    tally_strength: float = 1.0
    """How many rewards that is worth."""

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            InvalidField: a value out of its range; names ``settings.<field>``.
        """
        super().__post_init__()
        require_widths(self, "encoder_sizes", "hidden_sizes")
        require_start(self)
        require(self.memory in MEMORIES, "memory", f"give one of {', '.join(MEMORIES)}")
        require(1 <= self.memory_size <= WIDEST_LAYER, "memory_size", f"give an integer from 1 to {WIDEST_LAYER}")
        require(1 <= self.memory_layers <= MOST_BLOCKS, "memory_layers", f"give an integer from 1 to {MOST_BLOCKS}")
        require(1 <= self.memory_heads <= MOST_HEADS, "memory_heads", f"give an integer from 1 to {MOST_HEADS}")
        require(0 <= self.memory_span <= WIDEST_SPAN, "memory_span", f"give an integer from 0 to {WIDEST_SPAN}")
        shared = self.memory == "gru" or self.memory_size % (2 * self.memory_heads) == 0
        require(shared, "memory_heads", "memory_size must be a multiple of twice memory_heads")
        require(self.tally_strength > 0, "tally_strength", "give a positive number")
        fits = abs(self.tally_mean) <= LARGEST_REWARD
        require(fits, "tally_mean", f"give a number from {-LARGEST_REWARD:.0f} to {LARGEST_REWARD:.0f}")

    @staticmethod
    def from_json(values: Mapping[str, Any]) -> Rl2Settings:
        """Read settings; those left out take their defaults.

        Raises:
            InvalidField: unknown, of a wrong type, or out of its range; names ``settings.<field>``.
        """
        return read(Rl2Settings, "rl2", values)


def span_of(settings: Rl2Settings, horizon: int) -> int:
    """Steps that a transformer looks back on, where an episode has at most ``horizon``."""
    return settings.memory_span or min(WIDEST_SPAN, horizon * settings.episodes_per_trial)


def check_fits(spec: LearnerSpec) -> None:
    """Check what depends on the family.

    Raises:
        InvalidField: a supervised family: ``method``; tallies where states or actions are not Discrete:
            ``settings.tallies``; tasks to be told that take no numbers: ``settings.told``; or a transformer that keeps
            too much: ``settings.memory_span``.
    """
    if spec.supervision is not None:
        raise InvalidField("method", f"rl2 learns from rewards, and {spec.family} gives the right answers; use maml")
    if spec.settings.get("tallies") is True:
        discrete = all(isinstance(space, Discrete) for space in (spec.observation_space, spec.action_space))
        require(discrete, "tallies", f"{spec.family} has no Discrete observations and actions to count by")
    settings = Rl2Settings.from_json(spec.settings)
    check_told(settings, spec.family)
    if settings.memory == "transformer":
        each = 2 * settings.memory_layers * settings.memory_size
        kept = each * span_of(settings, spec.horizon)
        require(kept <= MOST_KEPT, "memory_span", f"a row would keep {kept} numbers; give at most {MOST_KEPT // each}")
