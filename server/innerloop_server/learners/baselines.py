"""Value baselines: one ridge regression a task, fitted on the episodes at hand and thrown away.

Features come from the family's declaration (``Features``), so a method needs no value network and the adaptation
state holds no critic. Duan et al. 2016 (https://arxiv.org/abs/1604.06778) introduced the linear form.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch

from innerloop_server.domain import Experience, Features
from innerloop_server.learners.returns import discount_to_end, discounted_returns, step_mask

RIDGE = 1e-5
"""Added to the diagonal of the normal equations; raised tenfold until the solution is finite."""
ATTEMPTS = 5
"""How often the ridge may be raised."""
OBSERVATION_LIMIT = 10.0
"""Observations are clipped to this on either side before features are made of them."""
LINEAR_TIME_UNIT = 100.0
"""Steps in one unit of time for linear features (polynomial ones count in horizons)."""


@dataclass(frozen=True)
class Values:
    """What a fitted baseline says about the episodes it was fitted on, float64."""

    v_t: torch.Tensor
    """[B, N, T]; zero at padded steps."""
    v_final: torch.Tensor
    """[B, N]: of ``final_observations`` where the episode was cut; zero where it ended."""


def features(kind: Features, observations: torch.Tensor, steps: torch.Tensor, horizon: int) -> torch.Tensor:
    """Features of observation and time.

    Args:
        kind: the family's declaration.
        observations: [..., O] flattened.
        steps: [...] int64, the step of the task's episode; held at ``horizon`` past it, so that an endless episode
            does not leave the range the cubic was fitted on.
        horizon: of the family.

    Returns:
        [..., F] float64.

    Raises:
        ValueError: an unknown kind, or a negative degree.
    """
    o = observations.to(torch.float64).clamp(-OBSERVATION_LIMIT, OBSERVATION_LIMIT)
    step = steps.clamp(max=horizon).to(torch.float64).unsqueeze(-1)
    one = torch.ones_like(step)
    if kind.kind == "linear":
        t = step / LINEAR_TIME_UNIT
        return torch.cat([o, o * o, t, t * t, t * t * t, one], -1)
    if kind.kind == "polynomial" and kind.degree >= 0:
        t = step / horizon
        return torch.cat([one, *_monomials(o, kind.degree), t, t * t, t * t * t], -1)
    raise ValueError(f"no features of kind {kind.kind!r} and degree {kind.degree}")


def _monomials(o: torch.Tensor, degree: int) -> list[torch.Tensor]:
    """Every product of 1 to ``degree`` columns of ``o`` [..., O], each [..., 1]."""
    columns = o.unbind(-1)
    products: list[torch.Tensor] = []
    for size in range(1, degree + 1):
        for chosen in itertools.combinations_with_replacement(columns, size):
            product = chosen[0]
            for column in chosen[1:]:
                product = product * column
            products.append(product.unsqueeze(-1))
    return products


def ridge(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Least squares of ``y`` on ``x`` with a small ridge, each task by itself.

    Args:
        x: [B, M, F] float64; rows of zeros have no say.
        y: [B, M] float64.

    Returns:
        [B, F] coefficients; zeros for a task that no ridge made finite.
    """
    # One product for both sides: a product with a single column goes to a kernel that rounds otherwise for one task
    # than for several, and what a task computes must not depend on its company.
    z = torch.cat([x, y.unsqueeze(-1)], -1)
    products = torch.bmm(z.transpose(1, 2), z)
    gram, moment = products[:, :-1, :-1], products[:, :-1, -1:]
    eye = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
    solution = torch.zeros_like(moment)
    open_ = torch.ones(x.shape[0], dtype=torch.bool, device=x.device)
    strength = RIDGE
    for _ in range(1 + ATTEMPTS):
        # LU and not Cholesky: batched LU gives a task the same bits whatever its company.
        attempt, info = torch.linalg.solve_ex(gram + strength * eye, moment)
        good = open_ & (info == 0) & torch.isfinite(attempt).all(-1).all(-1)
        solution = torch.where(good[:, None, None], attempt, solution)
        open_ = open_ & ~good
        if not bool(open_.any()):
            break
        strength *= 10
    return solution.squeeze(-1)


def fit_values(
    kind: Features,
    experience: Experience[torch.Tensor],
    observations: torch.Tensor,
    final: torch.Tensor,
    horizon: int,
    discount: float,
) -> Values:
    """Fit each task's baseline on its own episodes and evaluate it there.

    An episode that was cut goes on after its last observation f, whose value the same regression gives:
    ``w.phi(o_t) = R_t + discount^(L-t) w.phi(f)``, so its rows are regressed as
    ``w.(phi(o_t) - discount^(L-t) phi(f)) = R_t``: still least squares, no second pass.

    Args:
        kind: the family's declaration.
        experience: the episodes.
        observations: [B, N, T, O] ``experience.observations`` flattened.
        final: [B, N, O] ``experience.final_observations`` flattened.
        horizon: of the family.
        discount: per step.
    """
    b, n, capacity = experience.rewards.shape
    mask = step_mask(experience.lengths, capacity)
    begin = experience.time_offset
    steps = begin.unsqueeze(-1) + torch.arange(capacity, device=begin.device)
    phi_t = features(kind, observations, steps, horizon) * mask.unsqueeze(-1)
    phi_final = features(kind, final, begin + experience.lengths, horizon)
    phi_final = phi_final * (experience.bootstrap & (experience.lengths > 0)).unsqueeze(-1)
    to_end = discount_to_end(experience.lengths, capacity, discount, torch.float64)
    x = phi_t - to_end.unsqueeze(-1) * phi_final.unsqueeze(2)
    y = discounted_returns(experience.rewards.to(torch.float64), discount) * mask
    w = ridge(x.reshape(b, n * capacity, -1), y.reshape(b, n * capacity))
    return Values((phi_t * w[:, None, None]).sum(-1), (phi_final * w[:, None]).sum(-1))
