"""Domain values as JSON values and back, exactly: ``x_from_json(x_to_json(x)) == x``, also after a trip through text.

Arrays are dtype, shape and base64 of their little-endian bytes, so NaN, infinity and -0.0 survive databases whose
JSON has none of them.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

from innerloop.arrays import Array, decode, encode, space_from_json, space_to_json
from innerloop_server.domain import Budget, Features, LearnerSpec, Reference, ReturnUnit, Split, Supervision, Task

Json = dict[str, Any]


def array_to_json(array: Array) -> Json:
    """An array of a dtype in ``innerloop.arrays.DTYPES``.

    Raises:
        ArrayError: another dtype.
    """
    dtype, shape, data = encode(array)
    return {"dtype": dtype, "shape": list(shape), "data": base64.b64encode(data).decode("ascii")}


def array_from_json(value: Mapping[str, Any]) -> Array:
    """Undo :func:`array_to_json`; the array is read-only."""
    return decode(value["dtype"], value["shape"], base64.b64decode(value["data"]))


def task_to_json(task: Task) -> Json:
    """A task with its hidden parameters."""
    return {
        "family": task.family,
        "parameters": {name: array_to_json(value) for name, value in task.parameters.items()},
        "split": task.split,
        "seed": task.seed,
        "index": task.index,
    }


def task_from_json(value: Mapping[str, Any]) -> Task:
    """Undo :func:`task_to_json`."""
    return Task(
        family=value["family"],
        parameters={name: array_from_json(part) for name, part in value["parameters"].items()},
        split=None if value["split"] is None else Split(value["split"]),
        seed=value["seed"],
        index=value["index"],
    )


def budget_to_json(budget: Budget) -> Json:
    """A budget; ``None`` stays null."""
    return {
        "steps": budget.steps,
        "episodes": budget.episodes,
        "seconds": budget.seconds,
        "target_return": budget.target_return,
        "auto": budget.auto,
    }


def budget_from_json(value: Mapping[str, Any]) -> Budget:
    """Undo :func:`budget_to_json`."""
    return Budget(**value)


def spec_to_json(spec: LearnerSpec) -> Json:
    """A learner's spec. Its settings must hold JSON values; tuples among them become lists."""
    return {
        "name": spec.name,
        "method": spec.method,
        "family": spec.family,
        "observation_space": space_to_json(spec.observation_space),
        "action_space": space_to_json(spec.action_space),
        "observation_shift": list(spec.observation_shift),
        "observation_scale": list(spec.observation_scale),
        "action_shift": list(spec.action_shift),
        "action_scale": list(spec.action_scale),
        "horizon": spec.horizon,
        "baseline": {"kind": spec.baseline.kind, "degree": spec.baseline.degree},
        "settings": json.loads(json.dumps(dict(spec.settings), allow_nan=False)),
        "supervision": spec.supervision,
    }


def spec_from_json(value: Mapping[str, Any]) -> LearnerSpec:
    """Undo :func:`spec_to_json`."""
    supervision = value.get("supervision")  # absent in what was written before there was any
    return LearnerSpec(
        name=value["name"],
        method=value["method"],
        family=value["family"],
        observation_space=space_from_json(value["observation_space"]),
        action_space=space_from_json(value["action_space"]),
        observation_shift=tuple(value["observation_shift"]),
        observation_scale=tuple(value["observation_scale"]),
        action_shift=tuple(value["action_shift"]),
        action_scale=tuple(value["action_scale"]),
        horizon=value["horizon"],
        baseline=Features(**value["baseline"]),
        settings=value["settings"],
        supervision=Supervision(supervision) if supervision else None,
    )


def reference_to_json(reference: Reference) -> Json:
    """A reference number and its source."""
    return {"name": reference.name, "value": reference.value, "source": reference.source, "unit": reference.unit}


def reference_from_json(value: Mapping[str, Any]) -> Reference:
    """Undo :func:`reference_to_json`."""
    unit = ReturnUnit(value.get("unit", ReturnUnit.EPISODE))  # absent in what was written before there was any
    return Reference(value["name"], value["value"], value["source"], unit)
