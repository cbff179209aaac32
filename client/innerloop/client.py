"""The blocking client.

Every method is one line: a program of the shared core (``innerloop._core``), run by the blocking driver. The async
twin with the same methods is ``innerloop.aio``.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self, TypeVar
from weakref import WeakSet

from innerloop._blocking import Execution, Transport
from innerloop._core import evaluations, learners, policies, sessions, setup, tasks
from innerloop._core.commands import Program
from innerloop._core.conversation import Manners
from innerloop._core.following import OnStep
from innerloop._core.options import ConnectOptions
from innerloop._core.policies import Seen
from innerloop._core.sessions import BudgetLike, OpenOptions
from innerloop._core.tasks import ParameterLike, TaskLike
from innerloop._handles import ActStream, Adaptation, EvaluationRun, TrainingRun
from innerloop._supervised import SupervisedSession
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

__all__ = ["ActStream", "Adaptation", "Client", "EvaluationRun", "TrainingRun", "connect"]


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
    """A client of the server at an address. Nothing is sent before the first call.

    Args:
        address: ``host:port``; left out, the environment variable ``INNERLOOP_ADDRESS``, else 127.0.0.1:50551.
        token: names the principal; left out, the environment variable ``INNERLOOP_TOKEN``.
        tls: whether to use TLS; left out, when ``ca`` or ``cert`` is given.
        ca: PEM file of the authority that signed the server's certificate; left out, the system's.
        cert: PEM file of the client's certificate (mutual TLS).
        key: PEM file of its key.
        insecure: send the token in the clear to another machine.
        timeout: seconds that a single call may take; ``None``: any time. Sessions and follow streams have no deadline.
        patience: seconds that a session, training or evaluation goes on trying to come back after a lost stream.
        wait: when the server is full, wait as long as it says and try again, instead of raising ``Exhausted``.

    Raises:
        ValueError: half a client certificate, or a token that would travel in the clear.
        OSError: a certificate or key file cannot be read.
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
    """A server, as a blocking Python object. Safe to share between threads; close it, or use it in a ``with`` block.

    Names are resource names (``families/navigation-2d``) or their short forms (``navigation-2d``). Every method
    raises the errors of ``innerloop.errors``.
    """

    def __init__(self, options: ConnectOptions) -> None:
        """Use :func:`connect`."""
        self.options = options
        self._transport = Transport(options)
        self._executions: WeakSet[Execution[Any]] = WeakSet()
        self._lock = threading.Lock()

    # ------------------------------------------------------------------------------------------ families and tasks

    def families(self) -> list[Family]:
        """All task families, the broken ones too."""
        return self._run(tasks.families())

    def family(self, name: str) -> Family:
        """One task family."""
        return self._run(tasks.family(name))

    def define_family(
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

        It is durable, runs on actors, and is yours. The same definition again answers the family that is there.

        Args:
            name: of the family, 1 to 63 characters of [a-z0-9-].
            env_id: the environment's id. The server's operator must have allowed it (``innerloop serve --allow-env``).
            parameters: name of each hidden parameter -> (low, high), drawn uniformly from between the two (numbers, or
                arrays of one shape); n for 0 to n - 1; or a space.
            horizon: steps after which an episode is truncated.
            apply: ``arguments`` of the environment's constructor, or ``attributes`` of the environment.
            episodes_per_trial: episodes in a task's lifetime.

        Raises:
            PermissionDenied: the environment is not allowed.
            AlreadyExists: the name is taken.
            InvalidRequest: no family can be made of it; says why.
        """
        return self._run(
            tasks.define_family(
                name, env_id, parameters, apply=apply, horizon=horizon, episodes_per_trial=episodes_per_trial
            )
        )

    def delete_family(self, name: str) -> None:
        """Forget a family that was defined, one of your own unless you are an operator. Refused while a learner of it
        has a revision or is in training; others go with it.
        """
        self._run(tasks.delete_family(name))

    def sample_tasks(
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

        Args:
            family: the family's name.
            split: ``train``, ``validation`` or ``test``.
            seed: of the stream.
            count: how many, at least 1. More than the server sends at once come in several calls, but for the last
                three generators, which are asked once.
            start_index: place of the first one in the stream.
            generator: what draws them: ``uniform`` (when empty); ``grid``, an even cover for evaluation; ``replay``,
                ``goal-gan``, ``paired``: what the training would run next (split ``train``).
            training: the one whose generator is asked, for the last three.
        """
        return self._run(
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

    def task(self, name: str) -> Task:
        """The task behind a name that ``sample_tasks`` answered."""
        return self._run(tasks.task(name))

    # ------------------------------------------------------------------------------------------------- adaptation

    def adapt(
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

        Args:
            learner: name of a learner, of one of its revisions, or of a family (then ``{family}-maml``).
            task: a task, its name, or the parameters of one as a mapping.
            budget: when the session ends by itself; or give its parts. ``"auto"``, with or without parts: after as many
                steps as were worth their episodes on validation tasks.
            steps: budget of adaptation steps. Without any budget: as many as the learner was trained for.
            episodes: budget of episodes.
            seconds: budget of computing seconds.
            target_return: ends when a step's mean sampled return reaches it.
            seed: of all that the session draws; the server chooses one when left out (``opened.seed``).
            simulator: ``batch`` or ``actors``; empty: the family's default.
            episodes_per_step: 0: as many as in training, and at least 20 where a guard judges; of learners that
                remember always one.
            guard: take back steps that made the return fall, or hold a memory at the length of training; left out: from
                20 episodes a step, of learners that remember always, of ``pearl`` never.
            policy_in_steps: every step carries its policy.
            lease_seconds: how long the session outlives its last message; left out: 15 minutes.
            request_id: opening again with the same id comes back to the same session.
            on_step: called with every step.
            progress: draw a live line; left out: where standard output is a terminal.
            wait: as in :func:`connect`, for this session.
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
        return self._adaptation(self._run(program))

    def adapt_env(
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

        Args:
            env: the environment. Its spaces, where it has them, must be the learner's in kind and shape.
            learner: as in :meth:`adapt`.
            local: act here, with the portable policy, and send whole episodes; instead of asking the server for
                every action.
            continuing: the environment cannot be reset. ``reset`` is called once, for the first observation, and its
                one endless episode is cut into segments.
            segment: steps of a segment.
            budget: as in :meth:`adapt`, and so are its parts.
            steps: budget of adaptation steps. Without any budget: as many as the learner was trained for.
            episodes: budget of episodes.
            seconds: budget of computing seconds.
            target_return: ends when a step's mean return reaches it.
            seed: of all that the session draws, and of the environment's first ``reset``.
            episodes_per_step: complete episodes after which the server adapts; 0: as many as in training.
            guard: as in :meth:`adapt`.
            lease_seconds: as in :meth:`adapt`.
            request_id: as in :meth:`adapt`.
            on_step: called with every step.
            progress: as in :meth:`adapt`.
            wait: as in :meth:`adapt`.

        Raises:
            SpaceMismatch: the spaces do not fit; names both, and the learners that would fit.
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
        return self._adaptation(self._run(program))

    def supervised(
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
        """Open a session of a supervised learner, to which you bring labelled examples::

            with client.supervised("digits") as session:
                session.adapt(examples, labels, steps=5)
                print(session.predict(others))
                policy = session.policy()

        Args:
            learner: as in :meth:`adapt`.
            budget: as in :meth:`adapt`, and so are its parts; without any, the session goes on until you end it.
            steps: budget of adaptation steps.
            episodes: budget of examples.
            seconds: budget of computing seconds.
            target_return: ends when the accuracy, or minus the mean squared error, of a step's examples reaches it.
            lease_seconds: as in :meth:`adapt`.
            request_id: as in :meth:`adapt`.
            on_step: called with every step.
            progress: as in :meth:`adapt`.
            wait: as in :meth:`adapt`.

        Raises:
            ValueError: the learner's family is not supervised.
        """
        options = OpenOptions(
            budget=OpenOptions.budgeted(budget, steps, episodes, seconds, target_return),
            lease_seconds=lease_seconds,
            request_id=request_id,
        )
        program = setup.supervised(learner, options, self._manners(wait), on_step=on_step, progress=progress)
        following, ready = self._run(program)
        return SupervisedSession(self, self._execute(ready), following)

    def resume(
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

        Args:
            session: its name.
            last_step: the last step that you have seen; later ones are told again.
            env: the environment of a session that was opened with :meth:`adapt_env`; it starts with a reset.
            local: as it was in :meth:`adapt_env`.
            continuing: as it was in :meth:`adapt_env`.
            segment: as it was in :meth:`adapt_env`.
            on_step: called with every step.
            progress: as in :meth:`adapt`.
            wait: as in :meth:`adapt`.
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
        return self._adaptation(ready)

    def sessions(self) -> list[Session]:
        """Your sessions, newest first."""
        return self._run(sessions.sessions())

    def session(self, name: str) -> Session:
        """One session."""
        return self._run(sessions.session(name))

    def cancel(self, session: str) -> Session:
        """End a session and remove all that it held on the server."""
        return self._run(sessions.cancel(session))

    # --------------------------------------------------------------------------------------------------- policies

    def policies(self) -> list[PolicyInfo]:
        """Your policies, newest first."""
        return self._run(policies.policies())

    def policy(self, name: str) -> PolicyInfo:
        """One policy's metadata."""
        return self._run(policies.policy_info(name))

    def download(self, policy: str | PolicyInfo) -> Policy:
        """A policy with its weights: it runs without the server."""
        return self._run(policies.download(policy))

    def delete_policy(self, name: str) -> None:
        """Delete a policy from the server."""
        self._run(policies.delete_policy(name))

    def act(
        self,
        policy: str,
        seen: Seen,
        *,
        greedy: bool = False,
        seed: int | None = None,
        state: Mapping[str, Array] | None = None,
    ) -> Acted:
        """Act once on the server, for R rows.

        Args:
            policy: the policy's name.
            seen: observations [R, *O], or a whole :class:`innerloop.Input`.
            greedy: take the mode instead of a sample.
            seed: of the sample; the server chooses one when left out.
            state: the policy's memory, as the answer before gave it.
        """
        return self._run(policies.act(policy, seen, greedy=greedy, seed=seed, state=state))

    def act_stream(self, policy: str, *, greedy: bool = False, seed: int | None = None) -> ActStream:
        """Act on the server for as long as the stream is open."""
        return ActStream(self._execute(policies.act_stream(policy, greedy=greedy, seed=seed)))

    # ----------------------------------------------------------------------------------------- learners, training

    def learners(self, family: str = "") -> list[Learner]:
        """The learners, of one family where it is named."""
        return self._run(learners.learners(family))

    def learner(self, name: str) -> Learner:
        """One learner: by its name, a revision's or a family's."""
        return self._run(learners.learner(name))

    def revisions(self, learner: str) -> list[Revision]:
        """A learner's revisions, newest first."""
        return self._run(learners.revisions(learner))

    def revision(self, name: str) -> Revision:
        """One revision: learners/{learner}/revisions/{number}."""
        return self._run(learners.revision(name))

    def promote(self, revision: str) -> Learner:
        """Make a revision its learner's champion."""
        return self._run(learners.promote(revision))

    def roll_back(self, learner: str) -> Learner:
        """Make the champion before the present one champion again."""
        return self._run(learners.roll_back(learner))

    def train(
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

        Args:
            family: what to learn to learn.
            method: the learning method.
            learner: name of the learner; empty: ``{family}-{method}``.
            settings: settings that differ from the method's configuration for this family.
            seed: of all that the training draws.
            updates: of the outer loop; 0: as the configuration says.
            simulator: ``batch`` or ``actors``; empty: the family's default.
            continue_from: a revision to start from; empty: fresh meta-parameters.
            generator: what proposes the tasks: ``uniform`` (when empty), ``grid``, ``replay``, ``goal-gan`` or
                ``paired``.
            request_id: starting again with the same id comes back to the same training.
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
        return TrainingRun(self, self._run(program))

    def trainings(self) -> list[Training]:
        """All trainings, newest first."""
        return self._run(learners.trainings())

    def training(self, name: str) -> TrainingRun:
        """A training that was started before."""
        return TrainingRun(self, self._run(learners.training(name)))

    # ------------------------------------------------------------------------------------------------- evaluation

    def evaluate(
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

        Args:
            learner: as in :meth:`adapt`.
            split: the stream of tasks.
            task_seed: seed of the tasks' stream.
            tasks: how many, 1 to 1000; 0: as in the fixed protocol.
            steps: adaptation steps.
            episodes_per_step: 0: as in the fixed protocol.
            evaluation_episodes: fresh episodes at each k; 0: as in the fixed protocol.
            seed: of all else that is drawn.
            guard: whether sessions guard themselves; left out: from 20 episodes a step, and of learners that remember.
            greedy: score the mode of the policy instead of its samples.
            simulator: ``batch`` or ``actors``; empty: the family's default.
            request_id: starting again with the same id comes back to the same evaluation.
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
        return EvaluationRun(self, self._run(program))

    def evaluations(self) -> list[Evaluation]:
        """Your evaluations, newest first."""
        return self._run(evaluations.evaluations())

    def evaluation(self, name: str) -> EvaluationRun:
        """An evaluation that was started before."""
        return EvaluationRun(self, self._run(evaluations.evaluation(name)))

    def scores(self, *, family: str = "", learner: str = "", k: int | None = None) -> list[Score]:
        """Scores that fit every filter that is given, newest first."""
        return self._run(evaluations.scores(family, learner, k))

    # -------------------------------------------------------------------------------------------------- its own life

    def close(self) -> None:
        """Cancel all that is under way and close the connection. Closing again does nothing."""
        with self._lock:
            under_way = list(self._executions)
        for execution in under_way:
            execution.close()
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Client({self.options.address})"

    def _run(self, program: Program[T]) -> T:
        return self._transport.run(program)

    def _execute(self, program: Program[T]) -> Execution[T]:
        execution = Execution(self._transport, program)
        with self._lock:
            self._executions.add(execution)
        return execution

    def _adaptation(self, ready: setup.Ready) -> Adaptation:
        following, program = ready
        return Adaptation(self, self._execute(program), following)

    def _manners(self, wait: bool | None) -> Manners:
        return Manners(self.options.patience, self.options.wait if wait is None else wait)
