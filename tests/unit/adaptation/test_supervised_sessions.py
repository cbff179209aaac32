"""Sessions of supervised learners: the engine's steps on labelled examples, and the sessions that bring them."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import drift
import numpy as np
import pytest
import torch
from drift import drain
from hub_support import OWNER, House

from innerloop.policy import Policy, forward
from innerloop_server.actors.pool import ActorPool
from innerloop_server.adaptation.core import EngineCore
from innerloop_server.adaptation.hub import SessionHub
from innerloop_server.adaptation.inner_loop import Resident
from innerloop_server.adaptation.messages import (
    Accepted,
    Actions,
    Adapted,
    Advance,
    EndReason,
    Observe,
    Open,
    Opened,
    StepTaken,
    Trajectories,
)
from innerloop_server.adaptation.orders import (
    Acted,
    ActOrder,
    AdaptOrder,
    Answer,
    RevisionRef,
    RolledOut,
    RolloutOrder,
    StepOrder,
    Stepped,
)
from innerloop_server.domain import Budget, Experience, Simulator
from innerloop_server.errors import InvalidField, StaleStep
from innerloop_server.settings import Settings
from innerloop_server.store.store import Store

sys.path.insert(0, str(Path(__file__).parents[2]))  # supervised_support
import supervised_support as toy

FAMILIES = ["toy-labels", "toy-line"]
N = 6


def core(**options: Any) -> EngineCore:
    return EngineCore(toy.registry(), torch.device("cpu"), device_rows=8, **options)


def seat(core: EngineCore, key: int, ref: RevisionRef, **options: Any) -> Resident:
    task = toy.TASKS[ref.spec.family]
    core.submit(drift.attach(key, ref, **{"of": task, "episodes_per_step": N, **options}))
    drain(core)
    return core._seats[key].resident


def step(core: EngineCore, key: int, number: int) -> Stepped:
    core.submit(StepOrder(key, number, policy=True))
    (answer,) = drain(core)
    assert isinstance(answer, Stepped), answer
    return answer


def support(core: EngineCore, key: int) -> Experience[torch.Tensor]:
    carry = core._seats[key].resident.carry
    assert carry is not None
    return carry.experience


def mean_reward(policy: Policy, examples: Experience[Any]) -> float:
    """What a policy in numpy earns on examples."""
    x, answers = np.asarray(examples.observations)[0, :, 0], np.asarray(examples.feedback)[0, :, 0]
    said = policy.act(x, greedy=True)
    if said.ndim == 1:
        return float((said == answers[:, 0]).mean())
    return -float(((said - answers) ** 2).mean())


@pytest.fixture(params=FAMILIES)
def ref(request: pytest.FixtureRequest, tmp_path: Path) -> RevisionRef:
    return toy.revision(tmp_path, toy.spec(request.param))


def test_every_step_learns_from_the_same_examples(ref: RevisionRef) -> None:
    engine = core()
    start = seat(engine, 1, ref)
    taken, seen = [], []
    for number in (1, 2, 3):
        taken.append(step(engine, 1, number))
        seen.append(support(engine, 1))
    for later in seen[1:]:
        assert torch.equal(later.observations, seen[0].observations)
        assert torch.equal(later.feedback, seen[0].feedback)
    assert len(torch.unique(seen[0].observations.reshape(N, -1), dim=0)) == N
    assert [one.episodes for one in taken] == [N, 0, 0]
    assert [one.pre_return for one in taken[1:]] == [one.post_return for one in taken[:-1]]
    header, weights = start.revision.learner.export(start.revision.meta, start.state)
    policies = [Policy(header, weights[0]), *(Policy.from_bytes(one.policy) for one in taken)]
    for one, before, after in zip(taken, policies, policies[1:], strict=False):
        assert one.pre_return == pytest.approx(mean_reward(before, seen[0]), rel=1e-5)
        assert one.post_return == pytest.approx(mean_reward(after, seen[0]), rel=1e-5)
    losses = [one.metrics["loss"] for one in taken]
    assert losses == sorted(losses, reverse=True)
    if ref.spec.family == "toy-line":
        assert losses == pytest.approx([-one.pre_return for one in taken], rel=1e-5)
    else:
        x, labels = seen[0].observations[0, :, 0].numpy(), seen[0].feedback[0, :, 0, 0].long().numpy()
        logits = forward(header, policies[0].weights, x)["logits"].astype(np.float64)
        log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        assert losses[0] == pytest.approx(-log_p[np.arange(N), labels].mean(), rel=1e-5)


def test_a_session_that_comes_back_sees_its_examples_again(ref: RevisionRef) -> None:
    engine = core()
    seat(engine, 1, ref)
    first, second, third = (step(engine, 1, number) for number in (1, 2, 3))
    for cut, number in ((first, 2), (second, 3)):
        seat(engine, 10 + number, ref, snapshot=cut.snapshot, number=number - 1)
        again = step(engine, 10 + number, number)
        one = {2: second, 3: third}[number]
        assert (again.state_hash, again.pre_return, again.post_return) == (
            one.state_hash,
            one.pre_return,
            one.post_return,
        )
        assert again.episodes == 0


def test_queries_are_other_examples_and_are_measured(ref: RevisionRef) -> None:
    engine = core()
    seat(engine, 1, ref)
    step(engine, 1, 1)
    policy = Policy.from_bytes(step(engine, 1, 2).policy)
    seen = []
    for k in (2, 3):
        engine.submit(RolloutOrder(1, 40, k, trajectories=True))
        (answer,) = drain(engine)
        assert isinstance(answer, RolledOut)
        episodes = answer.experience
        assert episodes is not None
        seen.append(episodes)
        assert answer.returns.mean() == pytest.approx(mean_reward(policy, episodes), rel=1e-4)
        answers = episodes.feedback[0, :, 0].astype(np.float64)
        if ref.spec.family == "toy-line":
            want = {"mse": -mean_reward(policy, episodes), "variance": answers.var(0).mean()}
        else:
            logits = forward(policy.header, policy.weights, episodes.observations[0, :, 0])["logits"].astype(np.float64)
            log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
            chosen = log_p[np.arange(40), answers[:, 0].astype(int)]
            want = {"accuracy": mean_reward(policy, episodes), "cross_entropy": -chosen.mean()}
        assert dict(answer.measures) == pytest.approx(want, rel=1e-5)
    assert not np.array_equal(seen[0].observations, seen[1].observations)
    if ref.spec.family == "toy-labels":  # the radius tells which half of the pool an example is from
        near, far = (
            np.linalg.norm(np.asarray(e.observations)[0, :, 0], axis=-1) for e in (support(engine, 1), seen[0])
        )
        assert near.max() < 1 <= far.min() + 1e-6
        assert np.array_equal(np.asarray(support(engine, 1).feedback)[0, :, 0, 0], np.arange(N) % 2)


def reported(examples: Experience[torch.Tensor]) -> Experience[np.ndarray]:
    """Examples as a client's session hands them on: with nothing but the answers."""
    host = Experience(**{name: value.numpy().copy() for name, value in vars(examples).items()})
    return replace(
        host,
        actions=np.zeros_like(host.actions),
        rewards=np.zeros_like(host.rewards),
        log_probs=np.full_like(host.log_probs, np.nan),
    )


