"""Resource names: what people type, as what the wire wants."""

from __future__ import annotations

import re


def resource(collection: str, name: str) -> str:
    """``navigation-2d`` as ``families/navigation-2d``; a full name as it is.

    Raises:
        ValueError: the name is empty.
    """
    if not name:
        raise ValueError(f"a name is needed, such as {collection}/...")
    return name if name.startswith(f"{collection}/") else f"{collection}/{name}"


def short(name: str) -> str:
    """``families/navigation-2d`` as ``navigation-2d``: what a table shows."""
    return name.split("/", 1)[-1]


def default_learner(family: str, method: str) -> str:
    """The id of a family's learner that nobody named otherwise, as the server makes it: ids are of [a-z0-9-], a family
    with options has dots (``bernoulli-bandit.arms-10``: ``bernoulli-bandit-arms-10-maml``).
    """
    return re.sub("[^a-z0-9-]", "-", f"{family}-{method}".lower())


def learner_of(name: str) -> str:
    """The learner that a revision belongs to: ``learners/l/revisions/3`` as ``learners/l``."""
    return name.split("/revisions/")[0]
