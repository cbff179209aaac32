"""What the fake server knows: two learners, their families and a policy of the right shape for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from innerloop._core.codec import array_to_pb, space_to_pb
from innerloop.arrays import Box, Discrete, Space
from innerloop.policy import Header, Policy, weight_shapes
from innerloop.v1 import learner_pb2, policy_pb2, task_pb2

SPEAKS = "0.1.0"
SUPERVISED = "families/digits"
FAMILIES: Mapping[str, tuple[Space, Space]] = {
    "families/cartpole-dynamics": (Box.of(-np.inf, np.inf, (4,)), Discrete(2)),
    SUPERVISED: (Box.of(-np.inf, np.inf, (4,)), Discrete(2)),
    "families/navigation-2d": (Box.of(-np.inf, np.inf, (2,)), Box.of(-0.1, 0.1, (2,))),
}
OWNERS: dict[str, str] = {}
"""Of learners that the server did not come with."""
LEARNERS = {f"learners/{name.removeprefix('families/')}-maml": name for name in FAMILIES}


class Refusal(Exception):
    """Becomes a gRPC status with details."""

    def __init__(
        self,
        code: str,
        reason: str,
        message: str,
        *,
        facts: Mapping[str, str] | None = None,
        violations: Sequence[tuple[str, str]] = (),
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.facts = facts or {}
        self.violations = violations
        self.retry_after = retry_after


def family_message(name: str) -> task_pb2.Family:
    if name not in FAMILIES:
        raise Refusal(
            "NOT_FOUND", "NOT_FOUND", f"{name} does not exist; there are {', '.join(FAMILIES)}", facts={"name": name}
        )
    sees, does = FAMILIES[name]
    return task_pb2.Family(
        name=name,
        title=f"The {name.removeprefix('families/')} family",
        observation_space=space_to_pb(sees),
        action_space=space_to_pb(does),
        parameter_space={"goal": space_to_pb(Box.of(-0.5, 0.5, (2,)))},
        horizon=100,
        episodes_per_trial=1,
        discount=0.99,
        simulators=[task_pb2.SIMULATOR_BATCH, task_pb2.SIMULATOR_ACTORS],
        references=[task_pb2.Reference(name="oracle", value=-0.5, source="a formula")],
        supervision=task_pb2.SUPERVISION_CLASSIFICATION if name == SUPERVISED else task_pb2.SUPERVISION_UNSPECIFIED,
    )


def learner_message(name: str) -> learner_pb2.Learner:
    if name not in LEARNERS:
        raise Refusal(
            "NOT_FOUND", "NOT_FOUND", f"{name} does not exist; there are {', '.join(LEARNERS)}", facts={"name": name}
        )
    sees, does = FAMILIES[LEARNERS[name]]
    return learner_pb2.Learner(
        name=name,
        method="maml",
        family=LEARNERS[name],
        observation_space=space_to_pb(sees),
        action_space=space_to_pb(does),
        inner_steps=2,
        episodes_per_step=4,
        champion=f"{name}/revisions/1",
        revisions=2,
        owner=OWNERS.get(name, ""),
    )


def sampled_task(family: str, split: task_pb2.Split, seed: int, index: int) -> task_pb2.Task:
    word = task_pb2.Split.Name(split).removeprefix("SPLIT_").lower()
    return task_pb2.Task(
        name=f"{family}/tasks/{word}-{seed}-{index}",
        family=family,
        parameters={"goal": array_to_pb(np.array([0.1 * index, -0.2]))},
        split=split,
        seed=seed,
        index=index,
    )


def task_message(asked: task_pb2.Task) -> task_pb2.Task:
    """A name alone is enough."""
    if not asked.name:
        return asked
    family, _, place = asked.name.partition("/tasks/")
    word, seed, index = place.split("-")
    return sampled_task(family, task_pb2.Split.Value(f"SPLIT_{word.upper()}"), int(seed), int(index))


def policy(learner: str, steps: int) -> Policy:
    sees, does = FAMILIES[LEARNERS[learner]]
    width = () if isinstance(does, Discrete) else (0.0,) * 2
    header = Header(
        observation_space=sees,
        action_space=does,
        hidden_sizes=(3,),
        observation_shift=(0.0,) * sees.shape[0],
        observation_scale=(1.0,) * sees.shape[0],
        action_shift=width,
        action_scale=tuple(1.0 for _ in width),
        learner=learner,
        steps=steps,
    )
    rng = np.random.default_rng(steps)
    return Policy(
        header, {n: rng.standard_normal(s).astype(np.float32) * 0.1 for n, s in weight_shapes(header).items()}
    )


def policy_bytes(learner: str, steps: int) -> bytes:
    return policy(learner, steps).to_bytes()


def policy_message(name: str, learner: str, steps: int) -> policy_pb2.Policy:
    sees, does = FAMILIES[LEARNERS[learner]]
    return policy_pb2.Policy(
        name=name,
        family=LEARNERS[learner],
        revision=f"{learner}/revisions/1",
        steps=steps,
        size_bytes=len(policy_bytes(learner, steps)),
        observation_space=space_to_pb(sees),
        action_space=space_to_pb(does),
    )
