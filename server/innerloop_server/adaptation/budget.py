"""When a session ends by itself. Pure."""

from __future__ import annotations

from innerloop_server.adaptation.messages import EndReason
from innerloop_server.domain import Budget
from innerloop_server.errors import InvalidField
from innerloop_server.settings import Limits


def check(budget: Budget, limits: Limits, *, simulated: bool, field: str = "open.budget") -> None:
    """Refuse a budget that cannot be.

    Raises:
        InvalidField: a bound that is not positive or above the server's limit, or none at all for a simulated session.
    """
    for name, value, most in (
        ("steps", budget.steps, limits.steps),
        ("episodes", budget.episodes, limits.episodes),
    ):
        if value is not None and not 1 <= value <= most:
            raise InvalidField(f"{field}.{name}", f"{value} is not in 1 to {most}")
    if budget.seconds is not None and not 0 < budget.seconds < float("inf"):
        raise InvalidField(f"{field}.compute_seconds", f"{budget.seconds} is not a positive number of seconds")
    if budget.target_return is not None and not abs(budget.target_return) < float("inf"):
        raise InvalidField(f"{field}.target_return", "is not finite")
    bounds = (budget.steps, budget.episodes, budget.seconds)
    if simulated and not budget.auto and all(bound is None for bound in bounds):
        raise InvalidField(field, "a simulated session needs a bound: set steps, episodes, compute_seconds or auto")


def reached(
    budget: Budget, *, steps: int, episodes: int, seconds: float, mean_return: float | None, worth: int | None = None
) -> EndReason | None:
    """The bound that is reached, if any.

    Args:
        budget: the session's.
        steps: taken so far.
        episodes: sampled so far, the guard's too.
        seconds: of computing so far.
        mean_return: mean sampled return of the last step's newest episodes; ``None`` before the first step.
        worth: with budget ``auto``, how many steps are worth their episodes.
    """
    if budget.target_return is not None and mean_return is not None and mean_return >= budget.target_return:
        return EndReason.TARGET_RETURN
    if budget.steps is not None and steps >= budget.steps:
        return EndReason.BUDGET_STEPS
    if budget.episodes is not None and episodes >= budget.episodes:
        return EndReason.BUDGET_EPISODES
    if budget.seconds is not None and seconds >= budget.seconds:
        return EndReason.BUDGET_SECONDS
    if worth is not None and steps >= worth:
        return EndReason.BUDGET_AUTO
    return None
