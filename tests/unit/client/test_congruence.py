"""The same scenarios through the blocking and the async driver give the same results, and leave nothing behind."""

from __future__ import annotations

import numpy as np
import pytest
from drivers import DRIVERS, Scenario
from fake_answers import Refusal
from fake_server import FakeServer
from worlds import Counting, CountingVector, Mode

from innerloop import Budget, Task, errors
from innerloop.v1 import adaptation_pb2, evaluation_pb2, learner_pb2, policy_pb2, task_pb2


async def simulated(client):
    (task,) = await client.sample_tasks("navigation-2d", seed=7)
    adaptation = await client.adapt("navigation-2d", task, steps=3, seed=5)
    numbers = [step.number async for step in adaptation]
    policy = await adaptation.policy()
    return numbers, adaptation.opened.task.name, adaptation.adapted.end_reason, policy.header.steps


async def default_budget_is_that_of_training(client):
    adaptation = await client.adapt("learners/navigation-2d-maml", {"goal": [0.3, -0.2]})
    return [step.state_hash async for step in adaptation], (await adaptation.result()).step


async def whole_budget(client):
    task = Task("navigation-2d", {"goal": [0.3, -0.2]})
    adaptation = await client.adapt("learners/navigation-2d-maml/revisions/2", task, budget=Budget(steps=1))
    return (await adaptation.result()).step, adaptation.steps[0].post_return


async def environment(client):
    env = Counting(length=3)
    adaptation = await client.adapt_env(env, "cartpole-dynamics", steps=2, episodes_per_step=2, seed=1)
    steps = [(step.number, step.pre_return) async for step in adaptation]
    return steps, env.resets[0], env.actions[:3], len(env.actions)


async def vector_environment(client):
    env = CountingVector([2, 3, 5], Mode.NEXT_STEP)
    adaptation = await client.adapt_env(env, "cartpole-dynamics", steps=2, episodes_per_step=4)
    return [(step.number, step.pre_return) async for step in adaptation]


async def acting_locally(client):
    env = Counting(length=4)
    adaptation = await client.adapt_env(env, "cartpole-dynamics", local=True, steps=3, episodes_per_step=2, seed=9)
    steps = [(step.number, step.pre_return, step.policy.header.steps) async for step in adaptation]
    return steps, env.actions


async def labelled_examples(client):
    session = await client.supervised("digits")
    async with session:
        first = await session.adapt(np.ones((3, 4)), [0, 1, 1], steps=2)
        said = await session.predict(np.zeros((5, 4)))
        second = await session.adapt(np.ones((1, 4)), [1])
        policy = await session.policy()
    steps = [(step.number, step.pre_return) for step in [*first, *second]]
    return steps, len(session.steps), said.tolist(), policy.header.steps, session.adapted.end_reason


async def labelled_examples_on_a_budget(client):
    session = await client.supervised("digits", steps=2)
    steps = await session.adapt(np.ones((3, 4)), [0, 1, 1], steps=9)
    return [step.number for step in steps], session.adapted.end_reason, (await session.result()).step


async def finished_early(client):
    env = Counting(length=2)
    adaptation = await client.adapt_env(env, "cartpole-dynamics", steps=50, episodes_per_step=1)
    seen = []
    async for step in adaptation:
        seen.append(step.number)
        if step.number == 2:
            adaptation.finish()
    return seen, adaptation.adapted.end_reason


async def everything_unary(client):
    names = [f.name for f in await client.families()]
    defined = await client.define_family("mine", "CartPole-v1", {"length": (0.3, 0.7), "map": 4}, horizon=9)
    await client.delete_family("mine")
    learner = await client.learner("navigation-2d")
    revisions = [r.name for r in await client.revisions("navigation-2d-maml")]
    revision = await client.revision("navigation-2d-maml/revisions/2")
    promoted = await client.promote("navigation-2d-maml/revisions/2")
    back = await client.roll_back("navigation-2d-maml")
    adaptation = await client.adapt("navigation-2d", "navigation-2d/tasks/test-0-1", steps=1)
    policy = (await adaptation.result()).policy
    listed = [p.name for p in await client.policies()]
    info = await client.policy(policy.name)
    sessions = [s.state for s in await client.sessions()]
    session = await client.session(adaptation.session)
    cancelled = await client.cancel(adaptation.session)
    scores = [s.k for s in await client.scores(family="navigation-2d")]
    one = [s.gap_closed for s in await client.scores(k=0)]
    few = [x.name for x in await client.learners("cartpole-dynamics")]
    family = await client.family("navigation-2d")
    task = await client.task("navigation-2d/tasks/test-3-4")
    await client.delete_policy(policy.name)
    return (
        names,
        defined,
        learner,
        revisions,
        revision.manifest,
        promoted.champion,
        back.champion,
        listed,
        info,
        sessions,
        session.budget,
        cancelled.state,
        scores,
        one,
        few,
        family.references,
        task,
        await client.policies(),
    )