def test_a_clients_examples_do_what_the_same_examples_of_ours_do(ref: RevisionRef) -> None:
    engine = core()
    seat(engine, 1, ref)
    ours = [step(engine, 1, number) for number in (1, 2)]
    examples = reported(support(engine, 1))
    seat(engine, 2, ref, of=None)
    for number, one in enumerate(ours, start=1):
        engine.submit(AdaptOrder(2, number, examples, np.zeros(N)))
        (theirs,) = drain(engine)
        assert isinstance(theirs, Stepped)
        assert theirs.state_hash == one.state_hash
        assert (theirs.pre_return, theirs.post_return) == (pytest.approx(one.pre_return, rel=1e-6), None)
        assert theirs.episodes == N


def test_what_is_asked_is_predicted_not_sampled(ref: RevisionRef) -> None:
    engine = core()
    start = seat(engine, 1, ref, of=None)
    asked = np.random.default_rng(0).standard_normal((5, *ref.spec.observation_space.shape)).astype(np.float32)
    engine.submit(ActOrder(1, asked, (2,)))
    (acted,) = drain(engine)
    assert isinstance(acted, Acted)
    header, weights = start.revision.learner.export(start.revision.meta, start.state)
    np.testing.assert_allclose(acted.actions, Policy(header, weights[0]).act(asked, greedy=True), atol=1e-6)


