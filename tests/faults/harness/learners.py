"""A learner small enough that the faults, not the maths, take the time. Nobody trained it: hashes need no skill."""

from __future__ import annotations

from pathlib import Path

import safetensors.torch

from innerloop_server.learners.registry import build
from innerloop_server.store.store import Store
from innerloop_server.tasks.registry import load_registry
from innerloop_server.training.specs import spec_for

FAMILY = "navigation-2d"
LEARNER = "tiny"


def install(data_dir: Path) -> None:
    """Put the learner into a data directory that no server has open."""
    spec = spec_for(load_registry().get(FAMILY), name=LEARNER, settings={"hidden_sizes": [8], "episodes_per_step": 4})
    with Store.open(data_dir) as store:
        store.put_learner(spec)
        store.add_revision(LEARNER, safetensors.torch.save(build(spec).initial_meta(0)), {})
        store.promote(LEARNER, 1)
