"""States as values: stacked, split, hashed, and turned into bytes and back."""

from __future__ import annotations

import json
import struct
from dataclasses import asdict

import numpy as np
import pytest
import safetensors.numpy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from innerloop_server.adaptation import states
from innerloop_server.adaptation.guard import Guard
from innerloop_server.errors import DataLoss
from innerloop_server.learners.learner import Tensors

CPU = torch.device("cpu")


def state(seed: int = 0) -> Tensors:
    generator = torch.Generator().manual_seed(seed)
    return {
        "layers.0.weight": torch.randn(1, 3, 2, generator=generator),
        "depth": torch.tensor([seed], dtype=torch.int64),
        "half": torch.randn(1, 2, generator=generator).double(),
    }


def same(a: Tensors, b: Tensors) -> bool:
    return a.keys() == b.keys() and all(a[k].dtype == b[k].dtype and torch.equal(a[k], b[k]) for k in a)


@given(st.integers(1, 6))
def test_stacked_states_come_apart_again(n: int) -> None:
    parts = [state(i) for i in range(n)]
    stacked = states.stack(parts)
    assert stacked["layers.0.weight"].shape == (n, 3, 2)
    assert all(same(a, b) for a, b in zip(states.split(stacked, n), parts, strict=True))


def test_the_hash_sees_every_bit_every_name_and_no_order() -> None:
    one = state()
    known = states.state_hash(one)
    assert len(known) == 64
    assert states.state_hash(dict(reversed(one.items()))) == known
    assert states.state_hash({name: value.clone() for name, value in one.items()}) == known
    flipped = {**one, "depth": one["depth"] + 1}
    renamed = {("deepness" if name == "depth" else name): value for name, value in one.items()}
    minus_zero = {**one, "half": torch.zeros(1, 2).double()}, {**one, "half": -torch.zeros(1, 2).double()}
    narrow = {**one, "half": one["half"].float()}
    reshaped = {**one, "layers.0.weight": one["layers.0.weight"].reshape(1, 2, 3)}
    hashes = [states.state_hash(other) for other in (one, flipped, renamed, *minus_zero, narrow, reshaped)]
    assert len(set(hashes)) == len(hashes)


def test_only_floats_can_be_infinite() -> None:
    assert states.is_finite(state())
    for bad in (float("nan"), float("inf"), -float("inf")):
        broken = state()
        broken["half"][0, 1] = bad
        assert not states.is_finite(broken)


guards = st.builds(
    Guard,
    st.booleans(),
    st.floats(allow_nan=False),
    st.integers(0, 40).map(lambda n: 0.5**n),
    st.booleans(),
)


@given(guards, st.integers(0, 1))
@settings(deadline=None)
def test_a_snapshot_comes_back(guard: Guard, phase: int) -> None:
    now, best = state(1), state(2)
    data = states.pack_snapshot(now, best, guard, phase)
    got, got_best, got_guard, got_phase = states.unpack_snapshot(data, CPU)
    assert same(got, now)
    assert same(got_best, now if guard.at_best else best)
    assert (got_guard, got_phase) == (guard, phase)


def test_what_comes_back_can_be_written_to() -> None:
    """A state over memory that must not be written would fail in place operations far from here."""
    now = state()
    got, _, _, _ = states.unpack_snapshot(states.pack_snapshot(now, now, Guard(True), 0), CPU)
    got["half"] += 1
    assert not torch.equal(got["half"], now["half"])


def _damaged() -> dict[str, bytes]:
    good = states.pack_snapshot(state(), state(1), Guard(False, 1.0, 1.0, False), 0)
    arrays = {"state/w": np.zeros(2, np.float32)}
    guard = json.dumps(asdict(Guard(True)))
    (size,) = struct.unpack("<Q", good[:8])
    return {
        "empty": b"",
        "short": good[:7],
        "cut in the header": good[: 8 + size // 2],
        "cut in the arrays": good[:-1],
        "too long": good + b"x",
        "no json": good[:8] + b"?" * size + good[8 + size :],
        "huge header": struct.pack("<Q", 2**63) + good[8:],
        "no metadata": safetensors.numpy.save(arrays),
        "no guard": safetensors.numpy.save(arrays, metadata={"phase": "0"}),
        "another guard": safetensors.numpy.save(arrays, metadata={"phase": "0", "guard": '{"rate": 1}'}),
        "no phase": safetensors.numpy.save(arrays, metadata={"guard": guard}),
        "phase of words": safetensors.numpy.save(arrays, metadata={"guard": guard, "phase": "one"}),
    }


@pytest.mark.parametrize("what", _damaged())
def test_damaged_snapshots_are_told(what: str) -> None:
    with pytest.raises(DataLoss):
        states.unpack_snapshot(_damaged()[what], CPU)


@given(st.binary(max_size=200))
def test_no_bytes_do_anything_else(data: bytes) -> None:
    with pytest.raises(DataLoss):
        states.unpack_snapshot(data, CPU)