def test_actors_show_the_same_support_in_every_step(ref: RevisionRef) -> None:
    with ActorPool(1, 8, "supervised_support:registry") as pool:
        engine = core(actors=pool)
        seat(engine, 1, ref, simulator=Simulator.ACTORS)
        taken, seen = [], []
        for number in (1, 2):
            engine.submit(StepOrder(1, number))
            answers: list[Answer] = []
            while not answers:
                answers = engine.run()
            (one,) = answers
            assert isinstance(one, Stepped), one
            taken.append(one)
            seen.append(support(engine, 1))
    assert torch.equal(seen[0].observations, seen[1].observations)
    assert seen[0].feedback.shape == (1, N, 1, 1 if ref.spec.family == "toy-labels" else 2)
    assert taken[1].pre_return == taken[0].post_return
    assert [one.episodes for one in taken] == [N, 0]


# -- sessions ---------------------------------------------------------------------------------------------------------


class School(House):
    """A house whose learners take labels."""

    def __post_init__(self) -> None:
        self.store = Store.open(self.folder, clock=self.clock)
        if not self.store.list_learners().items:
            for family in FAMILIES:
                of = toy.spec(family)
                self.store.put_learner(of)
                self.store.add_revision(of.name, toy.weights(of), {})
                self.store.promote(of.name, 1)
        self.engine = drift.LocalEngine(core())
        self.hub = SessionHub(self.engine, self.store, toy.registry(), Settings(data_dir=self.folder))


@pytest.fixture
async def school(tmp_path: Path, complaints: list[dict[str, Any]]) -> AsyncIterator[School]:
    school = School(tmp_path / "data")
    yield school
    await school.hub.close()
    assert await school.rows() == (0, 0, 0)
    school.store.close()


def opening(family: str = "toy-labels", *, owned: bool = True, **changes: Any) -> Open:
    message = Open(f"{family}-maml", None, None if owned else toy.TASKS[family], Budget(steps=3), seed=5)
    return replace(message, **changes)


def labelled(sequence: int, at: int, n: int = 4, *, seed: int = 0) -> Trajectories:
    rng = np.random.default_rng(seed)
    return Trajectories(
        sequence=sequence,
        step=at,
        observations=rng.standard_normal((n, 1, 2)).astype(np.float32),
        raw_actions=np.zeros((n, 1), np.int64),
        rewards=np.zeros((n, 1), np.float32),
        lengths=np.ones(n, np.int64),
        truncated=np.zeros(n, bool),
        final_observations=np.zeros((n, 2), np.float32),
        log_probs=None,
        feedback=(np.arange(n) % 2).astype(np.float32).reshape(n, 1, 1),
    )


def asking(
    sequence: int, at: int, observations: np.ndarray, answers: dict[int, int] | None = None, **changes: Any
) -> Observe:
    """Examples in rows 0, 1, ...; ``answers``: row -> the label of the example that it showed before."""
    n = len(observations)
    feedback = None
    if answers is not None:
        feedback = np.array([[answers.get(row, 0)] for row in range(n)], np.float32)
    message = Observe(
        sequence=sequence,
        step=at,
        row_ids=tuple(range(n)),
        observations=observations,
        rewards=np.zeros(n, np.float32),
        terminated=np.array([row in (answers or {}) for row in range(n)]),
        truncated=np.zeros(n, bool),
        final_observations=np.zeros((n, 2), np.float32),
        feedback=feedback,
    )
    return replace(message, **changes)


