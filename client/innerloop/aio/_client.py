"""The async twin of ``innerloop.client``: the same methods, the same programs, the other driver."""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import TracebackType
from typing import Any, TypeVar
from weakref import WeakSet

from innerloop._core import evaluations, learners, policies, sessions, setup, tasks
from innerloop._core.commands import Program
from innerloop._core.conversation import Manners
from innerloop._core.following import OnStep
from innerloop._core.options import ConnectOptions
from innerloop._core.policies import Seen
from innerloop._core.sessions import BudgetLike, OpenOptions
from innerloop._core.tasks import ParameterLike, TaskLike
from innerloop.aio._driver import Execution, Transport
from innerloop.aio._handles import ActStream, Adaptation, EvaluationRun, TrainingRun
from innerloop.aio._supervised import SupervisedSession
from innerloop.arrays import Array
from innerloop.policy import Policy
from innerloop.types import (
    Acted,
    Evaluation,
    Family,
    Learner,
    PolicyInfo,
    Revision,
    Score,
    Session,
    Task,
    Training,
)

T = TypeVar("T")


def connect(
    address: str | None = None,
    token: str | None = None,
    *,
    tls: bool | None = None,
    ca: str | os.PathLike[str] | None = None,
    cert: str | os.PathLike[str] | None = None,
    key: str | os.PathLike[str] | None = None,
    insecure: bool = False,
    timeout: float | None = 60.0,
    patience: float = 60.0,
    wait: bool = False,
) -> Client:
    """An async client of the server at an address. Nothing is sent before the first call.

    Arguments and errors as in :func:`innerloop.connect`.
    """
    options = ConnectOptions.resolve(
        address,
        token,
        tls=tls,
        ca=ca,
        cert=cert,
        key=key,
        insecure=insecure,
        timeout=timeout,
        patience=patience,
        wait=wait,
    )
    return Client(options)


