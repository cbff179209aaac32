"""The blocking client's handles on things that go on: a session, a training, an evaluation, a stream of actions."""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any

from innerloop._blocking import Execution
from innerloop._core import evaluations, learners
from innerloop._core.following import Following
from innerloop._core.policies import Seen
from innerloop.policy import Policy
from innerloop.types import Acted, Adapted, Evaluation, Opened, Session, Step, Training, TrainingMetrics

if TYPE_CHECKING:
    from innerloop.client import Client


class Adaptation(Iterator[Step]):
    """One session under way: an iterator of its steps, then its policy.

    Leaving it (``detach``, the end of a ``with`` block) does not end the session: ``client.resume(name)`` comes back.
    A lost connection is no reason to worry: it comes back by itself for as long as the client's patience lasts.
    """

    def __init__(self, client: Client, execution: Execution[Adapted], following: Following) -> None:
        """Made by ``client.adapt``, ``adapt_env`` and ``resume``."""
        self._client = client
        self._execution = execution
        self._following = following
        self._until(Opened)

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

    def __next__(self) -> Step:
        """The next step; waits for it."""
        step: Step | None = self._until(Step)
        if step is None:
            raise StopIteration
        return step

    def result(self) -> Adapted:
        """Wait for the end of the session.

        Raises:
            SessionEnded: it ended without a policy, or was left.
        """
        for _ in self:
            pass
        return self._following.adapted()

    def policy(self) -> Policy:
        """Wait for the end of the session and download its policy.

        Raises:
            SessionEnded: it ended without a policy, or was left.
        """
        return self._client.download(self.result().policy)

    def finish(self) -> None:
        """Ask for the end of the session with the policy of its best state. Go on iterating to see it."""
        self._following.protocol.finish_wanted = True

    def cancel(self) -> Session:
        """End the session and remove all that it held on the server."""
        self._leave("cancelled")
        return self._client.cancel(self.session)

    def detach(self) -> None:
        """Leave the stream; the session lives on until its lease ends. Leaving again does nothing."""
        self._leave("detached")

    def __enter__(self) -> Adaptation:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.detach()

    def __repr__(self) -> str:
        return f"Adaptation({self._following})"

    def __del__(self) -> None:
        # a loop that was broken out of leaves nobody to detach; a dropped call would never be collected
        if "_execution" in self.__dict__:
            self._execution.close()

    def _until(self, kind: type[Any], answer: Any = None) -> Any:
        """The next event of a kind, ``None`` at the end; ``answer`` is for the event before."""
        try:
            while True:
                event = self._execution.next(answer)
                answer = None
                self._following.take(event)
                if isinstance(event, kind):
                    return event
        except StopIteration:
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

    def refresh(self) -> Training:
        """Ask how it stands."""
        self.training = self._client._run(learners.training(self.name))
        return self.training

    def follow(self, after_update: int = 0) -> Iterator[TrainingMetrics]:
        """Metrics of each update after ``after_update``, until the training ends or pauses.

        Raises:
            TrainingFailed: it failed.
        """
        program = learners.follow_training(self.name, after_update, self._client.options.patience)
        execution = self._client._execute(program)
        try:
            while True:
                value = execution.next()
                if isinstance(value, Training):
                    self.training = value
                else:
                    yield value
        except StopIteration as end:
            self.training = end.value or self.training
        finally:
            execution.close()

    def wait(self) -> Training:
        """Wait until it ends or pauses.

        Raises:
            TrainingFailed: it failed.
        """
        for _ in self.follow(self.training.update):
            pass
        return self.training

    def pause(self) -> Training:
        """Pause at the next update, with a checkpoint."""
        self.training = self._client._run(learners.pause_training(self.name))
        return self.training

    def resume(self) -> Training:
        """Go on from the checkpoint."""
        self.training = self._client._run(learners.resume_training(self.name))
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

    def refresh(self) -> Evaluation:
        """Ask how it stands."""
        self.evaluation = self._client._run(evaluations.evaluation(self.name))
        return self.evaluation

    def follow(self) -> Iterator[Evaluation]:
        """The evaluation as it goes on, until it is done.

        Raises:
            EvaluationFailed: it failed or was cancelled.
        """
        execution = self._client._execute(evaluations.follow_evaluation(self.name, self._client.options.patience))
        try:
            while True:
                self.evaluation = execution.next()
                yield self.evaluation
        except StopIteration as end:
            self.evaluation = end.value or self.evaluation
        finally:
            execution.close()

    def result(self) -> Evaluation:
        """Wait for the scores.

        Raises:
            EvaluationFailed: it failed or was cancelled.
        """
        for _ in self.follow():
            pass
        return self.evaluation

    def cancel(self) -> Evaluation:
        """Cancel it."""
        self.evaluation = self._client._run(evaluations.cancel_evaluation(self.name))
        return self.evaluation


class ActStream:
    """A policy that acts on the server for as long as this is open; it keeps the policy's memory there."""

    def __init__(self, execution: Execution[None]) -> None:
        """Made by ``client.act_stream``."""
        self._execution = execution
        self._execution.next()

    def act(self, seen: Seen) -> Acted:
        """What to do now, for R rows.

        Args:
            seen: observations [R, *O], or a whole :class:`innerloop.Input`.
        """
        acted: Acted = self._execution.next(seen)
        return acted

    def close(self) -> None:
        """End the stream. Ending it again does nothing."""
        self._execution.close()

    def __enter__(self) -> ActStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if "_execution" in self.__dict__:
            self._execution.close()
