"""The command line: ``innerloop serve | families | tasks | adapt | evaluate | train | ...``."""

from __future__ import annotations

from typing import Any

import click

from innerloop._version import __version__
from innerloop.cli import adapt, evaluate, learners, policies, serve, sessions, tasks, train
from innerloop.errors import InnerloopError, InvalidRequest

__all__ = ["main"]


class Commands(click.Group):
    """Turns everything that is raised on purpose into one sentence on stderr and exit code 1."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except InnerloopError as error:
            raise click.ClickException(describe(error)) from error
        except (ValueError, OSError) as error:
            raise click.ClickException(str(error)) from error

    def list_commands(self, context: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(self.commands)  # as they were added, not by letter


def describe(error: InnerloopError) -> str:
    """An error for people: what the server said, field by field where it named fields."""
    if isinstance(error, InvalidRequest):
        told = [f"  {v.field}: {v.description}" for v in error.violations if v.field not in error.message]
        return "\n".join([error.message, *told])
    return error.message


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="innerloop")
def main() -> None:
    """Policies that have just learned your task.

    Every command but `serve` talks to the server at --server (or $INNERLOOP_ADDRESS). When none is named and none
    answers on the default address, the command starts a private one for as long as it runs.
    """


for command in (  # in the order a newcomer meets them
    serve.serve,
    tasks.families,
    tasks.tasks,
    adapt.adapt,
    evaluate.evaluate,
    evaluate.scores,
    train.train,
    train.trainings,
    learners.learners,
    policies.policies,
    sessions.sessions,
):
    main.add_command(command)
