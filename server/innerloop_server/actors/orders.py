"""What the owner of a pool says and hears: an order for episodes, and its one answer."""

from __future__ import annotations

from dataclasses import dataclass, field

from innerloop.arrays import Array, Arrays
from innerloop.policy import Header
from innerloop_server.domain import Experience, Supervision


@dataclass(frozen=True)
class EpisodesOrder:
    """Run whole episodes of one task with one policy.

    Row ``i`` starts from ``derive(seed, RESET, step, phase, i)`` and acts on the noise of
    ``stream(seed, ACTION, step, phase, i)`` (``EVALUATION_*`` where ``evaluation``), so the answer depends on
    nothing but the order: not on the number of actors, nor on what else they run, nor on who died meanwhile.
    """

    key: int
    """The owner's name for the order; unique among those not yet answered."""
    family: str
    parameters: Arrays
    """Of one task: name -> value."""
    header: Header
    weights: Arrays
    """One set, as ``innerloop.policy.forward`` takes it."""
    episodes: int
    """N >= 1."""
    horizon: int
    """T >= 1: capacity of the answer; an episode that gets this far is cut there, without bootstrap."""
    seed: int
    step: int
    """Adaptation step whose episodes these are."""
    phase: int
    """Tells apart orders of one step (before and after the update, the guard's second try)."""
    evaluation: bool = False
    """Draw from the evaluation's streams, which adaptation never touches."""
    greedy: bool = False
    """Take the mode instead of a sample. Predictions of a supervised family always are."""
    supervision: Supervision | None = None
    """The family's: what its answers are, which come with the one step of an episode; ``None``: it has none."""
    query: bool = False
    """Of a supervised family: examples to be tested on, which no support holds."""
    memory: Arrays = field(default_factory=dict)
    """Of a policy that remembers: what every row starts from, [...] each, as ``innerloop.policy.begin`` lays it out."""


@dataclass(frozen=True)
class EpisodesResult:
    """The episodes that were ordered, rows in order."""

    key: int
    experience: Experience[Array]
    """[1, N, T, ...]. Observations are float32, or int64 where the space is Discrete."""
    returns: Array
    """[N] float64, undiscounted."""
    seconds: float
    """From the first row handed to an actor to the last one back: queueing is not in it."""
    env_steps: int
    """Sum of the lengths."""
    memory: Arrays = field(default_factory=dict)
    """Of a policy that remembers: [N, ...] each, what every row ended with: how its episode ended included."""


@dataclass(frozen=True)
class EpisodesFailure:
    """Why there are no episodes."""

    key: int
    message: str
    """For a person: names the family and what went wrong."""
    retryable: bool
    """True: processes died or are closing; the same order may succeed. False: it fails again."""


Answer = EpisodesResult | EpisodesFailure