async def training(client):
    run = await client.train("navigation-2d", updates=3, seed=4, settings={"inner_rate": 0.1})
    first = [m.update async for m in run.follow()]
    ended = run.training.state
    await run.pause()
    await run.resume()
    later = [m.update async for m in run.follow(after_update=2)]
    again = await client.training(run.name)
    done = await again.wait()
    return first, ended, later, done, [t.name for t in await client.trainings()]


async def evaluation(client):
    run = await client.evaluate("navigation-2d", tasks=5, task_seed=2)
    states = [e.state async for e in run.follow()]
    found = await client.evaluation(run.name)
    result = await found.result()
    cancelled = await found.cancel()
    return states, result.scores[:3], result.plan, cancelled.state, [e.name for e in await client.evaluations()]


async def acting_on_the_server(client):
    adaptation = await client.adapt("navigation-2d", {"goal": [0.0, 0.1]}, steps=1)
    name = (await adaptation.result()).policy.name
    acted = await client.act(name, [[1.0, 2.0], [3.0, 4.0]], state={"h": np.zeros(2)})
    stream = await client.act_stream(name, greedy=True)
    async with stream:
        many = [(await stream.act([[float(i), 1.0]])).actions.tolist() for i in range(3)]
    return acted.actions.tolist(), sorted(acted.state), many


async def unknown_learner(client):
    await client.adapt("learners/nobody", {"goal": [0.0, 0.0]})


async def bad_budget(client):
    await client.adapt("navigation-2d", {"goal": [0.0, 0.0]}, steps=0)


async def misfit(client):
    await client.adapt_env(Counting(), "navigation-2d")


async def gone_session(client):
    await client.resume("sessions/nobody")


async def detached(client):
    adaptation = await client.adapt("navigation-2d", {"goal": [0.0, 0.0]}, steps=3)
    adaptation.detach()
    await adaptation.policy()


async def over(client):
    session = await client.supervised("digits", steps=1)
    await session.adapt(np.ones((1, 4)), [0])
    await session.adapt(np.ones((1, 4)), [0])


async def closed(client):
    await client.close()
    await client.families()


SCENARIOS: list[Scenario] = [
    simulated,
    default_budget_is_that_of_training,
    whole_budget,
    environment,
    vector_environment,
    acting_locally,
    labelled_examples,
    labelled_examples_on_a_budget,
    finished_early,
    everything_unary,
    training,
    evaluation,
    acting_on_the_server,
]
FAILURES: list[tuple[Scenario, type[errors.InnerloopError]]] = [
    (unknown_learner, errors.NotFound),
    (bad_budget, errors.InvalidRequest),
    (misfit, errors.SpaceMismatch),
    (gone_session, errors.NotFound),
    (detached, errors.SessionEnded),
    (over, errors.SessionEnded),
    (closed, errors.Cancelled),
]


async def run(scenario: Scenario, driver: str, prepare=None):
    server = FakeServer()
    try:
        if prepare is not None:
            prepare(server)
        async with DRIVERS[driver](server.address, patience=5) as client:
            try:
                result = await scenario(client)
            except errors.InnerloopError as error:
                result = error
        assert server.idle(), "an Adapt stream was left open"
        assert server.violations == []
        return result, server
    finally:
        server.stop()


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda s: s.__name__)
async def test_both_drivers_give_the_same(scenario):
    (one, server_one), (other, server_other) = await run(scenario, "blocking"), await run(scenario, "async")
    assert not isinstance(one, errors.InnerloopError), one
    assert one == other
    assert server_one.calls == server_other.calls


@pytest.mark.parametrize(("scenario", "kind"), FAILURES, ids=lambda s: getattr(s, "__name__", ""))
async def test_both_drivers_fail_the_same(scenario, kind):
    (one, _), (other, _) = await run(scenario, "blocking"), await run(scenario, "async")
    assert type(one) is type(other) is kind
    assert (one.message, one.reason, one.facts) == (other.message, other.reason, other.facts)


@pytest.mark.parametrize("driver", DRIVERS)
async def test_examples_are_for_supervised_families(driver):
    server = FakeServer()
    async with DRIVERS[driver](server.address) as client:
        with pytest.raises(ValueError, match="cartpole-dynamics is not a supervised family; use adapt"):
            await client.supervised("cartpole-dynamics")
    assert "Adapt" not in server.calls
    server.stop()


