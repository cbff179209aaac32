"""From what a caller asks for to what a run is: defaults filled in, every value checked. Pure, and without torch."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from innerloop_server.domain import LearnerSpec, Simulator
from innerloop_server.errors import InvalidField, PreconditionFailed
from innerloop_server.learners import registry as methods
from innerloop_server.tasks.family import Family
from innerloop_server.tasks.sampling import parameter_bytes
from innerloop_server.tasks.visible import shown_name
from innerloop_server.training import generators, task_numbers
from innerloop_server.training.run import RunSettings, Schedule
from innerloop_server.training.specs import learner_id, spec_for

LARGEST_UPDATE = 50_000_000
"""Environment steps of one meta-update at most: its episodes are held in memory together."""
LARGEST_TASKS = 2**28
"""Bytes of the parameters of one meta-update's tasks at most."""
MOST_UPDATES = 1_000_000

_SCHEDULE = {part.name: part.default for part in fields(Schedule)}


@dataclass(frozen=True)
class TrainingRequest:
    """What a caller asks for."""

    family: str
    method: str = "maml"
    learner: str = ""
    """Id; empty: ``specs.learner_id``."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """JSON values over the learner's settings, or over the method's configuration for the family; and any of
    :class:`~innerloop_server.training.run.Schedule`."""
    seed: int = 0
    updates: int = 0
    """0: as the settings say."""
    simulator: Simulator | None = None
    """``None``: the family's first."""
    generator: str = ""
    """What proposes the tasks, as ``generators`` names it; empty: uniform."""
    continue_from: tuple[str, int] | None = None
    """(learner id, number) of the revision to start from; ``None``: fresh meta-parameters."""
    request_id: str = ""
    """The caller's own: asking again with the same one gives the training that exists. Empty: always a new one."""

    @property
    def bound_to(self) -> str:
        """Name of the family that the learner is bound to.

        Raises:
            InvalidField: the method is unknown (``method``).
        """
        return shown_name(self.family) if methods.get(self.method).told else self.family

    @property
    def learner_id(self) -> str:
        """The learner's id, default filled in."""
        return self.learner or learner_id(self.family, self.method)


def plan(request: TrainingRequest, family: Family, *bases: LearnerSpec) -> RunSettings:
    """The run that a request comes to.

    Args:
        request: what is asked for.
        family: the one that its learner is ``bound_to``.
        bases: the learner where it exists, and the one that is continued from. The settings of the first are the
            defaults, and only those that sessions never read may differ from any.

    Raises:
        InvalidField: a setting that is unknown, or cannot be (on this family), or would make another learner of a base;
            a simulator that the family lacks; a generator that there is not, or not for this family; too many updates.
        PreconditionFailed: a base is of another family or method.
    """
    method = methods.get(request.method)
    for base in bases:
        if (base.family, base.method) != (family.name, request.method):
            raise PreconditionFailed(
                f"learner {base.name} is {base.method} for {base.family}, not {request.method} for {request.family}; "
                "choose another name",
                reason="LEARNER_DIFFERS",
                facts={"learner": base.name},
            )
    known = {**method.settings({}).to_json(), **_SCHEDULE}
    for name in request.settings:
        if name not in known:
            raise InvalidField(f"settings.{name}", f"unknown; there are {', '.join(known)}")
    given = {name: value for name, value in request.settings.items() if name not in _SCHEDULE}
    if request.updates:
        given["updates"] = request.updates
    start = bases[0] if bases else spec_for(family, request.method)
    settings = method.settings({**start.settings, **given})
    _check_size(settings, family)
    spec = replace(start, name=request.learner_id, settings=settings.to_json())
    methods.get(request.method).check_fits(spec)
    for base in bases:
        _check_same_adaptation(spec, base)
    schedule = _schedule(request.settings)
    simulator = _simulator(request.simulator, family, request.method)
    generator = request.generator or generators.UNIFORM
    generators.build(generator, family, request.seed)  # says what is wrong with it
    check_attempts(spec, generator, continued=request.continue_from is not None)
    _check_told(spec, family)
    run = RunSettings(spec, request.seed, simulator, generator, schedule)
    if request.continue_from is not None:
        learner, number = request.continue_from
        run = replace(run, continue_from=f"learners/{learner}/revisions/{number}")
    return replace(run, command=command(run, family))