class Client:
    """A server, as an async Python object. Use it in one event loop; close it, or use it in an ``async with`` block.

    The methods are those of :class:`innerloop.Client`, run by the async driver from the same programs.
    """

    def __init__(self, options: ConnectOptions) -> None:
        """Use :func:`connect`."""
        self.options = options
        self._transport = Transport(options)
        self._executions: WeakSet[Execution[Any]] = WeakSet()

    # ------------------------------------------------------------------------------------------ families and tasks

    async def families(self) -> list[Family]:
        """All task families, the broken ones too."""
        return await self._run(tasks.families())

    async def family(self, name: str) -> Family:
        """One task family."""
        return await self._run(tasks.family(name))

    async def define_family(
        self,
        name: str,
        env_id: str,
        parameters: Mapping[str, ParameterLike],
        *,
        horizon: int,
        apply: str = "arguments",
        episodes_per_trial: int = 1,
    ) -> Family:
        """Make a family of an environment that is registered with Gymnasium where the server runs.

        Arguments and errors as in :meth:`innerloop.Client.define_family`.
        """
        return await self._run(
            tasks.define_family(
                name, env_id, parameters, apply=apply, horizon=horizon, episodes_per_trial=episodes_per_trial
            )
        )

    async def delete_family(self, name: str) -> None:
        """Forget a family that was defined; see :meth:`innerloop.Client.delete_family`."""
        await self._run(tasks.delete_family(name))

    async def sample_tasks(
        self,
        family: str,
        split: str = "test",
        seed: int = 0,
        count: int = 1,
        start_index: int = 0,
        *,
        generator: str = "",
        training: str = "",
    ) -> list[Task]:
        """Tasks of one of a family's streams: the same (split, seed, index) is always the same task.

        Arguments and errors as in :meth:`innerloop.Client.sample_tasks`.
        """
        return await self._run(
            tasks.sample_tasks(
                family,
                split=split,
                seed=seed,
                count=count,
                start_index=start_index,
                generator=generator,
                training=training,
            )
        )

    async def task(self, name: str) -> Task:
        """The task behind a name that ``sample_tasks`` answered."""
        return await self._run(tasks.task(name))

    # ------------------------------------------------------------------------------------------------- adaptation

    async def adapt(
        self,
        learner: str,
        task: TaskLike,
        *,
        budget: BudgetLike = None,
        steps: int | None = None,
        episodes: int | None = None,
        seconds: float | None = None,
        target_return: float | None = None,
        seed: int | None = None,
        simulator: str = "",
        episodes_per_step: int = 0,
        guard: bool | None = None,
        policy_in_steps: bool = False,
        lease_seconds: float | None = None,
        request_id: str = "",
        on_step: OnStep | None = None,
        progress: bool | None = None,
        wait: bool | None = None,
    ) -> Adaptation:
        """Open a session in which the server runs the episodes.

        Arguments and errors as in :meth:`innerloop.Client.adapt`.
        """
        options = OpenOptions(
            budget=OpenOptions.budgeted(budget, steps, episodes, seconds, target_return),
            seed=seed,
            simulator=simulator,
            episodes_per_step=episodes_per_step,
            guard=guard,
            policy_in_steps=policy_in_steps,
            lease_seconds=lease_seconds,
            request_id=request_id,
        )
        program = setup.simulated(learner, task, options, self._manners(wait), on_step=on_step, progress=progress)
        return await self._adaptation(await self._run(program))

    async def adapt_env(
        self,
        env: Any,
        learner: str,
        *,
        local: bool = False,
        continuing: bool = False,
        segment: int = 200,
        budget: BudgetLike = None,
        steps: int | None = None,
        episodes: int | None = None,
        seconds: float | None = None,
        target_return: float | None = None,
        seed: int | None = None,
        episodes_per_step: int = 0,
        guard: bool | None = None,
        lease_seconds: float | None = None,
        request_id: str = "",
        on_step: OnStep | None = None,
        progress: bool | None = None,
        wait: bool | None = None,
    ) -> Adaptation:
        """Open a session in which you run the episodes: any Gymnasium environment or vector environment, or anything
        that has their ``reset`` and ``step``. The environment is stepped while you iterate.

        Arguments and errors as in :meth:`innerloop.Client.adapt_env`.
        """
        options = OpenOptions(
            budget=OpenOptions.budgeted(budget, steps, episodes, seconds, target_return),
            seed=seed,
            episodes_per_step=episodes_per_step,
            guard=guard,
            policy_in_steps=local,
            lease_seconds=lease_seconds,
            request_id=request_id,
        )
        program = setup.client_owned(
            env,
            learner,
            options,
            self._manners(wait),
            continuing=continuing,
            segment=segment,
            on_step=on_step,
            progress=progress,
        )
        return await self._adaptation(await self._run(program))

    async def supervised(
        self,
        learner: str,
        *,
        budget: BudgetLike = None,
        steps: int | None = None,
        episodes: int | None = None,
        seconds: float | None = None,
        target_return: float | None = None,
        lease_seconds: float | None = None,
        request_id: str = "",
        on_step: OnStep | None = None,
        progress: bool | None = None,
        wait: bool | None = None,
    ) -> SupervisedSession:
        """Open a session of a supervised learner, to which you bring labelled examples.

        Arguments as in :meth:`innerloop.Client.supervised`.

        Raises:
            ValueError: the learner's family is not supervised.
        """
        options = OpenOptions(
            budget=OpenOptions.budgeted(budget, steps, episodes, seconds, target_return),
            lease_seconds=lease_seconds,
            request_id=request_id,
        )
        program = setup.supervised(learner, options, self._manners(wait), on_step=on_step, progress=progress)
        following, ready = await self._run(program)
        session = SupervisedSession(self, self._execute(ready), following)
        await session._begin()
        return session

    async def resume(
        self,
        session: str,
        last_step: int = 0,
        *,
        env: Any = None,
        local: bool = False,
        continuing: bool = False,
        segment: int = 200,
        on_step: OnStep | None = None,
        progress: bool | None = None,
        wait: bool | None = None,
    ) -> Adaptation:
        """Come back to a session, from this process or another.

        Arguments and errors as in :meth:`innerloop.Client.resume`.
        """
        ready = setup.resumed(
            session,
            last_step,
            env,
            self._manners(wait),
            local=local,
            continuing=continuing,
            segment=segment,
            on_step=on_step,
            progress=progress,
        )
        return await self._adaptation(ready)

    async def sessions(self) -> list[Session]:
        """Your sessions, newest first."""
        return await self._run(sessions.sessions())

    async def session(self, name: str) -> Session:
        """One session."""
        return await self._run(sessions.session(name))

    async def cancel(self, session: str) -> Session:
        """End a session and remove all that it held on the server."""
        return await self._run(sessions.cancel(session))

    # --------------------------------------------------------------------------------------------------- policies

    async def policies(self) -> list[PolicyInfo]:
        """Your policies, newest first."""
        return await self._run(policies.policies())

    async def policy(self, name: str) -> PolicyInfo:
        """One policy's metadata."""
        return await self._run(policies.policy_info(name))

    async def download(self, policy: str | PolicyInfo) -> Policy:
        """A policy with its weights: it runs without the server."""
        return await self._run(policies.download(policy))

    async def delete_policy(self, name: str) -> None:
        """Delete a policy from the server."""
        await self._run(policies.delete_policy(name))

    async def act(
        self,
        policy: str,
        seen: Seen,
        *,
        greedy: bool = False,
        seed: int | None = None,
        state: Mapping[str, Array] | None = None,
    ) -> Acted:
        """Act once on the server, for R rows.

        Arguments and errors as in :meth:`innerloop.Client.act`.
        """
        return await self._run(policies.act(policy, seen, greedy=greedy, seed=seed, state=state))

    async def act_stream(self, policy: str, *, greedy: bool = False, seed: int | None = None) -> ActStream:
        """Act on the server for as long as the stream is open."""
        stream = ActStream(self._execute(policies.act_stream(policy, greedy=greedy, seed=seed)))
        await stream._begin()
        return stream

    # ----------------------------------------------------------------------------------------- learners, training

    async def learners(self, family: str = "") -> list[Learner]:
        """The learners, of one family where it is named."""
        return await self._run(learners.learners(family))

    async def learner(self, name: str) -> Learner:
        """One learner: by its name, a revision's or a family's."""
        return await self._run(learners.learner(name))

    async def revisions(self, learner: str) -> list[Revision]:
        """A learner's revisions, newest first."""
        return await self._run(learners.revisions(learner))

    async def revision(self, name: str) -> Revision:
        """One revision: learners/{learner}/revisions/{number}."""
        return await self._run(learners.revision(name))

    async def promote(self, revision: str) -> Learner:
        """Make a revision its learner's champion."""
        return await self._run(learners.promote(revision))

    async def roll_back(self, learner: str) -> Learner:
        """Make the champion before the present one champion again."""
        return await self._run(learners.roll_back(learner))

    async def train(
        self,
        family: str,
        method: str = "maml",
        *,
        learner: str = "",
        settings: Mapping[str, Any] | None = None,
        seed: int = 0,
        updates: int = 0,
        simulator: str = "",
        continue_from: str = "",
        generator: str = "",
        request_id: str = "",
    ) -> TrainingRun:
        """Start a training in the background of the server.

        Arguments and errors as in :meth:`innerloop.Client.train`.
        """
        program = learners.start_training(
            family,
            method=method,
            learner=learner,
            settings=settings or {},
            seed=seed,
            updates=updates,
            simulator=simulator,
            continue_from=continue_from,
            generator=generator,
            request_id=request_id,
        )
        return TrainingRun(self, await self._run(program))

    async def trainings(self) -> list[Training]:
        """All trainings, newest first."""
        return await self._run(learners.trainings())

    async def training(self, name: str) -> TrainingRun:
        """A training that was started before."""
        return TrainingRun(self, await self._run(learners.training(name)))

    # ------------------------------------------------------------------------------------------------- evaluation

    async def evaluate(
        self,
        learner: str,
        *,
        split: str = "test",
        task_seed: int | None = None,
        tasks: int = 0,
        steps: int | None = None,
        episodes_per_step: int = 0,
        evaluation_episodes: int = 0,
        seed: int | None = None,
        guard: bool | None = None,
        greedy: bool = False,
        simulator: str = "",
        request_id: str = "",
    ) -> EvaluationRun:
        """Start an evaluation in the background of the server. What is left out is taken from the
        family's fixed protocol for the split. The same plan and seeds give the same scores.

        Arguments and errors as in :meth:`innerloop.Client.evaluate`.
        """
        program = evaluations.start_evaluation(
            learner,
            split=split,
            task_seed=task_seed,
            tasks=tasks,
            steps=steps,
            episodes_per_step=episodes_per_step,
            evaluation_episodes=evaluation_episodes,
            seed=seed,
            guard=guard,
            greedy=greedy,
            simulator=simulator,
            request_id=request_id,
        )
        return EvaluationRun(self, await self._run(program))

    async def evaluations(self) -> list[Evaluation]:
        """Your evaluations, newest first."""
        return await self._run(evaluations.evaluations())

    async def evaluation(self, name: str) -> EvaluationRun:
        """An evaluation that was started before."""
        return EvaluationRun(self, await self._run(evaluations.evaluation(name)))

    async def scores(self, *, family: str = "", learner: str = "", k: int | None = None) -> list[Score]:
        """Scores that fit every filter that is given, newest first."""
        return await self._run(evaluations.scores(family, learner, k))

    # -------------------------------------------------------------------------------------------------- its own life

    async def close(self) -> None:
        """Cancel all that is under way and close the connection. Closing again does nothing."""
        for execution in list(self._executions):
            execution.close()
        await self._transport.close()

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"aio.Client({self.options.address})"

    async def _run(self, program: Program[T]) -> T:
        return await self._transport.run(program)

    def _execute(self, program: Program[T]) -> Execution[T]:
        execution = Execution(self._transport, program)
        self._executions.add(execution)
        return execution

    async def _adaptation(self, ready: setup.Ready) -> Adaptation:
        following, program = ready
        adaptation = Adaptation(self, self._execute(program), following)
        await adaptation._begin()
        return adaptation

    def _manners(self, wait: bool | None) -> Manners:
        return Manners(self.options.patience, self.options.wait if wait is None else wait)
