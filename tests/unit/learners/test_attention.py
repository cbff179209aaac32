from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from innerloop.arrays import Box, Discrete
from innerloop.policy import Header, weight_shapes
from innerloop.policy.attention import KEPT_STEPS, kept_keys, kept_values
from innerloop_server.domain import LearnerSpec
from innerloop_server.learners import attention, networks, recurrent
from innerloop_server.learners.learner import Tensors

MakeSpec = Callable[..., LearnerSpec]


def sized(
    spec: LearnerSpec, *, span: int = 6, size: int = 8, heads: int = 2, layers: int = 2, encoder: tuple[int, ...] = (5,)
) -> Header:
    return dataclasses.replace(
        networks.header(spec, (6,)),
        architecture="transformer",
        encoder_sizes=encoder,
        memory_size=size,
        memory_layers=layers,
        memory_heads=heads,
        memory_span=span,
    )


def fresh(header: Header, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensors:
    rng = np.random.default_rng(seed)
    weights = attention.initial_weights(header, rng, last_layer_scale=1.0, initial_log_std=-1.0)
    # Biases are zero at the start; here they should show.
    noise = torch.Generator().manual_seed(seed)
    return {
        name: (value + 0.1 * torch.randn(value.shape, generator=noise)).to(dtype) for name, value in weights.items()
    }


def seen(header: Header, *lead: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*lead, recurrent.input_size(header), generator=torch.Generator().manual_seed(seed), dtype=dtype)


def step_by_step(header: Header, weights: Tensors, x: torch.Tensor, memory: Tensors | None = None) -> torch.Tensor:
    """As ``attention.unroll``; from ``memory``, or from the first step of a trial."""
    b, length, rows = x.shape[:3]
    first = torch.full((b, rows), memory is None)
    memory = memory or attention.begin(header, x, b, rows)
    steps = []
    for t in range(length):
        y, memory = attention.look(header, weights, memory, x[:, t], first if t == 0 else torch.zeros_like(first))
        steps.append(y)
    return torch.stack(steps, 1)


def what_moves(y: torch.Tensor, x: torch.Tensor) -> list[bool]:
    """Which steps of the only trial [1, T, 1, input_size] have a say in ``y`` [M + E]."""
    # Not a plain sum: what is normalised sums to zero always.
    (slopes,) = torch.autograd.grad((y * torch.arange(len(y))).sum(), x)
    moved: list[bool] = (slopes[0, :, 0].abs().amax(-1) > 1e-9).tolist()
    return moved


def plainly(header: Header, weights: Tensors, x: np.ndarray) -> np.ndarray:
    """One trial [T, input_size] by the book, number by number, without anything that this project has."""
    w = {name: value.numpy() for name, value in weights.items()}

    def layer(name: str, row: np.ndarray) -> np.ndarray:
        return np.asarray(row @ w[f"{name}.weight"] + w[f"{name}.bias"])

    def norm(row: np.ndarray) -> np.ndarray:
        return np.asarray((row - row.mean()) / math.sqrt(row.var() + 1e-5))

    def turn(row: np.ndarray, t: int) -> np.ndarray:
        points = row[: len(row) // 2] + 1j * row[len(row) // 2 :]
        points = points * np.exp([1j * t * 10_000 ** (-2 * j / len(row)) for j in range(len(points))])
        return np.concatenate([points.real, points.imag])

    heads, width = header.memory_heads, header.memory_size // header.memory_heads
    encoded = [np.tanh(layer("encoder.layers.0", row)) for row in x]
    stream = [layer("embed", row) for row in encoded]
    for i in range(header.memory_layers):
        parts = [np.split(layer(f"blocks.{i}.attend", norm(u)), 3) for u in stream]
        after = []
        for t, u in enumerate(stream):
            found = []
            for head in range(heads):
                mine = slice(head * width, (head + 1) * width)
                window = range(max(0, t - header.memory_span + 1), t + 1)
                q = turn(parts[t][0][mine], t)
                scores = np.exp([q @ turn(parts[s][1][mine], s) / math.sqrt(width) for s in window])
                found.append(sum(p * parts[s][2][mine] for p, s in zip(scores / scores.sum(), window, strict=True)))
            u = u + layer(f"blocks.{i}.mix", np.concatenate(found))
            wide = layer(f"blocks.{i}.widen", norm(u))
            after.append(u + layer(f"blocks.{i}.narrow", wide * (wide > 0)))
        stream = after
    return np.stack([np.concatenate([norm(u), e]) for u, e in zip(stream, encoded, strict=True)])


@pytest.mark.parametrize("span", [3, 9])
def test_it_is_the_transformer_by_the_book(make_spec: MakeSpec, span: int) -> None:
    header = sized(make_spec(), span=span)
    weights = fresh(header)
    x = seen(header, 1, 9, 2)
    whole = attention.unroll(header, networks.stack(weights, 1), x)
    for row in range(2):
        np.testing.assert_allclose(whole[0, :, row], plainly(header, weights, x[0, :, row].numpy()), atol=1e-12)


@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("span", [1, 4, 11, 20])
def test_one_pass_over_a_trial_is_looking_step_by_step(
    make_spec: MakeSpec, span: int, dtype: torch.dtype, close: float
) -> None:
    header = sized(make_spec(), span=span, encoder=(5, 3))
    weights = networks.stack(fresh(header, dtype=dtype), 2)
    x = seen(header, 2, 11, 3, dtype=dtype)
    whole = attention.unroll(header, weights, x)
    torch.testing.assert_close(whole, step_by_step(header, weights, x), atol=close, rtol=0)


def test_no_step_looks_ahead(make_spec: MakeSpec) -> None:
    header = sized(make_spec())
    x = seen(header, 1, 6, 1).requires_grad_()
    y = attention.unroll(header, networks.stack(fresh(header), 1), x)
    assert what_moves(y[0, 3, 0], x) == [True] * 4 + [False] * 2


def test_what_the_window_has_left_behind_does_not_count(make_spec: MakeSpec) -> None:
    """A block looks ``span`` steps back, so two of them, one on the other, reach twice as far."""
    for layers, reach in ((1, 3), (2, 5)):
        header = sized(make_spec(), span=3, layers=layers)
        x = seen(header, 1, 12, 1).requires_grad_()
        y = step_by_step(header, networks.stack(fresh(header), 1), x)
        moved = what_moves(y[0, 11, 0], x)
        assert moved == [False] * (12 - reach) + [True] * reach


def test_a_trial_goes_on_for_ever(make_spec: MakeSpec) -> None:
    """How long a trial has been on changes nothing, once the window has left its beginning behind."""
    header = sized(make_spec(), span=3, layers=1)
    weights = networks.stack(fresh(header, dtype=torch.float32), 1)
    x = seen(header, 1, 7, 2, dtype=torch.float32)
    early, late = (
        step_by_step(header, weights, x, attention.begin(header, x, 1, 2) | {KEPT_STEPS: torch.full((1, 2), steps)})
        for steps in (30, 30_000_000)
    )
    torch.testing.assert_close(late, early, atol=1e-5, rtol=0)
    assert float((late[:, 3:] - early[:, 3:]).abs().max()) > 0, "angles that do not turn prove nothing"


def test_a_row_that_starts_a_trial_forgets_and_the_others_do_not(make_spec: MakeSpec) -> None:
    header = sized(make_spec(), span=4)
    weights = networks.stack(fresh(header), 1)
    memory = attention.begin(header, torch.zeros(1, dtype=torch.float64), 1, 3)
    no = torch.zeros(1, 3, dtype=torch.bool)
    for t in range(6):
        _, memory = attention.look(header, weights, memory, seen(header, 1, 3, seed=t), no)
    x = seen(header, 1, 3, seed=9)
    plain, kept = attention.look(header, weights, memory, x, no)
    reset, emptied = attention.look(header, weights, memory, x, torch.tensor([[False, True, False]]))
    empty, new = attention.look(header, weights, attention.begin(header, x, 1, 3), x, no)
    assert torch.equal(reset[0, [0, 2]], plain[0, [0, 2]])
    assert torch.equal(reset[0, 1], empty[0, 1])
    assert not torch.equal(reset[0, 1], plain[0, 1])
    for name in kept:
        assert torch.equal(emptied[name][0, [0, 2]], kept[name][0, [0, 2]])
        assert torch.equal(emptied[name][0, 1], new[name][0, 1]), "nothing of the trial before is left behind"
    assert emptied[KEPT_STEPS].tolist() == [[7, 1, 7]]


def test_a_step_takes_the_place_of_the_oldest(make_spec: MakeSpec) -> None:
    header = sized(make_spec(), span=2, layers=1)
    weights = networks.stack(fresh(header), 1)
    memory = attention.begin(header, torch.zeros(1, dtype=torch.float64), 1, 1)
    slots = []
    for t in range(3):
        _, memory = attention.look(header, weights, memory, seen(header, 1, 1, seed=t), torch.tensor([[t == 0]]))
        slots.append(torch.cat([memory[kept_keys(0)], memory[kept_values(0)]], -1)[0, 0])
    assert slots[0].shape == (2, 2, 8)
    assert not slots[0][:, 1].any()
    assert torch.equal(slots[1][:, 0], slots[0][:, 0])
    assert torch.equal(slots[2][:, 1], slots[1][:, 1])
    assert not torch.equal(slots[2][:, 0], slots[1][:, 0])


@settings(max_examples=40, deadline=None)
@given(
    b=st.integers(2, 9),
    rows=st.integers(1, 4),
    width=st.sampled_from([2, 4, 6, 16]),
    heads=st.sampled_from([1, 2, 4]),
    span=st.sampled_from([1, 5, 16, 60]),
    seed=st.integers(0, 99),
)
def test_what_a_row_computes_does_not_depend_on_its_company(
    make_spec: MakeSpec, b: int, rows: int, width: int, heads: int, span: int, seed: int
) -> None:
    header = sized(make_spec(action=Discrete(3)), span=span, size=heads * width, heads=heads)
    shared = fresh(header, seed, torch.float32)
    rng = torch.Generator().manual_seed(seed)
    memory = {
        name: torch.randint(0, 2 * span, (b, rows), generator=rng)
        if name == KEPT_STEPS
        else torch.randn(value.shape, generator=rng)
        for name, value in attention.begin(header, torch.zeros(1), b, rows).items()
    }
    x = seen(header, b, rows, seed=seed, dtype=torch.float32)
    first = torch.rand(b, rows, generator=rng) < 0.3
    y, after = attention.look(header, recurrent.share(shared, b), memory, x, first)
    alone = recurrent.share(shared, 1)
    for i in range(b):
        its = {name: value[i : i + 1] for name, value in memory.items()}
        own, kept = attention.look(header, alone, its, x[i : i + 1], first[i : i + 1])
        assert torch.equal(own, y[i : i + 1])
        assert all(torch.equal(kept[name], after[name][i : i + 1]) for name in after)


def test_weights_at_the_start(make_spec: MakeSpec) -> None:
    header = sized(make_spec(Box.of(-1, 1, (2,)), Box.of(-1, 1, (2,))))
    weights = attention.initial_weights(header, np.random.default_rng(0), last_layer_scale=0.01, initial_log_std=-2.0)
    shapes = weight_shapes(header) | recurrent.value_shapes(header)
    assert {name: tuple(value.shape) for name, value in weights.items()} == shapes
    assert weights["policy.layers.1.weight"].abs().max() < 0.01
    assert weights["log_std"].tolist() == [-2.0, -2.0]
    assert all(not value.any() for name, value in weights.items() if name.endswith("bias"))
    # Four layers add to the stream: half of what Xavier would give each.
    assert weights["blocks.0.mix.weight"].abs().max() == pytest.approx(math.sqrt(6 / 16) / 2, rel=0.1)
    assert weights["blocks.1.narrow.weight"].abs().max() == pytest.approx(math.sqrt(6 / 24) / 2, rel=0.1)
