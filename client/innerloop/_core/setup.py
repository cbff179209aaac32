"""From what a caller asked for to a session ready to run: programs whose result is (what to remember, what to run)."""

from __future__ import annotations

from typing import Any

from innerloop._core import conversation, learners, lessons, sessions, tasks
from innerloop._core.commands import Program
from innerloop._core.conversation import Manners
from innerloop._core.environments import check_environment, rows_of, spaces_of
from innerloop._core.episodes import check_local
from innerloop._core.following import Following, OnStep
from innerloop._core.names import resource, short
from innerloop._core.protocol import SessionProtocol
from innerloop._core.sessions import OpenOptions
from innerloop._core.tasks import TaskLike
from innerloop._progress import progress_for
from innerloop._version import __version__
from innerloop.types import Adapted
from innerloop.v1 import adaptation_pb2 as pb

Ready = tuple[Following, Program[Adapted]]


def simulated(
    learner: str,
    task: TaskLike,
    options: OpenOptions,
    manners: Manners,
    *,
    on_step: OnStep | None,
    progress: bool | None,
) -> Program[Ready]:
    """A session whose episodes the server runs."""
    if not isinstance(learner, str):
        raise TypeError(f"learner is {type(learner).__name__}; it is a name, and comes first: adapt(learner, task)")
    message = yield from sessions.open_simulated(learner, task, options, __version__)
    protocol = SessionProtocol(open=message, version=__version__)
    following = Following(protocol, progress_for(progress, _steps(message)), on_step)
    return following, conversation.hold(protocol, lambda: conversation.watch(protocol), manners)


def client_owned(
    env: Any,
    learner: str,
    options: OpenOptions,
    manners: Manners,
    *,
    continuing: bool,
    segment: int,
    on_step: OnStep | None,
    progress: bool | None,
) -> Program[Ready]:
    """A session whose episodes the caller's environment runs."""
    check_environment(env, learner)
    name, bound, sees, does = yield from conversation.fit(spaces_of(env), learner)
    if bound.remembers and options.policy_in_steps:
        check_local(env)
    rows = rows_of(env, sees, does, seed=options.seed, continuing=continuing, segment=segment)
    count = int(getattr(env, "num_envs", 1))
    message = sessions.open_client_owned(name, bound, sees, does, options, __version__, rows=count)
    protocol = SessionProtocol(open=message, version=__version__)
    following = Following(protocol, progress_for(progress, _steps(message)), on_step)
    talk = conversation.talk_with(protocol, rows, local=options.policy_in_steps, seed=options.seed)
    return following, conversation.hold(protocol, talk, manners)


def supervised(
    learner: str, options: OpenOptions, manners: Manners, *, on_step: OnStep | None, progress: bool | None
) -> Program[Ready]:
    """A session whose caller brings labelled examples."""
    name, bound = yield from learners.resolve(learner)
    family = yield from tasks.family(bound.family)
    if not family.supervision:
        raise ValueError(f"{short(family.name)} is not a supervised family; use adapt or adapt_env")
    message = sessions.open_supervised(name, bound, options, __version__)
    protocol = SessionProtocol(open=message, version=__version__)
    following = Following(protocol, progress_for(progress, _steps(message)), on_step)
    return following, conversation.hold(protocol, lessons.converse(protocol), manners)


def resumed(
    session: str,
    last_step: int,
    env: Any,
    manners: Manners,
    *,
    local: bool,
    continuing: bool,
    segment: int,
    on_step: OnStep | None,
    progress: bool | None,
) -> Ready:
    """A session that somebody opened before."""
    if env is not None:
        check_environment(env, session)
    protocol = SessionProtocol(session=resource("sessions", session), last_step=last_step, version=__version__)
    following = Following(protocol, progress_for(progress, None), on_step)
    talk = conversation.talk_later(protocol, env, local=local, continuing=continuing, segment=segment)
    return following, conversation.hold(protocol, talk, manners)


def _steps(message: pb.Open) -> int | None:
    return message.budget.steps if message.budget.HasField("steps") else None
