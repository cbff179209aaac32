"""The trainer: a low-priority process that runs one training from its last checkpoint to its end.

::

    python -m innerloop_server.training run --run DIR [--supervised]

Supervised, it speaks ``messages`` on standard output, takes SIGTERM as "pause with a checkpoint", and ends at once
when its standard input closes: that is, when whoever started it is gone, however that came about.
"""

from __future__ import annotations

import argparse
import math
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, cast

import safetensors.torch
import torch

from innerloop_server import faults
from innerloop_server.adaptation.process import resolve_device
from innerloop_server.errors import DataLoss, InnerloopError, say
from innerloop_server.learners import registry as methods
from innerloop_server.learners.learner import Tensors
from innerloop_server.learners.trainable import TrainableLearner
from innerloop_server.tasks.family import Family
from innerloop_server.tasks.generators.generator import Proposer, TaskGenerator
from innerloop_server.tasks.registry import Registry, load_registry
from innerloop_server.training import behaviour, candidates, checkpoints, generators, optimiser, outer_loop, paired
from innerloop_server.training.adversary_generator import AdversaryGenerator
from innerloop_server.training.curves import Curves
from innerloop_server.training.messages import (
    Checkpointed,
    Done,
    Failed,
    Message,
    Paused,
    Revised,
    Updated,
    encode,
)
from innerloop_server.training.metrics import WALL_CLOCK, MetricsLog, UpdateMetrics
from innerloop_server.training.outer_loop import TrainState
from innerloop_server.training.paired import Paired
from innerloop_server.training.run import RunFolder, RunSettings
from innerloop_server.training.students import teaching

NICENESS = 5
"""Sessions come first: the trainer yields the processor to the engine."""
ORPHANED = 3
"""Exit status of a trainer whose supervisor is gone."""


class Diverged(InnerloopError):
    """A metric or a weight is no longer finite."""

    reason = "TRAINING_DIVERGED"


def train(folder: RunFolder, tell: Callable[[Message], None], stop: Callable[[], bool]) -> TrainState:
    """Run a training from its last checkpoint to its end, or until it should stop.

    A checkpoint is written every ``checkpoint_every`` updates, at every candidate revision, and at the end. It comes
    after the metric log's lines and the candidate, so neither is ever behind it.

    Args:
        folder: of the run.
        tell: hears of every step on the way.
        stop: asked before each update; True: write a checkpoint and return.

    Returns:
        The state after the last update made.

    Raises:
        PreconditionFailed: another trainer holds the folder, or the family lacks an extra.
        Diverged: a metric or a weight is not finite.
        DataLoss: settings, log and checkpoints do not go together.
        OSError: the disk is full or failing.
    """
    with ExitStack() as stack:
        stack.enter_context(folder.locked())
        code = candidates.commit()  # asked now: by the end the checkout may have moved on from what is running
        settings = folder.settings()
        settings = replace(settings, device=str(resolve_device(settings.device)))  # so that a manifest says what it was
        registry = load_registry()
        family = registry.get(settings.spec.family)
        if family.extra is not None:
            family.extra.require(family.name)
        learner = methods.build(settings.spec)
        generator = _generator(settings, family, learner)
        state = _restore(folder, settings, learner, generator)
        log = stack.enter_context(MetricsLog(folder.metrics, state.update))
        curves = stack.enter_context(Curves(folder.tensorboard, state.update))
        student = stack.enter_context(teaching(settings, family, learner))
        clock = _Clock.after(log.last)
        for update in candidates.updates_of(folder, up_to=state.update):
            tell(Revised(update))
        durable = state.update
        while state.update < learner.updates:
            if stop():
                if durable < state.update:
                    _checkpoint(folder, log, curves, state, tell)
                tell(Paused(state.update))
                return state
            if isinstance(generator, Paired):
                state, values = paired.update(student, generator, state, settings.seed)
            else:
                state, values = outer_loop.teach(student, generator, state, settings.seed)
            _check_weights(state)
            metrics = UpdateMetrics(state.update, {**_finite(values, state.update), **clock.read()})
            log.append(metrics)
            faults.point("training.logged")
            curves.add(metrics)
            tell(Updated(state.update))
            if behaviour.shows(family) and behaviour.due(state.update, learner.updates):
                _picture(curves, registry, learner, state)
            revised = _due(state.update, settings.schedule.revision_every, learner.updates)
            if revised:
                _write_candidate(folder, settings, code, state, clock)
                faults.point("training.candidate")
            if revised or _due(state.update, settings.schedule.checkpoint_every, learner.updates):
                _checkpoint(folder, log, curves, state, tell)
                durable = state.update
            if revised:
                tell(Revised(state.update))
        tell(Done(state.update))
        return state


def _generator(settings: RunSettings, family: Family, learner: TrainableLearner) -> TaskGenerator | Paired:
    """What proposes the tasks.

    Raises:
        InvalidField: there is no such generator, or not for this family.
    """
    generator = generators.build(settings.generator, family, settings.seed)
    if isinstance(generator, AdversaryGenerator):
        return Paired(generator, learner)
    return cast("TaskGenerator", generator)


def _due(update: int, every: int, last: int) -> bool:
    return update == last or (every > 0 and update % every == 0)


