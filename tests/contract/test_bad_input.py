"""Every kind of bad input to every rpc: the promised status, field and advice, no traceback, and life goes on.

A row is (rpc, request, status, field, part of the advice). A field of ``None`` is an error that blames no field. In a
request ``policies/MINE`` stands for a policy of the caller's.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass

import grpc
import grpc.aio
import numpy as np
import pytest
import pytest_asyncio
import structlog.testing
from contract_support import a_policy, adapting, array, call, dialled, keep, serving, task_servicer, teach, told
from google.protobuf.message import Message

from innerloop.v1 import adaptation_pb2, array_pb2, policy_pb2, task_pb2
from innerloop_server.service.policies import PolicyServicer
from innerloop_server.settings import Settings
from innerloop_server.store.store import Store
from innerloop_server.tasks.registry import Registry

INVALID = grpc.StatusCode.INVALID_ARGUMENT
MISSING = grpc.StatusCode.NOT_FOUND
UNMET = grpc.StatusCode.FAILED_PRECONDITION
TASKS = "innerloop.v1.TaskService"
POLICIES = "innerloop.v1.PolicyService"
SESSIONS = "innerloop.v1.AdaptationService"
ADAPT = f"{SESSIONS}/Adapt"


@dataclass(frozen=True)
class Case:
    rpc: str
    request: Message | bytes
    code: grpc.StatusCode
    field: str | None
    advice: str

    def __str__(self) -> str:
        return f"{self.rpc.rpartition('.')[2]}-{self.field or self.code.name}-{self.advice}"


def sample(**fields: object) -> task_pb2.SampleTasksRequest:
    good = {"family": "families/navigation-2d", "split": task_pb2.SPLIT_TEST, "count": 1}
    return task_pb2.SampleTasksRequest(**{**good, **fields})  # type: ignore[arg-type]


def pages(rpc: str, request: Callable[..., Message]) -> list[Case]:
    return [
        Case(rpc, request(page_size=-1), INVALID, "page_size", "give 0"),
        Case(rpc, request(page_token="?"), INVALID, "page_token", "next_page_token"),
        Case(rpc, request(page_token="A" * 5_000), INVALID, "page_token", "too long"),
    ]


def names(rpc: str, request: Callable[..., Message], field: str, form: str, plural: str = "policies") -> list[Case]:
    wrong = (
        "",
        "nonsense",
        f"{plural}/",
        f"{plural}/a/b",
        f"{plural}/../../etc",
        "evaluations/e1",
        "x" * 100_000,
        f"{plural}/é",
    )
    return [Case(rpc, request(**{field: name}), INVALID, field, form) for name in wrong]


TASK_CASES = [
    *pages(f"{TASKS}/ListFamilies", task_pb2.ListFamiliesRequest),
    Case(f"{TASKS}/GetFamily", task_pb2.GetFamilyRequest(), INVALID, "name", "write families/FAMILY"),
    Case(f"{TASKS}/GetFamily", task_pb2.GetFamilyRequest(name="navigation-2d"), INVALID, "name", "families/FAMILY"),
    Case(f"{TASKS}/GetFamily", task_pb2.GetFamilyRequest(name="families/none"), MISSING, None, "navigation-2d"),
    Case(f"{TASKS}/SampleTasks", sample(family=""), INVALID, "family", "is missing"),
    Case(f"{TASKS}/SampleTasks", sample(family="families/none"), INVALID, "family", "there are: "),
    Case(f"{TASKS}/SampleTasks", sample(split=0), INVALID, "split", "train, validation, test"),
    Case(f"{TASKS}/SampleTasks", sample(split=77), INVALID, "split", "77 is unknown"),
    Case(f"{TASKS}/SampleTasks", sample(count=0), INVALID, "count", "give 1 to 1000"),
    Case(f"{TASKS}/SampleTasks", sample(count=-5), INVALID, "count", "give 1 to 1000"),
    Case(f"{TASKS}/SampleTasks", sample(count=2**31 - 1), INVALID, "count", "give 1 to 1000"),
    Case(f"{TASKS}/SampleTasks", sample(count=2, start_index=2**64 - 1), INVALID, "start_index", "give 0 to"),
    Case(f"{TASKS}/SampleTasks", sample(generator="magic"), INVALID, "generator", "use one of uniform"),
    Case(
        f"{TASKS}/SampleTasks",
        sample(family="families/broken-family"),
        grpc.StatusCode.FAILED_PRECONDITION,
        None,
        "no module named nowhere",
    ),
    Case(
        f"{TASKS}/GetFamily",
        task_pb2.GetFamilyRequest(name="families/bernoulli-bandit.arms-1"),
        INVALID,
        "name",
        "options.arms: 1 is out of range",
    ),
    Case(f"{TASKS}/SampleTasks", sample(family="families/bernoulli-bandit.arms"), INVALID, "family", "is no option"),
    Case(
        f"{TASKS}/SampleTasks",
        sample(family="families/bernoulli-bandit.legs-2"),
        INVALID,
        "family",
        "options.legs: unknown; bernoulli-bandit has arms, pulls",
    ),
    Case(
        f"{TASKS}/GetTask",
        task_pb2.GetTaskRequest(name="families/bernoulli-bandit.arms-1/tasks/test-0-0"),
        INVALID,
        "name",
        "options.arms: 1 is out of range",
    ),
    *names(f"{TASKS}/DeleteFamily", task_pb2.DeleteFamilyRequest, "name", "write families/FAMILY", "families"),
    *names(f"{TASKS}/DefineFamily", task_pb2.DefineFamilyRequest, "name", "write families/FAMILY", "families"),
    Case(f"{TASKS}/DeleteFamily", task_pb2.DeleteFamilyRequest(name="families/none"), MISSING, None, "does not exist"),
    Case(f"{TASKS}/GetTask", task_pb2.GetTaskRequest(), INVALID, "name", "SPLIT-SEED-INDEX"),
    *(
        Case(f"{TASKS}/GetTask", task_pb2.GetTaskRequest(name=name), INVALID, "name", advice)
        for name, advice in (
            ("families/navigation-2d", "SPLIT-SEED-INDEX"),
            ("families/navigation-2d/tasks/test-0", "SPLIT-SEED-INDEX"),
            ("families/navigation-2d/tasks/dev-0-0", "train, validation, test"),
            ("families/navigation-2d/tasks/test-0--1", "SPLIT-SEED-INDEX"),
            (f"families/navigation-2d/tasks/test-0-{2**64}", "2^64"),
            (f"families/navigation-2d/tasks/test-{'9' * 5_000}-0", "too long"),
        )
    ),
    Case(f"{TASKS}/GetTask", task_pb2.GetTaskRequest(name="families/none/tasks/test-0-0"), MISSING, None, "there are"),
]


def act(policy: str = "policies/MINE", **fields: object) -> policy_pb2.ActRequest:
    seen = {"observations": array([[0.0, 1.0]]), **fields}
    return policy_pb2.ActRequest(policy=policy, input=policy_pb2.PolicyInput(**seen))  # type: ignore[arg-type]


def raw(dtype: int, shape: list[int], data: bytes) -> array_pb2.Array:
    return array_pb2.Array(dtype=dtype, shape=shape, data=data)  # type: ignore[arg-type]


OBSERVATIONS: list[tuple[array_pb2.Array, str, str]] = [
    (array_pb2.Array(), "input.observations", "is missing"),
    (raw(0, [1, 2], bytes(8)), "input.observations", "has no dtype"),
    (raw(99, [1, 2], bytes(8)), "input.observations.dtype", "99 is unknown"),
    (raw(1, [1, 2], bytes(7)), "input.observations", "takes 8 bytes, but 7 came"),
    (raw(1, [-1, 2], b""), "input.observations", "negative dimension"),
    (raw(1, [2**62, 2**62], b""), "input.observations", "bytes, but 0 came"),
    (raw(1, [0, 2**62, 2**62], b""), "input.observations", "fills the shape"),
    (raw(1, [1] * 100, bytes(4)), "input.observations", "fills the shape"),
    (array([0.0, 1.0]), "input.observations", "send [*, 2]"),
    (array([[0.0, 1.0, 2.0]]), "input.observations", "has shape [1, 3]; send [*, 2]"),
    (array(np.zeros((0, 2))), "input.observations", "send 1 to 4096"),
    (array(np.zeros((4_097, 2))), "input.observations", "send 1 to 4096"),
    (array([[0.0, np.nan]]), "input.observations", "not finite at [0, 1]"),
    (array([[0.0, -np.inf]]), "input.observations", "not finite"),
    (array([[0.0, 1e300]], np.float64), "input.observations", "not finite in float32"),
    (array([[True, False]], np.bool_), "input.observations", "is bool; send float32"),
]
EXTRAS: list[tuple[str, array_pb2.Array, str]] = [
    ("rewards", array([1.0, 2.0]), "send [1]"),
    ("rewards", array([np.nan]), "not finite"),
    ("terminated", array([1.0]), "send bool"),
    ("truncated", array([[True]], np.bool_), "send [1]"),
    ("trial_end", raw(8, [1], b"\x07"), "0 or 1"),
    ("previous_raw_actions", array([0], np.int64), "send [1, 1]"),
]

POLICY_CASES = [
    *pages(f"{POLICIES}/ListPolicies", policy_pb2.ListPoliciesRequest),
    *names(f"{POLICIES}/GetPolicy", policy_pb2.GetPolicyRequest, "name", "write policies/POLICY"),
    *names(f"{POLICIES}/DownloadPolicy", policy_pb2.DownloadPolicyRequest, "name", "write policies/POLICY"),
    *names(f"{POLICIES}/DeletePolicy", policy_pb2.DeletePolicyRequest, "name", "write policies/POLICY"),
    *names(f"{POLICIES}/Act", policy_pb2.ActRequest, "policy", "write policies/POLICY"),
    *names(f"{POLICIES}/ActStream", policy_pb2.ActStreamRequest, "policy", "write policies/POLICY"),
    *(
        Case(f"{POLICIES}/{rpc}", request, MISSING, None, "policies/none does not exist")
        for rpc, request in (
            ("GetPolicy", policy_pb2.GetPolicyRequest(name="policies/none")),
            ("DownloadPolicy", policy_pb2.DownloadPolicyRequest(name="policies/none")),
            ("DeletePolicy", policy_pb2.DeletePolicyRequest(name="policies/none")),
            ("Act", act("policies/none")),
            ("ActStream", policy_pb2.ActStreamRequest(policy="policies/none")),
        )
    ),
    *(
        Case(f"{POLICIES}/{rpc}", make(observations), INVALID, field, advice)
        for observations, field, advice in OBSERVATIONS
        for rpc, make in (
            ("Act", lambda o: act(observations=o)),
            ("ActStream", lambda o: policy_pb2.ActStreamRequest(policy="policies/MINE", input={"observations": o})),
        )
    ),
    *(Case(f"{POLICIES}/Act", act(**{name: a}), INVALID, f"input.{name}", advice) for name, a, advice in EXTRAS),
    Case(
        f"{POLICIES}/Act",
        policy_pb2.ActRequest(policy="policies/MINE", input=act().input, state={"h": array([0.0])}),
        INVALID,
        "state",
        "leave it empty",
    ),
]

NAVIGATION = "learners/navigation-2d-maml"


def opening(sequence: int = 1, **fields: object) -> adaptation_pb2.AdaptRequest:
    """A good ``open`` of a simulated session but for ``fields``; one that is None stays unset."""
    good = {
        "learner": NAVIGATION,
        "task": {"name": "families/navigation-2d/tasks/test-0-0"},
        "budget": {"steps": 1},
        **fields,
    }
    kept = {name: value for name, value in good.items() if value is not None}
    return adaptation_pb2.AdaptRequest(sequence=sequence, open=kept)  # type: ignore[arg-type]


def made_up(goal: array_pb2.Array, family: str = "families/navigation-2d") -> dict[str, object]:
    return {"family": family, "parameters": {"goal": goal}}


def resuming(session: str = "sessions/none", **fields: object) -> adaptation_pb2.AdaptRequest:
    return adaptation_pb2.AdaptRequest(resume={"session": session, **fields})  # type: ignore[arg-type]


def box(*shape: int) -> array_pb2.Space:
    n = int(np.prod(shape))
    return array_pb2.Space(box={"shape": shape, "low": [-1.0] * n, "high": [1.0] * n})


def owned(observation: array_pb2.Space | None, action: array_pb2.Space | None) -> adaptation_pb2.AdaptRequest:
    environment = adaptation_pb2.ClientEnvironment(observation_space=observation, action_space=action)
    return opening(task=None, client_environment=environment)


OPENINGS: list[tuple[adaptation_pb2.AdaptRequest, str, str]] = [
    (adaptation_pb2.AdaptRequest(), "message", "nothing came first; begin with open or resume"),
    (adaptation_pb2.AdaptRequest(sequence=1, advance={}), "message", "advance came first"),
    (adaptation_pb2.AdaptRequest(sequence=1, observe={}), "message", "observe came first"),
    (opening(0), "sequence", "it is message 1"),
    (opening(2), "sequence", "it is message 1"),
    (opening(task=None), "open.task", "client_environment to step yourself"),
    (opening(learner=""), "open.learner", "write learners/LEARNER"),
    (opening(learner="policies/p"), "open.learner", "learners/LEARNER/revisions/NUMBER"),
    (opening(learner=f"{NAVIGATION}/revisions/one"), "open.learner", "revisions/NUMBER"),
    (opening(task={}), "open.task", "give a name, or a family and parameters"),
    (opening(task={"name": "families/none/tasks/test-0-0"}), "open.task.name", "there are: "),
    (opening(task={"name": "families/navigation-2d/tasks/dev-0-0"}), "open.task.name", "train, validation, test"),
    (opening(task={"family": "families/none"}), "open.task.family", "there are: "),
    (opening(task={"name": "families/cartpole-dynamics/tasks/test-0-0"}), "open.task.family", "is not navigation-2d"),
    (opening(task={"family": "families/navigation-2d"}), "open.task.parameters.goal", "missing"),
    (opening(task=made_up(array([9.0, 0.0]))), "open.task.parameters.goal", "lies outside"),
    (opening(task=made_up(array([0.0]))), "open.task.parameters.goal", "has shape [1]"),
    (opening(task=made_up(array([0.0, np.nan]))), "open.task.parameters.goal", "not finite"),
    (opening(task=made_up(raw(1, [2], bytes(7)))), "open.task.parameters.goal", "takes 8 bytes, but 7 came"),
    (opening(task=made_up(array_pb2.Array())), "open.task.parameters.goal", "is missing"),
    (opening(budget=None), "open.budget", "set steps, episodes, compute_seconds or auto"),
    (opening(budget={"target_return": 0.0}), "open.budget", "set steps, episodes, compute_seconds or auto"),
    (opening(budget={"steps": 0}), "open.budget.steps", "is not in 1 to 10000"),
    (opening(budget={"steps": 2**62}), "open.budget.steps", "is not in 1 to 10000"),
    (opening(budget={"episodes": -1}), "open.budget.episodes", "is not in 1 to 1000000"),
    (opening(budget={"compute_seconds": np.inf}), "open.budget.compute_seconds", "positive number of seconds"),
    (opening(budget={"compute_seconds": np.nan}), "open.budget.compute_seconds", "positive number of seconds"),
    (opening(budget={"steps": 1, "target_return": np.nan}), "open.budget.target_return", "not finite"),
    (opening(seed=2**63), "open.seed", "2^63"),
    (opening(simulator=77), "open.simulator", "77 is unknown"),
    (opening(episodes_per_step=-1), "open.episodes_per_step", "is not in 0 to 1000"),
    (opening(episodes_per_step=2**31 - 1), "open.episodes_per_step", "is not in 0 to 1000"),
    (opening(lease={"nanos": 1}), "open.lease", "give 1 to 604800"),
    (opening(lease={"seconds": -5}), "open.lease", "give 1 to 604800"),
    (opening(lease={"seconds": 8 * 86_400}), "open.lease", "give 1 to 604800"),
    (opening(request_id="a b"), "open.request_id", "[a-zA-Z0-9._-]"),
    (opening(request_id="x" * 129), "open.request_id", "1 to 128"),
    (opening(client_version="new"), "open.client_version", "is no version"),
    (owned(None, None), "open.client_environment.observation_space", "is missing"),
    (owned(box(2), None), "open.client_environment.action_space", "is missing"),
    (owned(box(3), box(2)), "open.client_environment.observation_space", "use a learner whose spaces fit"),
    (owned(box(2), array_pb2.Space(discrete={"n": 2})), "open.client_environment.action_space", "whose spaces fit"),
    (owned(box(2), array_pb2.Space(discrete={"n": 0})), "open.client_environment.action_space.discrete.n", "give 1"),
    (resuming(last_step=-1), "resume.last_step", "give 0 or more"),
    (resuming(client_version="new"), "resume.client_version", "is no version"),
]

ADAPTATION_CASES = [
    *pages(f"{SESSIONS}/ListSessions", adaptation_pb2.ListSessionsRequest),
    *(
        case
        for rpc, request, field in (
            ("GetSession", adaptation_pb2.GetSessionRequest, "name"),
            ("CancelSession", adaptation_pb2.CancelSessionRequest, "name"),
            ("Adapt", lambda **session: resuming(session["resume.session"]), "resume.session"),
        )
        for case in names(f"{SESSIONS}/{rpc}", request, field, "write sessions/SESSION", "sessions")
    ),
    *(
        Case(f"{SESSIONS}/{rpc}", request, MISSING, None, "sessions/none does not exist")
        for rpc, request in (
            ("GetSession", adaptation_pb2.GetSessionRequest(name="sessions/none")),
            ("CancelSession", adaptation_pb2.CancelSessionRequest(name="sessions/none")),
            ("Adapt", resuming()),
        )
    ),
    *(Case(ADAPT, request, INVALID, field, advice) for request, field, advice in OPENINGS),
    Case(ADAPT, opening(learner="learners/none"), MISSING, None, "learners/none does not exist"),
    Case(ADAPT, opening(learner=f"{NAVIGATION}/revisions/9"), MISSING, None, f"{NAVIGATION}/revisions/9 does not"),
    Case(ADAPT, opening(learner="learners/untrained"), UNMET, None, "has no champion yet"),
    Case(ADAPT, opening(task={"family": "families/broken-family"}), UNMET, None, "no module named nowhere"),
    Case(ADAPT, opening(client_version="9.0.0"), UNMET, None, "speak different contracts"),
    Case(ADAPT, resuming(client_version="9.0.0"), UNMET, None, "speak different contracts"),
]

EVERY_RPC = sorted({case.rpc for case in [*TASK_CASES, *POLICY_CASES, *ADAPTATION_CASES]})
# Field 1 with a length that runs past the end of the message.
MALFORMED = [
    Case(rpc, b"\x0a\xff\xff\xff\x7f", INVALID, "request", "is not a message of this rpc") for rpc in EVERY_RPC
]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings(data_dir=tmp_path_factory.mktemp("data"), port=0)


@pytest.fixture(scope="module")
def store(settings: Settings) -> Iterator[Store]:
    with Store.open(settings.data_dir) as opened:
        yield opened


@pytest.fixture(scope="module")
def mine(store: Store) -> str:
    return f"policies/{keep(store, 'local', a_policy()).id}"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def channel(settings: Settings, store: Store, registry: Registry) -> AsyncIterator[grpc.aio.Channel]:
    """One server and one connection bear the whole table."""
    teach(store, registry, "navigation-2d", "navigation-2d-maml")
    teach(store, registry, "navigation-2d", "untrained", promoted=False)
    async with adapting(settings, store, registry) as sessions:
        servicers = [task_servicer(registry, store, settings), PolicyServicer(store, settings.limits), sessions]
        async with serving(settings, servicers) as server, dialled(server) as opened:
            yield opened


def addressed(request: Message | bytes, policy: str) -> bytes:
    """The request on the wire, ``policies/MINE`` replaced by ``policy`` (a name of any length)."""
    if isinstance(request, bytes):
        return request
    copy = type(request)()
    copy.CopyFrom(request)
    for field in ("name", "policy"):
        if getattr(copy, field, "") == "policies/MINE":
            setattr(copy, field, policy)
    return copy.SerializeToString()


@pytest.mark.parametrize("case", [*TASK_CASES, *POLICY_CASES, *ADAPTATION_CASES, *MALFORMED], ids=str)
@pytest.mark.asyncio(loop_scope="module")
async def test_bad_input(case: Case, channel: grpc.aio.Channel, mine: str, caplog: pytest.LogCaptureFixture) -> None:
    with structlog.testing.capture_logs() as events, caplog.at_level(logging.DEBUG, "grpc"):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(channel, case.rpc, addressed(case.request, mine))
        answer = told(caught.value)
        assert answer.code is case.code
        assert answer.field == (case.field or "")
        assert case.advice in (answer.advice if case.field else answer.message)
        assert answer.reason
        assert not any("exc_info" in event or "incident" in event for event in events)
        assert not [record for record in caplog.records if record.exc_info]
    assert await call(channel, f"{TASKS}/GetFamily", task_pb2.GetFamilyRequest(name="families/navigation-2d"))
    assert await call(channel, f"{POLICIES}/Act", addressed(act(), mine))


def test_every_rpc_has_rows() -> None:
    served = {
        f"{service.full_name}/{method.name}"
        for module, service_name in (
            (task_pb2, "TaskService"),
            (policy_pb2, "PolicyService"),
            (adaptation_pb2, "AdaptationService"),
        )
        for service in [module.DESCRIPTOR.services_by_name[service_name]]
        for method in service.methods
    }
    assert served == set(EVERY_RPC)
