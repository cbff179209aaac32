"""``innerloop adapt``: from a task to a policy, step by step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from innerloop._core.names import short
from innerloop.arrays import Discrete
from innerloop.cli.connection import Connection, connected
from innerloop.cli.interruption import interruptible
from innerloop.cli.options import POSITIVE, zero_if_left_out
from innerloop.cli.output import parameters
from innerloop.client import Adaptation, Client
from innerloop.types import Family, Step, Task


@click.command()
@click.argument("learner", metavar="FAMILY_OR_LEARNER")
@click.option("--task", "task_name", help="Name of a task, as `innerloop tasks` prints it.")
@click.option("--param", "params", multiple=True, metavar="NAME=NUMBERS", help="A task of your own: goal=0.3,-0.2.")
@click.option("--test-index", type=click.IntRange(min=0), help="A task of the test stream. [default: 0]")
@click.option("--task-seed", default=0, show_default=True, help="Seed of the test stream.")
@click.option(
    "--budget",
    type=click.Choice(["auto"]),
    help="auto: as many steps as were worth their episodes on validation tasks.",
)
@click.option("--steps", type=int, help="Budget of adaptation steps. [default: as in training]")
@click.option("--episodes", type=int, help="Budget of episodes.")
@click.option("--seconds", type=float, help="Budget of computing seconds.")
@click.option("--target-return", type=float, help="Stop when a step's mean return reaches it.")
@click.option(
    "--episodes-per-step",
    type=POSITIVE,
    callback=zero_if_left_out,
    help="[default: as in training; 20 for a guard to judge]",
)
@click.option(
    "--guard/--no-guard",
    default=None,
    help="Take back steps that hurt, or hold a memory at the length of training. "
    "[default: from 20 episodes a step, or where it remembers]",
)
@click.option("--seed", type=int, help="Seed of all that the session draws.")
@click.option("--simulator", type=click.Choice(["batch", "actors"]), default=None, help="What runs the episodes.")
@click.option("--save", type=click.Path(dir_okay=False, path_type=Path), help="Write the policy to a file.")
@connected
def adapt(
    connection: Connection,
    learner: str,
    task_name: str | None,
    params: tuple[str, ...],
    test_index: int | None,
    task_seed: int,
    simulator: str | None,
    save: Path | None,
    **budget: Any,
) -> None:
    """Adapt to one task and keep the policy."""
    if sum([task_name is not None, bool(params), test_index is not None]) > 1:
        raise click.UsageError("give one of --task, --param and --test-index")
    if save is not None and not save.parent.is_dir():  # before an adaptation is computed that cannot be kept
        raise click.UsageError(f"--save {save}: there is no folder {save.parent}")
    out = connection.output
    with connection.open() as client:
        task = _task(client, learner, task_name, params, test_index or 0, task_seed)
        adaptation = client.adapt(learner, task, simulator=simulator or "", progress=out.live, **budget)
        with interruptible(_resumable(adaptation.session)), adaptation:
            _show(connection, adaptation)
            if save is not None:
                policy = adaptation.policy()
                policy.save(save)
                how = "act(observation)" if not policy.header.remembers else "act(input, memory=policy.begin())"
                out.note(f"saved {save}; innerloop.load_policy({str(save)!r}).{how} runs it anywhere")


def _resumable(session: str) -> str:
    return f"{session} can be resumed until its lease ends: client.resume({short(session)!r})"


def _show(connection: Connection, adaptation: Adaptation) -> None:
    out = connection.output
    if out.as_json:
        out.value({"event": "opened", "opened": adaptation.opened})
        for step in adaptation:
            out.value({"event": "step", "step": step})
        out.value({"event": "adapted", "adapted": adaptation.result()})
        return
    opened = adaptation.opened
    what = f" to {parameters(opened.task.parameters)}" if opened.task and opened.task.parameters else ""
    out.say(f"{opened.session}: {short(opened.revision)} adapts{what} (seed {opened.seed})")
    result = adaptation.result()
    columns = _columns(adaptation.steps)
    rows = [tuple(show(step) for show in columns.values()) for step in adaptation.steps]
    out.table(tuple(columns), rows, droppable=("KL", "seconds"))
    out.say(f"{result.policy.name}: {result.step} steps, ended by {result.end_reason.replace('_', ' ')}")


def _columns(steps: Sequence[Step]) -> dict[str, Callable[[Step], Any]]:
    """What is shown of each step; what no step knows is no column."""
    columns: dict[str, Callable[[Step], Any]] = {
        "step": lambda step: step.number,
        "return before": lambda step: step.pre_return,
        "after": lambda step: step.post_return,
        "KL": lambda step: step.kl or None,  # who remembers makes no update
        "episodes": lambda step: step.episodes,
        "seconds": lambda step: step.compute_seconds,
        "uncertainty": lambda step: step.uncertainty,
        "expected of one more": lambda step: step.expected_gain,
    }
    known = {name: show for name, show in columns.items() if any(show(step) is not None for step in steps)}
    return {**known, "": _guarded}


def _guarded(step: Step) -> str:
    if not step.guarded:
        return ""
    return "held" if step.post_return is None else "taken back"  # who remembers makes no update


def _task(client: Client, learner: str, name: str | None, params: tuple[str, ...], index: int, seed: int) -> Task | str:
    if name is not None:
        return name
    family = client.learner(learner).family
    if not params:
        return client.sample_tasks(family, "test", seed, 1, index)[0]
    described = client.family(family)
    return Task(family, dict(_parameter(described, text) for text in params))


def _parameter(family: Family, text: str) -> tuple[str, Any]:
    name, equals, numbers = text.partition("=")
    if not equals:
        raise click.UsageError(f"--param {text}: write NAME=NUMBER, or NAME=NUMBER,NUMBER,...")
    space = family.parameter_space.get(name)
    if space is None:
        known = ", ".join(family.parameter_space)
        raise click.UsageError(f"{short(family.name)} has no parameter {name}; it has {known}")
    try:
        values = [float(number) for number in numbers.split(",")]
    except ValueError:
        raise click.UsageError(f"--param {text}: {numbers} is not a list of numbers") from None
    if isinstance(space, Discrete):
        return name, int(values[0])
    return name, values if space.shape else values[0]