def _restore(folder: RunFolder, settings: RunSettings, learner: TrainableLearner, generator: Proposer) -> TrainState:
    """The state of the last checkpoint, or the one before the first update."""
    device = torch.device(settings.device)
    saved = checkpoints.load(folder.checkpoints)
    if saved is not None:
        return outer_loop.from_bytes(saved, device)
    if checkpoints.newest_first(folder.checkpoints):
        _note(f"no checkpoint in {folder.checkpoints} holds what its name says: the training starts over")
    state = outer_loop.start(learner, generator, settings.seed, device)
    if not folder.initial.exists():
        return state
    meta = {name: value.to(device) for name, value in safetensors.torch.load_file(folder.initial).items()}
    if _shapes(meta) != _shapes(state.meta):
        raise DataLoss(f"{folder.initial} does not hold the meta-parameters of {settings.spec.name}")
    return replace(state, meta=meta, adam=optimiser.start(meta))


def _picture(curves: Curves, registry: Registry, learner: TrainableLearner, state: TrainState) -> None:
    """Draw how the learner behaves; what hinders that is no reason to end a training."""
    try:
        curves.add_picture(behaviour.picture(registry, learner, state.meta), state.update)
    except InnerloopError as error:
        _note(f"no picture after update {state.update}: {say(error)}")


def _note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - the trainer's log


def _shapes(tensors: Tensors) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {name: (value.shape, value.dtype) for name, value in tensors.items()}


def _checkpoint(
    folder: RunFolder, log: MetricsLog, curves: Curves, state: TrainState, tell: Callable[[Message], None]
) -> None:
    log.sync()
    curves.flush()
    faults.point("training.checkpoint.before")
    checkpoints.save(folder.checkpoints, state.update, outer_loop.to_bytes(state))
    faults.point("training.checkpoint.after")
    tell(Checkpointed(state.update))


def _write_candidate(folder: RunFolder, settings: RunSettings, code: str, state: TrainState, clock: _Clock) -> None:
    weights = safetensors.torch.save({name: value.detach().cpu() for name, value in state.meta.items()})
    manifest = candidates.build_manifest(settings, code, weights, state.update, state.environment_steps, clock.read())
    candidates.write(folder, state.update, weights, manifest)


def _finite(values: Mapping[str, float], update: int) -> Mapping[str, float]:
    """The values as they are.

    Raises:
        Diverged: one is not finite.
    """
    for name, value in values.items():
        if not math.isfinite(value):
            raise Diverged(
                f"update {update}: {name} is {value}; start again with a lower learning_rate, or with gradient_clip"
            )
    return values


def _check_weights(state: TrainState) -> None:
    """Look at what the update left, as metrics are of what it found: no revision or checkpoint is made of nonsense.

    Raises:
        Diverged: a weight is not finite.
    """
    sound = torch.stack([weight.isfinite().all() for weight in state.meta.values()])
    if not bool(sound.all()):
        name = next(name for name, one in zip(state.meta, sound.tolist(), strict=True) if not one)
        raise Diverged(
            f"update {state.update}: {name} is not finite; start again with lower learning rates, or with gradient_clip"
        )


@dataclass(frozen=True)
class _Clock:
    """Seconds of the whole run, across the processes that worked on it."""

    wall_start: float
    cpu_start: float

    @staticmethod
    def after(last: UpdateMetrics | None) -> _Clock:
        """Go on from what the log's last line says."""
        wall, cpu = (last.values[name] if last else 0.0 for name in WALL_CLOCK)
        return _Clock(time.monotonic() - wall, time.process_time() - cpu)

    def read(self) -> dict[str, float]:
        """The columns in ``metrics.WALL_CLOCK``."""
        now = (time.monotonic() - self.wall_start, time.process_time() - self.cpu_start)
        return {name: round(seconds, 3) for name, seconds in zip(WALL_CLOCK, now, strict=True)}


def main(arguments: list[str] | None = None) -> int:
    """Entry point of the process; its exit status."""
    parser = argparse.ArgumentParser(prog="innerloop-trainer", description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="folder of the run, with its settings.json")
    parser.add_argument("--supervised", action="store_true", help="messages on stdout; end when stdin closes")
    options = parser.parse_args(arguments)
    output = _supervise() if options.supervised else sys.stdout.buffer
    os.nice(NICENESS)
    torch.set_num_threads(1)
    stop = threading.Event()
    for number in (signal.SIGTERM,) if options.supervised else (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())

    def tell(message: Message) -> None:
        output.write(encode(message))
        output.flush()

    try:
        train(RunFolder(options.run), tell, stop.is_set)
    except Exception as error:  # whatever it is, the supervisor hears of it, and the log has the traceback
        traceback.print_exc()
        tell(Failed(say(error)))
        return 1
    return 0


def _supervise() -> BinaryIO:
    """Tie this process to its supervisor, and give the stream that messages go to.

    What libraries print goes to stderr from now on, so that nothing gets between two messages.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the supervisor, who then stops us
    messages = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    threading.Thread(target=_end_with_supervisor, daemon=True).start()
    return messages


def _end_with_supervisor() -> None:
    while os.read(0, 4096):
        pass
    os._exit(ORPHANED)
