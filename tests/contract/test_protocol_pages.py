"""docs/protocol.md and docs/policy-format.md say what the code does."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from contract_support import a_policy

from innerloop.arrays import Box, Discrete, Space
from innerloop.policy import Header, Input, Policy, forward, weight_shapes
from innerloop_server.settings import Limits

ROOT = Path(__file__).parents[2]
PROTOCOL = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
FORMAT = (ROOT / "docs" / "policy-format.md").read_text(encoding="utf-8")

NEVER_ON_THE_WIRE = {
    "DATA_DIR_IN_USE",  # the server does not start
    "DATA_DIR_UNUSABLE",
    "INSECURE_ADDRESS",
    "NO_DEVICE",
    "PORT_TAKEN",
    "SCHEMA_TOO_NEW",
    "STEP_OUT_OF_ORDER",  # a fault of ours: caught inside
    "TRAINING_DIVERGED",  # in the record of the training
}


def reasons_in_the_code() -> set[str]:
    reason = re.compile(r"""reason(?:: str)? ?= ?"([A-Z_]+)"|Failed\([^)]*"([A-Z_]+)"\)""")
    sources = (ROOT / "server" / "innerloop_server").rglob("*.py")
    return {a or b for path in sources for a, b in reason.findall(path.read_text(encoding="utf-8"))}


def test_the_table_of_errors_has_every_reason_and_no_other():
    table = PROTOCOL.split("## Errors")[1].split("## Retries")[0]
    rows = [line.split("|")[2] for line in table.splitlines() if line.startswith("| ")]
    told = {reason for row in rows for reason in re.findall(r"`([A-Z_]+)`", row)}
    assert told == reasons_in_the_code() - NEVER_ON_THE_WIRE


def test_the_limits_are_those_of_the_settings():
    table = PROTOCOL.split("## Limits")[1]
    limits = Limits()
    for phrase in (
        f"| {limits.message_bytes // 2**20} MiB;",
        f"| rows of `observe` and `Act`, episodes of `experience` | {limits.rows_per_message:,} |",
        f"| {limits.steps:,} and {limits.episodes:,} |",
        f"| episodes a step | {limits.episodes_per_step:,} |",
        f"| active sessions of one principal | {limits.sessions_per_owner:,} |",
        f"| families that one principal has defined | {limits.families_per_owner} |",
        f"| open streams, all callers | {limits.streams} |",
    ):
        assert phrase in table


@pytest.fixture(scope="module")
def page() -> SimpleNamespace:
    (reader,) = re.findall(r"```python\n(.*?)```", FORMAT, flags=re.S)
    names: dict[str, Any] = {}
    exec(compile(reader, "docs/policy-format.md", "exec"), names)
    return SimpleNamespace(**names)


def policy_of(observation: Space, action: Space, hidden: tuple[int, ...]) -> Policy:
    wide = observation.size if isinstance(observation, Box) else 0
    deep = action.size if isinstance(action, Box) else 0
    header = Header(
        observation_space=observation,
        action_space=action,
        hidden_sizes=hidden,
        observation_shift=tuple(0.1 * i for i in range(wide)),
        observation_scale=tuple(1.0 + i for i in range(wide)),
        action_shift=(0.5,) * deep,
        action_scale=(2.0,) * deep,
    )
    rng = np.random.default_rng(5)
    return Policy(header, {n: rng.standard_normal(s, np.float32) for n, s in weight_shapes(header).items()})


POLICIES = {
    "box to discrete": policy_of(Box.of(-np.inf, np.inf, (4,)), Discrete(3), (8, 8)),
    "box to box": policy_of(Box.of(-1.0, 1.0, (2, 3)), Box(np.float32([-1, -np.inf]), np.float32([np.inf, 1])), (8,)),
    "discrete to box": policy_of(Discrete(5), Box.of(-0.7, 0.7, (2, 2)), ()),
}


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_the_reader_acts_like_the_library(page, policy):
    header, weights = page.read_policy(policy.to_bytes())
    space = policy.header.observation_space
    rng = np.random.default_rng(0)
    lead = (64, *space.shape)
    seen = rng.integers(space.n, size=lead) if isinstance(space, Discrete) else rng.standard_normal(lead, np.float32)
    np.testing.assert_allclose(page.act(header, weights, seen), policy.act(seen, greedy=True), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("started", [False, True])
@pytest.mark.parametrize("architecture", ["gru", "belief", "transformer"])
@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_the_reader_remembers_like_the_library(page, policy, architecture, started):
    sizes = {"encoder_sizes": (6,), "memory_size": 5, "latent_size": 2 * (architecture == "belief")}
    if architecture == "transformer":
        sizes |= {"memory_size": 8, "memory_layers": 2, "memory_heads": 2, "memory_span": 3}
    header = replace(policy.header, architecture=architecture, adapts=True, **sizes)
    rng = np.random.default_rng(7)
    weights = {n: rng.standard_normal(s, np.float32) / 2 for n, s in weight_shapes(header).items()}
    policy = Policy(header, weights)
    space, lead = header.observation_space, (8, *header.observation_space.shape)

    def look():
        return (
            rng.integers(space.n, size=lead) if isinstance(space, Discrete) else rng.standard_normal(lead, np.float32)
        )

    if started:
        memory = policy.begin()
        policy.act(Input(look()[0], reward=np.array(1.0)), memory=memory, greedy=True)
        policy = Policy(header, weights | {f"start.{name}": array[0] for name, array in memory.items()})
    read = page.read_policy(policy.to_bytes())
    ours, theirs = policy.begin(8), page.begin(*read, 8)
    assert set(ours) == set(theirs)
    reward, terminated, truncated, end = None, None, None, None
    for _ in range(6):
        seen = look()
        action = policy.act(Input(seen, None, reward, terminated, truncated, end), memory=ours, greedy=True)
        if reward is not None:
            flags = {"terminated": terminated, "truncated": truncated, "trial_end": end, "reward": reward}
            theirs |= {f"last.{name}": value for name, value in flags.items()}
        told, theirs = page.act_with_memory(*read, theirs, seen)
        np.testing.assert_allclose(told, action, rtol=1e-5, atol=1e-5)
        for name in ours:
            if not name.startswith("last."):
                np.testing.assert_allclose(theirs[name], ours[name], rtol=1e-5, atol=1e-5)
        reward = rng.standard_normal(8).astype(np.float32)
        terminated, truncated, end = (rng.random(8) < 0.3 for _ in range(3))


def test_the_reader_samples_the_same_distribution(page):
    n = 20_000
    policy = POLICIES["box to discrete"]
    seen = np.tile(np.float32([0.3, -0.2, 0.5, 0.1]), (n, 1))
    logits = forward(policy.header, policy.weights, seen[:1])["logits"][0].astype(float)
    p = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    drawn = page.act(*page.read_policy(policy.to_bytes()), seen, np.random.default_rng(1))
    np.testing.assert_allclose(np.bincount(drawn, minlength=3) / n, p, atol=4 * np.sqrt(0.25 / n))

    policy = policy_of(Box.of(-1.0, 1.0, (1,)), Box.of(-np.inf, np.inf, (1,)), ())
    seen = np.zeros((n, 1), np.float32)
    parameters = forward(policy.header, policy.weights, seen[:1])
    sigma = 2.0 * float(np.exp(parameters["log_std"][0, 0]))
    drawn = page.act(*page.read_policy(policy.to_bytes()), seen, np.random.default_rng(2))
    assert drawn.mean() == pytest.approx(0.5 + 2.0 * float(parameters["mean"][0, 0]), abs=4 * sigma / np.sqrt(n))
    assert drawn.std() == pytest.approx(sigma, rel=4 / np.sqrt(2 * n))


def test_the_reader_notices_damage(page):
    data = bytearray(a_policy().to_bytes())
    data[-1] ^= 1
    with pytest.raises(AssertionError, match="damaged"):
        page.read_policy(bytes(data))


def test_the_page_names_every_field_of_the_header():
    table = FORMAT.split("## Header")[1].split("## Weights")[0]
    told = {name for line in table.splitlines() if line.startswith("| ") for name in re.findall(r"`(\w+)`", line)}
    assert set(json.loads(a_policy().header.to_json())) <= told
