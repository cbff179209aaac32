"""The async client's handles on things that go on: a session, a training, an evaluation, a stream of actions."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import TracebackType
from typing import TYPE_CHECKING, Any

from innerloop._core import evaluations, learners
from innerloop._core.following import Following
from innerloop._core.policies import Seen
from innerloop.aio._driver import Execution
from innerloop.policy import Policy
from innerloop.types import Acted, Adapted, Evaluation, Opened, Session, Step, Training, TrainingMetrics

if TYPE_CHECKING:
    from innerloop.aio._client import Client


class Adaptation(AsyncIterator[Step]):
    """One session under way: an iterator of its steps, then its policy.

    Leaving it (``detach``, the end of a ``with`` block) does not end the session: ``client.resume(name)`` comes back.
    A lost connection is no reason to worry: it comes back by itself for as long as the client's patience lasts.
    """

    def __init__(self, client: Client, execution: Execution[Adapted], following: Following) -> None:
        """Made by ``client.adapt``, ``adapt_env`` and ``resume``."""
        self._client = client
        self._execution = execution
        self._following = following

    @property
    def opened(self) -> Opened:
        """What the server said when the session was opened (or resumed, the last time)."""
        return self._following.opened()

    @property
    def session(self) -> str:
        """Resource name of the session."""
        return self._following.protocol.session

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps seen so far."""
        return tuple(self._following.steps)

    @property
    def adapted(self) -> Adapted | None:
        """How the session ended; ``None`` while it goes on."""
        return self._following.protocol.adapted

    async def __anext__(self) -> Step:
        """The next step; waits for it."""
        step: Step | None = await self._until(Step)
        if step is None:
            raise StopAsyncIteration
        return step

    async def result(self) -> Adapted:
        """Wait for the end of the session.

        Raises:
            SessionEnded: it ended without a policy, or was left.
        """
        async for _ in self:
            pass
        return self._following.adapted()

    async def policy(self) -> Policy:
        """Wait for the end of the session and download its policy.

        Raises:
            SessionEnded: it ended without a policy, or was left.
        """
        return await self._client.download((await self.result()).policy)

    def finish(self) -> None:
        """Ask for the end of the session with the policy of its best state. Go on iterating to see it."""
        self._following.protocol.finish_wanted = True

    async def cancel(self) -> Session:
        """End the session and remove all that it held on the server."""
        self._leave("cancelled")
        return await self._client.cancel(self.session)

    def detach(self) -> None:
        """Leave the stream; the session lives on until its lease ends. Leaving again does nothing."""
        self._leave("detached")

    async def __aenter__(self) -> Adaptation:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.detach()

    def __repr__(self) -> str:
        return f"aio.Adaptation({self._following})"

    def __del__(self) -> None:
        # a loop that was broken out of leaves nobody to detach; a dropped call would never be collected
        if "_execution" in self.__dict__:
            self._execution.close()

    async def _begin(self) -> None:
        await self._until(Opened)

    async def _until(self, kind: type[Any], answer: Any = None) -> Any:
        """The next event of a kind, ``None`` at the end; ``answer`` is for the event before."""
        try:
            while True:
                event = await self._execution.next(answer)
                answer = None
                self._following.take(event)
                if isinstance(event, kind):
                    return event
        except StopAsyncIteration:
            self._following.leave("")
            return None
        except BaseException:
            self._leave("failed")
            raise

    def _leave(self, why: str) -> None:
        self._execution.close()
        self._following.leave(why)


class TrainingRun:
    """A training on the server. It goes on whether or not somebody follows it."""

    def __init__(self, client: Client, training: Training) -> None:
        """Made by ``client.train`` and ``client.training``."""
        self._client = client
        self.training = training
        """The training as it was last seen."""

    @property
    def name(self) -> str:
        """Resource name: trainings/{training}."""
        return self.training.name

    async def refresh(self) -> Training:
        """Ask how it stands."""
        self.training = await self._client._run(learners.training(self.name))
        return self.training

    async def follow(self, after_update: int = 0) -> AsyncIterator[TrainingMetrics]:
        """Metrics of each update after ``after_update``, until the training ends or pauses.

        Raises:
            TrainingFailed: it failed.
        """
        program = learners.follow_training(self.name, after_update, self._client.options.patience)
        execution = self._client._execute(program)
        try:
            while True:
                value = await execution.next()
                if isinstance(value, Training):
                    self.training = value
                else:
                    yield value
        except StopAsyncIteration:
            self.training = execution.result or self.training
        finally:
            execution.close()

    async def wait(self) -> Training:
        """Wait until it ends or pauses.

        Raises:
            TrainingFailed: it failed.
        """
        async for _ in self.follow(self.training.update):
            pass
        return self.training

    async def pause(self) -> Training:
        """Pause at the next update, with a checkpoint."""
        self.training = await self._client._run(learners.pause_training(self.name))
        return self.training

    async def resume(self) -> Training:
        """Go on from the checkpoint."""
        self.training = await self._client._run(learners.resume_training(self.name))
        return self.training


class EvaluationRun:
    """An evaluation on the server. It goes on whether or not somebody follows it."""

    def __init__(self, client: Client, evaluation: Evaluation) -> None:
        """Made by ``client.evaluate`` and ``client.evaluation``."""
        self._client = client
        self.evaluation = evaluation
        """The evaluation as it was last seen."""

    @property
    def name(self) -> str:
        """Resource name: evaluations/{evaluation}."""
        return self.evaluation.name

    async def refresh(self) -> Evaluation:
        """Ask how it stands."""
        self.evaluation = await self._client._run(evaluations.evaluation(self.name))
        return self.evaluation

    async def follow(self) -> AsyncIterator[Evaluation]:
        """The evaluation as it goes on, until it is done.

        Raises:
            EvaluationFailed: it failed or was cancelled.
        """
        execution = self._client._execute(evaluations.follow_evaluation(self.name, self._client.options.patience))
        try:
            while True:
                self.evaluation = await execution.next()
                yield self.evaluation
        except StopAsyncIteration:
            self.evaluation = execution.result or self.evaluation
        finally:
            execution.close()

    async def result(self) -> Evaluation:
        """Wait for the scores.

        Raises:
            EvaluationFailed: it failed or was cancelled.
        """
        async for _ in self.follow():
            pass
        return self.evaluation

    async def cancel(self) -> Evaluation:
        """Cancel it."""
        self.evaluation = await self._client._run(evaluations.cancel_evaluation(self.name))
        return self.evaluation


class ActStream:
    """A policy that acts on the server for as long as this is open; it keeps the policy's memory there."""

    def __init__(self, execution: Execution[None]) -> None:
        """Made by ``client.act_stream``."""
        self._execution = execution

    async def _begin(self) -> None:
        await self._execution.next()

    async def act(self, seen: Seen) -> Acted:
        """What to do now, for R rows.

        Args:
            seen: observations [R, *O], or a whole :class:`innerloop.Input`.
        """
        acted: Acted = await self._execution.next(seen)
        return acted

    def close(self) -> None:
        """End the stream. Ending it again does nothing."""
        self._execution.close()

    async def __aenter__(self) -> ActStream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if "_execution" in self.__dict__:
            self._execution.close()