async def test_a_simulated_session_draws_its_examples_once(school: School) -> None:
    runs = []
    for resumed in (False, True):
        stream = await school.open(opening(owned=False))
        opened = await stream.next(Opened)
        assert opened.record.options["guard"] is False
        assert opened.record.options["episodes_per_step"] == 4
        first = await stream.next(StepTaken)
        if resumed:
            await stream.leave()
            stream = await school.resume(stream.session, last_step=1)
            await stream.next(Opened)
        *later, adapted = await stream.rest()
        assert isinstance(adapted, Adapted)
        assert (adapted.end_reason, adapted.policy.header["steps"]) == (EndReason.BUDGET_STEPS, 3)
        steps = [first, *later]
        assert [one.total_episodes for one in steps] == [4, 4, 4]  # type: ignore[union-attr]
        runs.append([one.state_hash for one in steps])  # type: ignore[union-attr]
        await stream.leave()
    assert runs[0] == runs[1]


async def test_a_guard_is_refused(school: School) -> None:
    for owned in (False, True):
        with pytest.raises(InvalidField, match="labelled examples") as refused:
            await school.hub.open(OWNER, opening(owned=owned, guard=True))
        assert refused.value.field == "open.guard"
    stream = await school.open(opening(episodes_per_step=30))
    assert (await stream.next(Opened)).record.options["guard"] is False
    await stream.leave()


async def test_examples_sent_whole(school: School) -> None:
    stream = await school.open(opening())
    await stream.next(Opened)
    losses = []
    for number in range(3):  # the same examples for every step; which step they name is no matter
        await stream.say(labelled(2 + 2 * number, 0))
        assert await stream.next(Accepted) == Accepted(2 + 2 * number, 4)
        await stream.say(Advance(3 + 2 * number))
        taken = await stream.next(StepTaken)
        losses.append(taken.metrics["loss"])
        assert (taken.number, taken.episodes, taken.guarded, taken.rate_scale) == (number + 1, 4, False, 1.0)
        assert taken.pre_return in (0.0, 0.25, 0.5, 0.75, 1.0)
        assert taken.post_return is None
    assert losses == sorted(losses, reverse=True)
    assert (await stream.next(Adapted)).end_reason is EndReason.BUDGET_STEPS
    await stream.leave()


async def test_examples_of_a_step_that_was_not_taken_are_refused(school: School) -> None:
    stream = await school.open(opening())
    await stream.next(Opened)
    with pytest.raises(StaleStep):
        await stream.say(labelled(2, 1))
    await stream.leave()


async def test_examples_one_by_one(school: School) -> None:
    """Asked, answered, asked again; the step is that of the same examples sent whole."""
    whole = await school.open(opening())
    await whole.next(Opened)
    examples = labelled(2, 0)
    await whole.say(examples)
    await whole.next(Accepted)
    await whole.say(Advance(3))
    expected = await whole.next(StepTaken)
    await whole.leave()

    stream = await school.open(opening())
    await stream.next(Opened)
    x = examples.observations[:, 0]
    await stream.say(asking(2, 0, np.full((3, 2), 9.0, np.float32)))  # never answered, so never learned from
    await stream.next(Actions)
    await stream.say(asking(3, 0, x[:2]))
    said = await stream.next(Actions)
    assert said.acted.actions.dtype == np.int64
    await stream.say(asking(4, 0, x[2:], {0: 0, 1: 1}))
    await stream.next(Actions)
    assert stream.live.pending == 2
    await stream.say(asking(5, 0, x[:2], {0: 0, 1: 1}, report_only=True))
    assert await stream.next(Accepted) == Accepted(5, 4)
    await stream.say(Advance(6))
    taken = await stream.next(StepTaken)
    assert (taken.state_hash, taken.pre_return) == (expected.state_hash, expected.pre_return)
    await stream.leave()


async def test_it_adapts_when_enough_answers_have_come(school: School) -> None:
    stream = await school.open(opening(episodes_per_step=2))
    await stream.next(Opened)
    x = labelled(2, 0).observations[:, 0]
    await stream.say(asking(2, 0, x[:2]))
    await stream.next(Actions)
    await stream.say(asking(3, 0, x[2:], {0: 1, 1: 0}))
    assert (await stream.next(StepTaken)).episodes == 2
    assert (await stream.next(Actions)).step == 1
    await stream.leave()
