"""What a policy file says of itself, beside its weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from innerloop.arrays import Discrete, Space, space_from_json, space_to_json

FORMAT = "innerloop-policy/1"
ARCHITECTURES = ("mlp", "gru", "belief", "transformer")


class PolicyFormatError(ValueError):
    """A file that is not a policy of a format this version reads."""


@dataclass(frozen=True)
class Header:
    """All that is needed, beside the weights, to run a policy."""

    observation_space: Space
    action_space: Space
    hidden_sizes: tuple[int, ...]
    """Widths of the hidden tanh layers."""
    observation_shift: tuple[float, ...]
    """The network sees ``(observation - shift) / scale``, elementwise over the flattened observation."""
    observation_scale: tuple[float, ...]
    action_shift: tuple[float, ...] = ()
    """A Box action is ``clip(shift + scale * raw, low, high)``; empty for Discrete."""
    action_scale: tuple[float, ...] = ()
    architecture: str = "mlp"
    """``mlp``: hidden layers on the observation, no memory. ``gru``: a gated recurrent unit in front of them.
    ``belief``: a belief, read from the memory of such a unit, in place of the memory. ``transformer``: one
    that attends to the steps of the trial, in place of the unit."""
    adapts: bool = False
    """False: the policy is frozen; one with a memory comes back to where it started when an episode ends. True: it goes
    on adapting as it runs, from episode to episode, until its trial ends."""
    family: str = ""
    learner: str = ""
    revision: str = ""
    """Resource name of the revision that the policy adapted from."""
    steps: int = 0
    """Adaptation steps behind this policy."""
    hash: str = ""
    """SHA-256 over the weights (see :func:`weights_hash`); filled in when the policy is written."""
    extra: Mapping[str, str] = field(default_factory=dict)
    """Free text for people: task, score. Never needed to run."""
    encoder_sizes: tuple[int, ...] = ()
    """Of all that remember: widths of the tanh layers in front of the memory."""
    memory_size: int = 0
    """Of all that remember: width of the memory."""
    latent_size: int = 0
    """Of ``belief``: dimensions of what is believed."""
    memory_layers: int = 0
    """Of ``transformer``: its blocks."""
    memory_heads: int = 0
    """Of ``transformer``: heads of a block, which share ``memory_size`` among them."""
    memory_span: int = 0
    """Of ``transformer``: steps that it looks back on, the present one included."""
    tallies: bool = False
    """Of ``gru`` and ``transformer``: it counts what each action brought in each state (see ``tallies``)."""
    tally_mean: float = 0.0
    """What a reward is thought to be before the first."""
    tally_strength: float = 1.0
    """How many rewards that is worth."""
    transitions: bool = False
    """Of ``gru`` and ``transformer``: it reads where its last action was taken, too."""

    @property
    def remembers(self) -> bool:
        """It keeps a memory from step to step."""
        return self.architecture != "mlp"

    @property
    def distribution(self) -> str:
        """``categorical`` (raw action: an integer) or ``gaussian`` (raw action: floats before clip and scale)."""
        return "categorical" if isinstance(self.action_space, Discrete) else "gaussian"

    @property
    def action_size(self) -> int:
        """Width of the network's output: actions to choose from, or dimensions of the mean."""
        return self.action_space.n if isinstance(self.action_space, Discrete) else self.action_space.size

    @property
    def observation_size(self) -> int:
        """Width of the network's input."""
        return self.observation_space.n if isinstance(self.observation_space, Discrete) else self.observation_space.size

    def to_json(self) -> str:
        """The header as JSON, keys sorted."""
        value = {
            "format": FORMAT,
            "observation_space": space_to_json(self.observation_space),
            "action_space": space_to_json(self.action_space),
            "hidden_sizes": list(self.hidden_sizes),
            "observation_shift": list(self.observation_shift),
            "observation_scale": list(self.observation_scale),
            "action_shift": list(self.action_shift),
            "action_scale": list(self.action_scale),
            "architecture": self.architecture,
            "adapts": self.adapts,
            "family": self.family,
            "learner": self.learner,
            "revision": self.revision,
            "steps": self.steps,
            "hash": self.hash,
            "extra": dict(self.extra),
        }
        if self.remembers:
            value |= {"encoder_sizes": list(self.encoder_sizes), "memory_size": self.memory_size}
        if self.architecture == "belief":
            value["latent_size"] = self.latent_size
        if self.architecture == "transformer":
            value |= {name: getattr(self, name) for name in ("memory_layers", "memory_heads", "memory_span")}
        if self.tallies:
            value |= {name: getattr(self, name) for name in ("tallies", "tally_mean", "tally_strength")}
        if self.transitions:
            value["transitions"] = True
        return json.dumps(value, sort_keys=True)

    @staticmethod
    def from_json(text: str) -> Header:
        """Read a header.

        Raises:
            PolicyFormatError: not JSON, another format or architecture, or a field missing.
        """
        try:
            value = json.loads(text)
            if value.get("format") != FORMAT:
                raise PolicyFormatError(f"policy format {value.get('format')!r} is not {FORMAT}; update innerloop")
            if value["architecture"] not in ARCHITECTURES:
                raise PolicyFormatError(f"policy architecture {value['architecture']!r} is unknown; update innerloop")
            return Header(
                observation_space=space_from_json(value["observation_space"]),
                action_space=space_from_json(value["action_space"]),
                hidden_sizes=tuple(int(n) for n in value["hidden_sizes"]),
                observation_shift=tuple(float(x) for x in value["observation_shift"]),
                observation_scale=tuple(float(x) for x in value["observation_scale"]),
                action_shift=tuple(float(x) for x in value["action_shift"]),
                action_scale=tuple(float(x) for x in value["action_scale"]),
                architecture=str(value["architecture"]),
                adapts=bool(value["adapts"]),
                family=str(value["family"]),
                learner=str(value["learner"]),
                revision=str(value["revision"]),
                steps=int(value["steps"]),
                hash=str(value["hash"]),
                extra={str(k): str(v) for k, v in value.get("extra", {}).items()},
                encoder_sizes=tuple(int(n) for n in value.get("encoder_sizes", ())),
                memory_size=int(value.get("memory_size", 0)),
                latent_size=int(value.get("latent_size", 0)),
                memory_layers=int(value.get("memory_layers", 0)),
                memory_heads=int(value.get("memory_heads", 0)),
                memory_span=int(value.get("memory_span", 0)),
                tallies=bool(value.get("tallies", False)),
                tally_mean=float(value.get("tally_mean", 0.0)),
                tally_strength=float(value.get("tally_strength", 1.0)),
                transitions=bool(value.get("transitions", False)),
            )
        except PolicyFormatError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise PolicyFormatError(f"the policy header is damaged: {error!r}") from error
