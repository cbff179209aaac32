"""All commands, and how what they raise is told."""

from __future__ import annotations

import sys
from typing import IO, Any

import click

from innerloop._version import __version__
from innerloop.cli import adapt, evaluate, learners, policies, serve, sessions, tasks, train
from innerloop.cli.interruption import interruptible
from innerloop.cli.output import wrapped
from innerloop.errors import InnerloopError, InvalidRequest

__all__ = ["main"]


class Failure(click.ClickException):
    """What was raised on purpose, as one sentence on stderr."""

    def show(self, file: IO[Any] | None = None) -> None:
        click.echo(wrapped(f"Error: {self.format_message()}", err=True), file=file, err=True)


class Commands(click.Group):
    """Turns everything that is raised on purpose into one sentence on stderr and exit code 1."""

    def invoke(self, context: click.Context) -> Any:
        try:
            with interruptible():
                result = super().invoke(context)
                sys.stdout.flush()  # here, where a reader that is gone still makes an error that can be caught
                return result
        except BrokenPipeError:  # whoever read the output has seen enough, as `head` has: click ends without a word
            raise
        except InnerloopError as error:
            raise Failure(describe(error)) from error
        except (ValueError, OSError) as error:
            raise Failure(str(error)) from error

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