def differing_settings(spec: LearnerSpec, other: LearnerSpec) -> list[str]:
    """Names of settings by which two learners of one method would adapt differently, defaults filled in."""
    outer = methods.get(spec.method).outer
    mine, theirs = (methods.settings_of(s).to_json() for s in (spec, other))
    return [name for name in mine if name not in outer and mine[name] != theirs[name]]


def command(run: RunSettings, family: Family) -> str:
    """What to type to compute a run's weights again, without a server."""
    defaults = methods.settings_of(spec_for(family, run.spec.method)).to_json()
    words = ["scripts/train", run.spec.family, "--method", run.spec.method, "--seed", str(run.seed)]
    words += ["--updates", str(run.updates), "--simulator", run.simulator.value, "--learner", run.spec.name]
    if run.generator != generators.UNIFORM:
        words += ["--generator", run.generator]
    if run.continue_from:
        words += ["--from", run.continue_from]
    for name, value in run.spec.settings.items():
        if name != "updates" and value != defaults[name]:
            words += ["--set", f"{name}={json.dumps(value)}"]
    return shlex.join([*words, "--out", f"var/train/{run.spec.name}"])


def _check_same_adaptation(spec: LearnerSpec, base: LearnerSpec) -> None:
    for name in differing_settings(spec, base):
        was = json.dumps(base.settings.get(name))
        raise InvalidField(
            f"settings.{name}",
            f"is {was} for learner {base.name}, and what was learned rests on it; train a new learner",
        )


def check_attempts(spec: LearnerSpec, generator: str, *, continued: bool) -> None:
    """Check that attempts, where there are to be several, can start from fresh weights and be compared.

    Args:
        spec: of the learner.
        generator: of the tasks.
        continued: the training starts from weights that there are.

    Raises:
        InvalidField: they cannot; names ``settings.attempts``.
    """
    if spec.settings.get("attempts", 1) == 1:
        return
    if continued:
        raise InvalidField("settings.attempts", "attempts start from fresh weights; give 1 to continue from a revision")
    if generator == generators.PAIRED:
        raise InvalidField("settings.attempts", "paired trains one learner against another; give 1")


def _check_told(spec: LearnerSpec, family: Family) -> None:
    if not spec.settings.get("told"):
        return
    told, size = spec.settings["task_size"], task_numbers.size(family)
    if told != size:
        raise InvalidField(
            "settings.task_size", f"is {told}; a task of {family.name} takes {size} numbers to tell: leave it out"
        )


def _check_size(settings: methods.MethodSettings, family: Family) -> None:
    if settings.updates > MOST_UPDATES:
        raise InvalidField("updates", f"{settings.updates} is too many; give at most {MOST_UPDATES}")
    episodes = settings.tasks_per_update * settings.episodes_per_step * (settings.inner_steps + 1)
    if episodes * family.horizon > LARGEST_UPDATE:
        raise InvalidField(
            "settings.tasks_per_update",
            f"an update of {episodes} episodes of {family.horizon} steps is too large; with episodes_per_step and "
            f"inner_steps it may come to {LARGEST_UPDATE} environment steps",
        )
    if (each := parameter_bytes(family)) * settings.tasks_per_update > LARGEST_TASKS:
        raise InvalidField(
            "settings.tasks_per_update",
            f"is {settings.tasks_per_update}; the parameters of a task of {family.name} take {each} bytes, so give at "
            f"most {LARGEST_TASKS // each}",
        )


def _schedule(settings: Mapping[str, Any]) -> Schedule:
    given = {name: settings.get(name, default) for name, default in _SCHEDULE.items()}
    for name, low in (("checkpoint_every", 1), ("revision_every", 0)):
        if type(given[name]) is not int or given[name] < low:
            raise InvalidField(f"settings.{name}", f"give an integer of at least {low}")
    return Schedule(**given)


def _simulator(wanted: Simulator | None, family: Family, method: str) -> Simulator:
    simulator = wanted or family.simulators[0]
    if simulator not in family.simulators:
        can = ", ".join(family.simulators)
        raise InvalidField("simulator", f"family {family.name} runs on {can}", reason="SIMULATOR_UNSUPPORTED")
    if simulator not in methods.get(method).simulators:
        can = ", ".join(methods.get(method).simulators)
        raise InvalidField("simulator", f"{method} is trained on {can}", reason="SIMULATOR_UNSUPPORTED")
    return simulator
