"""A training without a server: ``scripts/train FAMILY --out DIR`` runs it, resumes it, and scores what came out.

This is the command that a manifest names: on the CPU, with the same versions, it computes the same weights to the bit.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from innerloop_server.actors.pool import ActorPool
from innerloop_server.adaptation.core import EngineCore
from innerloop_server.adaptation.local import LocalEngine
from innerloop_server.adaptation.orders import RevisionRef
from innerloop_server.adaptation.process import resolve_device
from innerloop_server.domain import Score, Simulator
from innerloop_server.errors import InnerloopError, InvalidField, PreconditionFailed
from innerloop_server.evaluation.scores import TRIAL_RETURN
from innerloop_server.learners import registry as methods
from innerloop_server.tasks.registry import Registry, load_registry
from innerloop_server.training import candidates
from innerloop_server.training.messages import Message, Updated
from innerloop_server.training.metrics import MetricsReader, UpdateMetrics
from innerloop_server.training.promotion import Validation, validator
from innerloop_server.training.requests import TrainingRequest, check_attempts, plan
from innerloop_server.training.run import RunFolder, RunSettings
from innerloop_server.training.trainer import train

INTERRUPTED = 130
"""Exit status when a signal stopped the run; the same command goes on with it."""


def prepare(folder: RunFolder, settings: RunSettings, initial: Path | None = None) -> None:
    """Lay a run out in its folder, or find the same run there to go on with.

    Raises:
        PreconditionFailed: the folder holds another run.
        InvalidField: ``initial`` cannot be read.
    """
    try:
        weights = initial.read_bytes() if initial is not None else None
    except OSError as error:
        raise InvalidField("--from", f"{initial} cannot be read: {error.strerror}") from error
    folder.create(settings, weights)
    if _complete(folder.settings()) != _complete(settings):
        raise PreconditionFailed(f"{folder.path} holds a run with other settings; choose another --out")


def _complete(run: RunSettings) -> RunSettings:
    """The run with every setting that its method has today, by today's names: it may be older than some of them."""
    return replace(run, spec=replace(run.spec, settings=methods.settings_of(run.spec).to_json()))


def score(folder: RunFolder, settings: RunSettings, registry: Registry) -> Validation:
    """Score a finished run's last candidate on the family's validation plan, and note it in its manifest."""
    candidate = candidates.read(folder, settings.updates)
    ref = RevisionRef(str(folder.path), candidate.hash, str(candidate.path), settings.spec)
    with ExitStack() as stack:
        actors = None
        if registry.get(settings.spec.family).simulators[0] is Simulator.ACTORS:
            actors = stack.enter_context(ActorPool(settings.actors, settings.actor_slots))
        core = EngineCore(registry, resolve_device(settings.device), device_rows=4_096, actors=actors)
        validation = asyncio.run(validator(LocalEngine(core), registry)(ref))
    manifest = {**candidate.manifest, "validation": validation.to_json()}
    candidates.write(folder, settings.updates, candidate.path.read_bytes(), manifest)
    return validation


def main(arguments: list[str] | None = None) -> int:
    """``scripts/train``; its exit status."""
    options = _parser().parse_args(arguments)
    torch.set_num_threads(1)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        registry = load_registry()
        settings = _settings(options, registry)
        folder = RunFolder(options.out)
        prepare(folder, settings, options.initial)
        state = train(folder, _progress(folder, settings.updates), stop.is_set)
        if state.update < settings.updates:
            _say(f"stopped after update {state.update}; the same command goes on from there")
            return INTERRUPTED
        _say(_table(score(folder, settings, registry).scores))
        _say(f"{folder.revisions / f'{settings.updates:08d}'}")
    except InnerloopError as error:
        print(f"scripts/train: {error.message}", file=sys.stderr)  # noqa: T201 - a command
        return 1
    return 0


def _settings(options: argparse.Namespace, registry: Registry) -> RunSettings:
    request = TrainingRequest(
        family=options.family,
        method=options.method,
        learner=options.learner,
        settings=dict(options.set),
        seed=options.seed,
        updates=options.updates,
        simulator=Simulator(options.simulator) if options.simulator else None,
        generator=options.generator,
    )
    settings = replace(plan(request, registry.get(request.bound_to)), device=options.device, actors=options.actors)
    if options.initial is None:
        return settings
    check_attempts(settings.spec, settings.generator, continued=True)
    return replace(settings, continue_from=str(options.initial), command=f"{settings.command} --from {options.initial}")


def _progress(folder: RunFolder, updates: int) -> Callable[[Message], None]:
    """One line that is written over on a terminal; elsewhere a line every tenth part."""
    reader = MetricsReader(folder.metrics)
    terminal = sys.stdout.isatty()

    def tell(message: Message) -> None:
        if not isinstance(message, Updated):
            return
        *_, last = reader.read()
        line = _line(last, updates)
        if terminal:
            print(f"\r\x1b[2K{line}", end="\n" if message.update == updates else "", flush=True)  # noqa: T201
        elif message.update % max(1, updates // 10) == 0 or message.update == updates:
            _say(line)

    return tell


def _line(metrics: UpdateMetrics, updates: int) -> str:
    returns = "  ".join(f"{name} {value:.2f}" for name, value in metrics.values.items() if name.startswith("return_"))
    return f"update {metrics.update}/{updates}  {returns}  {metrics.values['wall_seconds']:.0f} s"


def _table(scores: tuple[Score, ...]) -> str:
    rows = [f"{s.k:>3} {s.mean:>10.2f} {s.interquartile_mean:>10.2f}   [{s.low:.2f}, {s.high:.2f}]" for s in scores]
    trials = [f"whole trial {s.metrics[TRIAL_RETURN]:.2f}" for s in scores if TRIAL_RETURN in s.metrics]
    return "\n".join(
        [f"validation, {scores[0].tasks} tasks", "  k       mean        iqm   95 % interval", *rows, *trials]
    )


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201


def _assignment(text: str) -> tuple[str, Any]:
    """``name=value``, the value in JSON, or a bare word."""
    name, separator, value = text.partition("=")
    if not separator:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/train", description=__doc__)
    parser.add_argument("family")
    parser.add_argument("--method", default="maml")
    parser.add_argument("--learner", default="", help="id; FAMILY-METHOD when left out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--updates", type=int, default=0, help="0: as the settings say")
    parser.add_argument("--simulator", choices=[s.value for s in Simulator], help="the family's first when left out")
    parser.add_argument("--generator", default="", help="what proposes the tasks; uniform when left out")
    parser.add_argument("--set", type=_assignment, action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--from", dest="initial", type=Path, metavar="FILE", help="meta.safetensors to start from")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--actors", type=int, default=max(1, (os.cpu_count() or 2) - 1), help="actor processes")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run; one that is there is gone on with")
    return parser
