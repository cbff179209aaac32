"""PolicyService: weights in chunks, and acting here as the file acts there."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest
from contract_support import a_policy, array, dialled, keep, serving

from innerloop._core.policies import input_to_pb
from innerloop.arrays import Box, Discrete
from innerloop.policy import Header, Input, Policy, weight_shapes
from innerloop.v1 import policy_pb2, policy_pb2_grpc
from innerloop_server.service.convert.arrays import array_from_pb, array_to_pb
from innerloop_server.service.policy_cache import PolicyCache
from innerloop_server.settings import Limits, Settings
from innerloop_server.store.store import Store


@pytest.fixture
def stub(channel: grpc.aio.Channel) -> policy_pb2_grpc.PolicyServiceAsyncStub:
    return policy_pb2_grpc.PolicyServiceStub(channel)


async def test_metadata(stub: policy_pb2_grpc.PolicyServiceAsyncStub, store: Store) -> None:
    record = keep(store, "local", a_policy())
    policy = (await stub.GetPolicy(policy_pb2.GetPolicyRequest(name=f"policies/{record.id}"))).policy
    assert policy.family == "families/navigation-2d"
    assert policy.revision == "learners/navigation-2d-maml/revisions/1"
    assert (policy.session, policy.steps, policy.adapts) == ("", 3, False)
    assert policy.hash == Policy.from_bytes(store.read_blob(record.blob)).header.hash
    assert policy.size_bytes == len(store.read_blob(record.blob))
    assert list(policy.action_space.box.high) == [1.0]
    assert policy.create_time.ToMicroseconds() == pytest.approx(record.created_at * 1e6, abs=1)


async def test_list_pages_are_newest_first(stub: policy_pb2_grpc.PolicyServiceAsyncStub, store: Store) -> None:
    names = [f"policies/{keep(store, 'local', a_policy(seed)).id}" for seed in range(5)]
    keep(store, "somebody", a_policy(9))
    found, token = [], ""
    for _ in range(3):
        page = await stub.ListPolicies(policy_pb2.ListPoliciesRequest(page_size=2, page_token=token))
        found.append([policy.name for policy in page.policies])
        token = page.next_page_token
    assert token == ""
    assert found == [names[:2:-1], names[2:0:-1], names[:1]]


@pytest.mark.parametrize("chunk", [1, 100, 1024 * 1024])
async def test_download_in_chunks(settings: Settings, servicers: Any, store: Store, chunk: int) -> None:
    record = keep(store, "local", a_policy())
    servicers[1]._limits = replace(settings.limits, chunk_bytes=chunk)
    async with serving(settings, servicers) as server, dialled(server) as channel:
        stub = policy_pb2_grpc.PolicyServiceStub(channel)
        request = policy_pb2.DownloadPolicyRequest(name=f"policies/{record.id}")
        chunks = [reply async for reply in stub.DownloadPolicy(request)]
    data = b"".join(reply.chunk for reply in chunks)
    assert data == store.read_blob(record.blob)
    assert all(len(reply.chunk) == chunk for reply in chunks[:-1])
    assert 1 <= len(chunks[-1].chunk) <= chunk
    assert {reply.size_bytes for reply in chunks} == {len(data)}


async def test_a_large_file_is_cut_at_one_mebibyte(stub: policy_pb2_grpc.PolicyServiceAsyncStub, store: Store) -> None:
    record = keep(store, "local", a_policy(hidden=(600, 600)))
    request = policy_pb2.DownloadPolicyRequest(name=f"policies/{record.id}")
    sizes = [len(reply.chunk) async for reply in stub.DownloadPolicy(request)]
    assert sizes[0] == Limits().chunk_bytes == 2**20
    assert sum(sizes) == record.size


@pytest.mark.parametrize("rows", [1, 3, 4_096])
async def test_acts_as_the_downloaded_file(
    stub: policy_pb2_grpc.PolicyServiceAsyncStub, store: Store, rows: int
) -> None:
    policy = a_policy(hidden=(64, 64))
    name = f"policies/{keep(store, 'local', policy).id}"
    observations = np.random.default_rng(1).standard_normal((rows, 2), np.float32)
    seen = policy_pb2.PolicyInput(observations=array(observations))
    reply = await stub.Act(policy_pb2.ActRequest(policy=name, input=seen, greedy=True))
    local = policy.decide(observations, greedy=True)
    np.testing.assert_array_equal(array_from_pb(reply.output.actions, "a", shape=(rows, 1)), local.environment)
    np.testing.assert_array_equal(array_from_pb(reply.output.raw_actions, "r", shape=(rows, 1)), local.raw)
    np.testing.assert_array_equal(array_from_pb(reply.output.log_probs, "l", shape=(rows,)), local.log_prob)
    assert not reply.state


async def test_a_seed_decides_the_samples(stub: policy_pb2_grpc.PolicyServiceAsyncStub, store: Store) -> None:
    name = f"policies/{keep(store, 'local', a_policy()).id}"
    seen = policy_pb2.PolicyInput(observations=array(np.zeros((8, 2))))

    async def draw(**seed: int) -> bytes:
        return (await stub.Act(policy_pb2.ActRequest(policy=name, input=seen, **seed))).output.raw_actions.data

    assert await draw(seed=5) == await draw(seed=5)
    assert len({await draw(seed=5), await draw(seed=0), await draw(), await draw()}) == 4


async def test_a_stream_answers_in_order_and_takes_the_first_policy_and_seed(
    stub: policy_pb2_grpc.PolicyServiceAsyncStub, store: Store
) -> None:
    policy = a_policy()
    name = f"policies/{keep(store, 'local', policy).id}"
    batches = [np.full((1 + i, 2), i, np.float32) for i in range(4)]

    async def run() -> list[np.ndarray]:
        requests = [
            policy_pb2.ActStreamRequest(policy=name if i == 0 else "", seed=7, input={"observations": array(batch)})
            for i, batch in enumerate(batches)
        ]
        return [array_from_pb(reply.output.raw_actions, "raw") async for reply in stub.ActStream(iter(requests))]

    once, again = await run(), await run()
    assert [len(raw) for raw in once] == [1, 2, 3, 4]
    for first, second in zip(once, again, strict=True):
        np.testing.assert_array_equal(first, second)
    # One stream of numbers for the whole call: the same observation does not get the same sample twice.
    assert once[1][0] != once[1][1]


async def test_a_deleted_policy_is_gone_but_its_streams_go_on(
    stub: policy_pb2_grpc.PolicyServiceAsyncStub, store: Store
) -> None:
    name = f"policies/{keep(store, 'local', a_policy()).id}"
    request = policy_pb2.ActStreamRequest(policy=name, input={"observations": array([[0.0, 0.0]])})
    stream = stub.ActStream()
    await stream.write(request)
    await stream.read()
    await stub.DeletePolicy(policy_pb2.DeletePolicyRequest(name=name))
    await stream.write(request)
    assert isinstance(await stream.read(), policy_pb2.ActStreamResponse)
    await stream.done_writing()
    assert await stream.read() is grpc.aio.EOF
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.GetPolicy(policy_pb2.GetPolicyRequest(name=name))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_damaged_weights_are_data_loss(stub: policy_pb2_grpc.PolicyServiceAsyncStub, store: Store) -> None:
    record = keep(store, "local", a_policy())
    path = store._blobs.path(record.blob)
    path.write_bytes(path.read_bytes()[:-1] + b"\x55")
    request = policy_pb2.ActRequest(
        policy=f"policies/{record.id}", input=policy_pb2.PolicyInput(observations=array([[0.0, 0.0]]))
    )
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Act(request)
    assert caught.value.code() is grpc.StatusCode.DATA_LOSS


def test_the_cache_drops_the_least_recently_used() -> None:
    policies = {name: a_policy(i) for i, name in enumerate("abc")}
    size = sum(array.nbytes for array in policies["a"].weights.values())
    cache = PolicyCache(most_bytes=2 * size)
    cache.put("a", policies["a"])
    cache.put("b", policies["b"])
    assert cache.get("a") is policies["a"]
    cache.put("c", policies["c"])
    assert cache.get("b") is None
    assert cache.get("a") is policies["a"]
    assert cache.get("c") is policies["c"]
    cache.put("large", a_policy(hidden=(64, 64)))
    assert len(cache) == 2


def a_recalling_policy() -> Policy:
    """A policy that remembers, in the middle of a trial."""
    header = Header(
        Box.of(-9, 9, (2,)),
        Box.of(-1, 1, (1,)),
        (4,),
        (0.0, 0.0),
        (1.0, 1.0),
        (0.0,),
        (1.0,),
        architecture="gru",
        encoder_sizes=(5,),
        memory_size=6,
        adapts=True,
        family="navigation-2d",
        learner="navigation-2d-rl2",
        revision="learners/navigation-2d-rl2/revisions/1",
        steps=3,
    )
    rng = np.random.default_rng(3)
    blank = Policy(header, {k: rng.standard_normal(s).astype(np.float32) for k, s in weight_shapes(header).items()})
    memory = blank.begin()
    blank.act(Input(np.ones(2), reward=np.array(2.0)), memory=memory, rng=rng)
    return Policy(header, blank.weights | {f"start.{name}": array[0] for name, array in memory.items()})


def steps_of(rows: int) -> list[Input]:
    rng = np.random.default_rng(rows)
    return [
        Input(
            rng.standard_normal((rows, 2)).astype(np.float32),
            reward=rng.standard_normal(rows).astype(np.float32) if t else None,
            truncated=np.arange(rows) == t if t else None,
            trial_end=np.arange(rows) == t - 1 if t == 3 else None,
        )
        for t in range(5)
    ]


async def test_a_memory_goes_there_and_back(stub: policy_pb2_grpc.PolicyServiceAsyncStub, store: Store) -> None:
    policy = a_recalling_policy()
    name = f"policies/{keep(store, 'local', policy).id}"
    memory = policy.begin(3)
    state: dict[str, Any] = {}
    streamed = policy_pb2.ActStreamRequest
    requests = []
    expected = []
    for seen in steps_of(3):
        reply = await stub.Act(policy_pb2.ActRequest(policy=name, input=input_to_pb(seen), greedy=True, state=state))
        raw = policy.decide(seen, memory=memory, greedy=True).raw
        policy.act(seen, memory=memory, greedy=True)
        np.testing.assert_array_equal(array_from_pb(reply.output.raw_actions, "raw"), raw)
        assert set(reply.state) == set(memory)
        for key, value in memory.items():
            np.testing.assert_array_equal(array_from_pb(reply.state[key], key), value, err_msg=key)
        state = dict(reply.state)
        requests.append(streamed(policy=name, input=input_to_pb(seen), greedy=True))
        expected.append(raw)
    replies = [reply async for reply in stub.ActStream(iter(requests))]
    for reply, raw in zip(replies, expected, strict=True):
        np.testing.assert_array_equal(array_from_pb(reply.output.raw_actions, "raw"), raw)
    assert (await stub.GetPolicy(policy_pb2.GetPolicyRequest(name=name))).policy.adapts


async def test_a_policy_that_is_frozen_in_a_task_refuses_another(
    stub: policy_pb2_grpc.PolicyServiceAsyncStub, store: Store
) -> None:
    policy = a_recalling_policy()
    name = f"policies/{keep(store, 'local', Policy(replace(policy.header, adapts=False), policy.weights)).id}"
    seen = input_to_pb(steps_of(3)[3])  # where the trial of one row ends
    for call in (
        lambda: stub.Act(policy_pb2.ActRequest(policy=name, input=seen)),
        lambda: stub.ActStream(iter([policy_pb2.ActStreamRequest(policy=name, input=seen)])).read(),
    ):
        with pytest.raises(grpc.aio.AioRpcError, match=r"input\.trial_end: .*adapts=True") as caught:
            await call()
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_memory_that_does_not_fit_is_named(stub: policy_pb2_grpc.PolicyServiceAsyncStub, store: Store) -> None:
    remembers = f"policies/{keep(store, 'local', a_recalling_policy()).id}"
    frozen = f"policies/{keep(store, 'local', a_policy()).id}"
    seen = steps_of(2)[0]
    state = {key: array_to_pb(value) for key, value in a_recalling_policy().begin(2).items()}
    wrong_rows = {key: array_to_pb(value) for key, value in a_recalling_policy().begin(3).items()}
    lacking = {key: value for key, value in state.items() if key != "memory"}
    unheard = {**state, "memory": array_to_pb(np.full((2, 6), np.nan, np.float32))}
    for name, sent, words in (
        (frozen, state, "state: came for a policy that keeps no memory"),
        (remembers, wrong_rows, r"state\..*shape"),
        (remembers, lacking, "state: holds .*; this policy keeps .*memory"),
        (remembers, unheard, r"state\.memory"),
    ):
        with pytest.raises(grpc.aio.AioRpcError, match=words) as caught:
            await stub.Act(policy_pb2.ActRequest(policy=name, input=input_to_pb(seen), state=sent))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    requests = [policy_pb2.ActStreamRequest(policy=remembers, input=input_to_pb(steps_of(n)[0])) for n in (2, 3)]
    with pytest.raises(grpc.aio.AioRpcError, match="remembers for the 2 of the first request"):
        _ = [reply async for reply in stub.ActStream(iter(requests))]


def a_discrete_policy(actions: int = 3, **changed: Any) -> Policy:
    """A policy for actions that are numbers; it remembers unless it is ``mlp``, and its memory is empty."""
    plain = Header(Box.of(-9, 9, (2,)), Discrete(actions), (), (0.0, 0.0), (1.0, 1.0))
    header = replace(plain, **{"architecture": "gru", "memory_size": 6, "adapts": True, **changed})
    rng = np.random.default_rng(4)
    return Policy(header, {k: 9 * rng.standard_normal(s, np.float32) for k, s in weight_shapes(header).items()})


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("last.action", 3, r"state\.last\.action: holds integers outside"),
        ("last.action", -1, r"state\.last\.action: holds integers outside"),
        ("memory", 3e38, "input: gives actions that are not finite"),
    ],
)
async def test_a_memory_that_no_step_left_is_named(
    stub: policy_pb2_grpc.PolicyServiceAsyncStub, store: Store, name: str, value: float, words: str
) -> None:
    policy = a_discrete_policy()
    kept = f"policies/{keep(store, 'local', policy).id}"
    memory = policy.begin() | {"last.trial_end": np.zeros(1, np.bool_)}
    memory[name] = np.full_like(memory[name], value)
    state = {key: array_to_pb(array) for key, array in memory.items()}
    request = policy_pb2.ActRequest(policy=kept, input=input_to_pb(steps_of(1)[0]), state=state)
    with pytest.raises(grpc.aio.AioRpcError, match=words) as caught:
        await stub.Act(request)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_rows_whose_state_fits_no_message_are_named(
    stub: policy_pb2_grpc.PolicyServiceAsyncStub, store: Store
) -> None:
    large = {"memory_size": 128, "memory_layers": 2, "memory_heads": 4, "memory_span": 1_024}
    kept = f"policies/{keep(store, 'local', a_discrete_policy(architecture='transformer', **large)).id}"
    fits, too_many = (input_to_pb(Input(np.zeros((rows, 2), np.float32))) for rows in (1, 8))
    assert len((await stub.Act(policy_pb2.ActRequest(policy=kept, input=fits))).state) == 10
    with pytest.raises(grpc.aio.AioRpcError, match=r"has 8 rows.*send at most 7, or use ActStream"):
        await stub.Act(policy_pb2.ActRequest(policy=kept, input=too_many))
    requests = [policy_pb2.ActStreamRequest(policy=kept, input=too_many)]
    assert len([reply async for reply in stub.ActStream(iter(requests))]) == 1


async def test_an_action_that_is_a_number_is_one_however_many_there_are(
    stub: policy_pb2_grpc.PolicyServiceAsyncStub, store: Store
) -> None:
    policy = a_discrete_policy(1_000, architecture="mlp", memory_size=0, adapts=False)
    kept = f"policies/{keep(store, 'local', policy).id}"
    seen = input_to_pb(Input(np.zeros((Limits().rows_per_message, 2), np.float32)))
    reply = await stub.Act(policy_pb2.ActRequest(policy=kept, input=seen))
    assert array_from_pb(reply.output.actions, "a").shape == (Limits().rows_per_message,)
