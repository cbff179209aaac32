"""Families between messages and domain values."""

from __future__ import annotations

from collections.abc import Mapping

from innerloop.v1 import task_pb2
from innerloop_server.domain import Reference, ReturnUnit, Supervision
from innerloop_server.errors import InvalidField
from innerloop_server.evaluation.references.catalog import references
from innerloop_server.service.convert.enums import SIMULATORS
from innerloop_server.service.convert.names import FAMILY
from innerloop_server.service.convert.spaces import gymnasium_space_to_pb, parameter_space_from_pb, space_to_pb
from innerloop_server.service.convert.values import timestamp
from innerloop_server.tasks.definition import DefinedFamily, FamilyDefinition
from innerloop_server.tasks.family import Family
from innerloop_server.tasks.gymnasium_family import Apply
from innerloop_server.tasks.options import split_name

_SUPERVISIONS: Mapping[Supervision | None, task_pb2.Supervision.ValueType] = {
    None: task_pb2.SUPERVISION_UNSPECIFIED,
    Supervision.CLASSIFICATION: task_pb2.SUPERVISION_CLASSIFICATION,
    Supervision.REGRESSION: task_pb2.SUPERVISION_REGRESSION,
}
_UNITS: Mapping[ReturnUnit, task_pb2.ReturnUnit.ValueType] = {
    ReturnUnit.EPISODE: task_pb2.RETURN_UNIT_EPISODE,
    ReturnUnit.TRIAL: task_pb2.RETURN_UNIT_TRIAL,
}
_APPLY: Mapping[Apply, task_pb2.Apply.ValueType] = {
    Apply.ARGUMENTS: task_pb2.APPLY_ARGUMENTS,
    Apply.ATTRIBUTES: task_pb2.APPLY_ATTRIBUTES,
}
_MOST_PARAMETERS = 100
"""Named parameters of one definition: more are refused before their spaces are looked at."""


def family_to_pb(family: Family) -> task_pb2.Family:
    """A family that loaded, as a message.

    Raises:
        InvalidField: the contract has no word for one of its parameters' spaces.
    """
    missing = family.extra if family.extra is not None and family.extra.missing else None
    _, chosen = split_name(family.name)
    return task_pb2.Family(
        name=FAMILY.format(family.name),
        title=family.title,
        description=family.description,
        observation_space=space_to_pb(family.observation_space),
        action_space=space_to_pb(family.action_space),
        parameter_space={name: gymnasium_space_to_pb(part) for name, part in family.parameter_space.spaces.items()},
        horizon=family.horizon,
        episodes_per_trial=family.episodes_per_trial,
        discount=family.discount,
        simulators=[SIMULATORS[simulator] for simulator in family.simulators],
        references=[reference_to_pb(reference) for reference in references(family)],
        missing_extra=missing.name if missing else "",
        missing_extra_command=missing.hint if missing else "",
        options=[
            task_pb2.FamilyOption(name=name, value=chosen.get(name, str(default)), default_value=str(default))
            for name, default in family.options.items()
        ],
        splits_share_tasks=family.splits_share_tasks,
        supervision=_SUPERVISIONS[family.supervision],
        feedback_size=family.feedback_size,
        definition=_definition_to_pb(family.definition) if isinstance(family, DefinedFamily) else None,
    )


def broken_family_to_pb(name: str, reason: str) -> task_pb2.Family:
    """A family that was announced and cannot be used, as a message."""
    return task_pb2.Family(name=FAMILY.format(name), broken_reason=reason)


def reference_to_pb(reference: Reference) -> task_pb2.Reference:
    """A reference as a message."""
    return task_pb2.Reference(
        name=reference.name, value=reference.value, source=reference.source, unit=_UNITS[reference.unit]
    )


def definition_from_pb(message: task_pb2.DefineFamilyRequest, owner: str) -> FamilyDefinition:
    """What a client defines.

    Args:
        message: what came.
        owner: who sent it.

    Raises:
        InvalidField: a field that cannot be.
    """
    name = FAMILY.parse(message.name, "name")
    if len(message.parameters) > _MOST_PARAMETERS:
        raise InvalidField("parameters", f"are {len(message.parameters)}; give at most {_MOST_PARAMETERS}")
    ways = {number: apply for apply, number in _APPLY.items()}
    if message.apply not in ways:
        raise InvalidField("apply", "is missing or unknown; give arguments or attributes")
    return FamilyDefinition(
        name=name,
        env_id=message.env_id,
        parameters={
            key: parameter_space_from_pb(space, f"parameters.{key[:80]}")
            for key, space in sorted(message.parameters.items())
        },
        apply=ways[message.apply],
        horizon=message.horizon,
        episodes_per_trial=message.episodes_per_trial or 1,
        owner=owner,
    )


def _definition_to_pb(definition: FamilyDefinition) -> task_pb2.FamilyDefinition:
    return task_pb2.FamilyDefinition(
        env_id=definition.env_id,
        apply=_APPLY[definition.apply],
        owner=definition.owner,
        create_time=timestamp(definition.created_at),
    )