@pytest.mark.parametrize("driver", DRIVERS)
async def test_arguments_that_cannot_be_meant_are_told_at_once(driver):
    server = FakeServer()
    async with DRIVERS[driver](server.address) as client:
        with pytest.raises(TypeError, match=r"gymnasium.make\('CartPole-v1'\)"):
            await client.adapt_env("CartPole-v1", "navigation-2d")
        with pytest.raises(TypeError, match="swapped"):
            await client.adapt_env("navigation-2d", Counting())
        with pytest.raises(TypeError, match="comes first"):
            await client.adapt({"goal": [0.0, 0.0]}, "navigation-2d")
        with pytest.raises(TypeError, match=r"no reset\(\) and step\(\)"):
            await client.adapt_env(3, "navigation-2d")
    assert server.calls == []
    server.stop()


@pytest.mark.parametrize("driver", DRIVERS)
async def test_every_rpc_of_the_contract_has_a_method(driver):
    called = set()
    for scenario in SCENARIOS:
        _, server = await run(scenario, driver)
        called |= set(server.calls)
    modules = (adaptation_pb2, evaluation_pb2, learner_pb2, policy_pb2, task_pb2)
    contract = {
        method.name
        for module in modules
        for service in module.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }
    assert called == contract


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize(
    "scenario",
    [simulated, environment, acting_locally, vector_environment, labelled_examples],
    ids=lambda s: s.__name__,
)
async def test_duplicate_replies_are_ignored(scenario, driver):
    plain, _ = await run(scenario, driver)
    doubled, _ = await run(scenario, driver, lambda server: setattr(server.faults, "twice", True))
    assert doubled == plain


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("generator", ["", "uniform", "grid"])
async def test_many_tasks_come_in_several_calls(driver, generator):
    async def many(client):
        drawn = await client.sample_tasks("navigation-2d", count=2_500, start_index=7, generator=generator)
        return [task.index for task in drawn]

    indices, server = await run(many, driver)
    assert indices == list(range(7, 2_507))
    assert server.calls == ["SampleTasks"] * 3


def too_large(largest: str, field: str = "count") -> Refusal:
    return Refusal("INVALID_ARGUMENT", "INVALID_FIELD", "no", facts={"largest": largest}, violations=[(field, "no")])


@pytest.mark.parametrize("driver", DRIVERS)
async def test_large_tasks_come_as_many_at_a_time_as_fit(driver):
    async def seven(client):
        return [task.index for task in await client.sample_tasks("navigation-2d", count=7, start_index=2)]

    indices, server = await run(seven, driver, lambda server: server.refuse.update(SampleTasks=[too_large("3")]))
    assert indices == list(range(2, 9))
    assert server.calls == ["SampleTasks"] * 4  # the first told how many


@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("refusal", [too_large(""), too_large("0"), too_large("7"), too_large("3", "split")])
async def test_a_refusal_that_does_not_help_is_passed_on(driver, refusal):
    async def seven(client):
        return await client.sample_tasks("navigation-2d", count=7)

    error, server = await run(seven, driver, lambda server: server.refuse.update(SampleTasks=[refusal]))
    assert isinstance(error, errors.InvalidRequest)
    assert server.calls == ["SampleTasks"]


@pytest.mark.parametrize("driver", DRIVERS)
async def test_a_generator_that_listens_is_asked_once(driver):
    async def asked(client):
        return await client.sample_tasks("navigation-2d", "train", count=7, generator="replay", training="t")

    error, server = await run(asked, driver, lambda server: server.refuse.update(SampleTasks=[too_large("3")]))
    assert isinstance(error, errors.InvalidRequest)
    assert server.calls == ["SampleTasks"]


@pytest.mark.parametrize("driver", DRIVERS)
async def test_a_full_server_is_waited_for_when_asked(driver):
    def fill(server):
        server.refuse["SampleTasks"] = [Refusal("RESOURCE_EXHAUSTED", "FULL", "full", retry_after=0.01)] * 2
        server.faults.full = 2

    refused, server = await run(simulated, driver, fill)
    assert isinstance(refused, errors.Exhausted)
    assert refused.retry_after_seconds == 0.01
    assert server.calls == ["SampleTasks"]

    server = FakeServer()
    fill(server)
    async with DRIVERS[driver](server.address, wait=True) as client:
        assert (await simulated(client))[0] == [1, 2, 3]
    assert server.calls.count("SampleTasks") == 3
    assert server.calls.count("Adapt") == 3
    server.stop()
