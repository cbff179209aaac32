"""States of methods that remember: what the method keeps for each row, and what the row's last step brought.

A state holds the method's own arrays, [B, R, ...] each, beside ``last.*`` as a portable policy names them
(``innerloop.policy``), so that whoever goes on with it later needs to know nothing more: neither a session that comes
back nor a policy that was downloaded.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from innerloop.arrays import Array, Discrete
from innerloop.policy import (
    LAST_ACTION,
    LAST_REWARD,
    LAST_TERMINATED,
    LAST_TRIAL_END,
    LAST_TRUNCATED,
    START,
)
from innerloop_server.adaptation.orders import KeptRows, Rows
from innerloop_server.domain import Adaptation, LearnerSpec
from innerloop_server.learners.learner import Input, Learner, Tensors

ROWS = "rows"
"""[1, R] int64: whose the rows are, where a client names them."""
REMEMBERED = "rows.remembered"
"""[1, R] int64: whole episodes that each of them remembers."""
_OF_ROWS = (ROWS, REMEMBERED)
_LAST = "last."


def remembers(learner: Learner) -> bool:
    """The method adapts by acting."""
    return learner.adaptation is Adaptation.MEMORY


def begin(learner: Learner, meta: Tensors) -> Tensors:
    """The state of one row, [1, 1, ...] each, at the first step of a trial."""
    own = learner.begin(meta, 1)
    like = next(iter(own.values()))
    return own | fresh(learner.spec, like)


def fresh(spec: LearnerSpec, like: torch.Tensor) -> Tensors:
    """``last.*`` of rows at the first step of a trial.

    Args:
        spec: names the action space.
        like: any of the method's arrays, [B, R, ...]: gives rows and device.
    """
    lead, device = like.shape[:2], like.device
    no = torch.zeros(lead, dtype=torch.bool, device=device)
    discrete = isinstance(spec.action_space, Discrete)
    shape = lead if isinstance(spec.action_space, Discrete) else (*lead, spec.action_space.size)
    return {
        LAST_ACTION: torch.zeros(shape, dtype=torch.int64 if discrete else torch.float32, device=device),
        LAST_REWARD: torch.zeros(lead, dtype=torch.float32, device=device),
        LAST_TERMINATED: no,
        LAST_TRUNCATED: no,
        LAST_TRIAL_END: ~no,
    }


def whole_input(state: Tensors, observation: torch.Tensor) -> Input:
    """All that the rows [B, R] of a state look at together with ``observation`` [B, R, *O]."""
    return Input(
        observation,
        state[LAST_ACTION],
        state[LAST_REWARD],
        state[LAST_TERMINATED],
        state[LAST_TRUNCATED],
        state[LAST_TRIAL_END],
    )


def own(state: Tensors) -> Tensors:
    """The method's own arrays."""
    return {name: value for name, value in state.items() if not name.startswith(_LAST) and name not in _OF_ROWS}


def after(
    kept: Tensors, action: torch.Tensor, reward: torch.Tensor, terminated: torch.Tensor, truncated: torch.Tensor
) -> Tensors:
    """The state after a step that left the trial on.

    Args:
        kept: the method's own arrays, [B, R, ...].
        action: [B, R, ...] raw.
        reward: [B, R] float32.
        terminated: [B, R] bool.
        truncated: [B, R] bool.
    """
    return kept | {
        LAST_ACTION: action,
        LAST_REWARD: reward,
        LAST_TERMINATED: terminated,
        LAST_TRUNCATED: truncated,
        LAST_TRIAL_END: torch.zeros_like(terminated),
    }


def acted(kept: Tensors, action: torch.Tensor) -> Tensors:
    """The state after an action of which nothing is known yet.

    Args:
        kept: the method's own arrays, [B, R, ...].
        action: [B, R, ...] raw.
    """
    lead = next(iter(kept.values())).shape[:2]
    no = torch.zeros(lead, dtype=torch.bool, device=action.device)
    return after(kept, action, torch.zeros(lead, device=action.device), no, no)


def where(rows: torch.Tensor, yes: Tensors, no: Tensors) -> Tensors:
    """``yes`` in the rows [B, R] that say so, else ``no``."""
    return {
        name: torch.where(rows.reshape(*rows.shape, *(1,) * (value.dim() - 2)), yes[name], value)
        for name, value in no.items()
    }


def spread(state: Tensors, rows: int) -> Tensors:
    """So many rows, [B, rows, ...], that all remember what the one row of ``state`` [B, 1, ...] does."""
    return {name: value.expand(-1, rows, *value.shape[2:]).contiguous() for name, value in state.items()}


def row_of(state: Tensors) -> dict[str, Array]:
    """The memory of the first row of one task, [...] each, as a portable policy lays it out."""
    return {name: value[0, 0].detach().cpu().numpy() for name, value in state.items() if name not in _OF_ROWS}


def weights_of(state: Tensors) -> dict[str, Array]:
    """What a portable policy that goes on from ``state`` holds beside its network's weights."""
    return {START + name: array for name, array in row_of(state).items()}


def named(rows: Rows, device: torch.device) -> Tensors:
    """The state of a client's rows, on a device."""
    return rows_to_device({**rows.memory, ROWS: rows.ids, REMEMBERED: rows.remembered}, device)


def kept_rows(state: Tensors, empty: Tensors, most: int | None) -> KeptRows:
    """What the rows of a client remember; none where the state is of nobody's row yet.

    Args:
        state: of the session.
        empty: of one row at the first step of a trial.
        most: whole episodes that a row may remember; ``None``: any number.
    """
    host = rows_to_host(state)
    ids = host.pop(ROWS, np.zeros(0, np.int64))
    remembered = host.pop(REMEMBERED, np.zeros_like(ids))  # sessions from before there were limits kept no count
    rows = Rows(ids, remembered, {name: array[: len(ids)] for name, array in host.items()})
    return KeptRows(rows, row_of(empty), most)


def remembered(state: Tensors, steps: int) -> int:
    """Whole episodes that the first row remembers, which is what a policy goes on from.

    Args:
        state: of a session.
        steps: that it has taken; of a simulated one they are the episodes.
    """
    return int(state[REMEMBERED][0, 0]) if REMEMBERED in state else steps


def rows_to_host(state: Tensors) -> dict[str, Array]:
    """Undo :func:`rows_to_device`."""
    return {name: value[0].detach().cpu().numpy() for name, value in state.items()}


def rows_to_device(rows: Mapping[str, Array], device: torch.device) -> Tensors:
    """The arrays of one task's rows, [R, ...] each, as a state."""
    return {name: torch.from_numpy(np.ascontiguousarray(array)).to(device)[None] for name, array in rows.items()}
