"""Pages of ``docs/families``, written from the families themselves: what they say, and a picture of them.

Run it: ``scripts/family-pages [--check] [FAMILY...]``.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import gymnasium
from family_pictures import draw

from innerloop.arrays import Box, Discrete, Space
from innerloop_server.domain import Reference, ReturnUnit, Simulator
from innerloop_server.evaluation.references.catalog import references
from innerloop_server.tasks.family import Family
from innerloop_server.tasks.registry import GROUP, load_registry

FOLDER = Path("docs/families")
DISTRIBUTION = "innerloop"


def shipped() -> list[Family]:
    """The families of this distribution, by name."""
    registry = load_registry()
    ours = {e.name for e in importlib.metadata.entry_points(group=GROUP) if e.dist and e.dist.name == DISTRIBUTION}
    return [registry.get(name) for name in registry.names() if name in ours]


def page(family: Family) -> str:
    """The whole page, as Markdown."""
    env_id = f"innerloop/{type(family).__name__}-v0"
    rows = [
        ("observation", space(family.observation_space)),
        ("action", space(family.action_space)),
        ("horizon", f"{family.horizon} step{'s' * (family.horizon != 1)}"),
        ("episodes per trial", str(family.episodes_per_trial)),
        ("discount", f"{family.discount:g}"),
        ("simulators", ", ".join(family.simulators)),
        *([("supervision", f"{family.supervision}: feedback of {family.feedback_size}")] if family.supervision else []),
        ("train, validation, test", _splits(family)),
        *([("options", ", ".join(f"`{k}` ({v})" for k, v in family.options.items()))] if family.options else []),
        *([("needs", f"`{family.extra.hint}`")] if family.extra else []),
    ]
    lines = [
        "<!-- written by scripts/family-pages: change the family, not this page -->",
        f"# {family.name}",
        "",
        f"{family.title}.",
        "",
        f"![{family.name}]({family.name}.png)",
        "",
        family.description,
        "",
        *table(("", ""), rows),
        "",
        "## Hidden parameters",
        "",
        *table(("name", "space"), [(f"`{n}`", parameter(p)) for n, p in family.parameter_space.spaces.items()]),
        "",
        "## References",
        "",
        *_references(references(family)),
        "",
        "## In your own loop",
        "",
        "```python",
        "import gymnasium",
        "import innerloop_server.tasks.gymnasium  # registers the families",
        "",
        f'env = gymnasium.make("{env_id}", task="families/{family.name}/tasks/test-0-0")',
        "observation, info = env.reset(seed=0)",
        "```",
    ]
    return "\n".join(lines) + "\n"


def space(value: Space) -> str:
    """A space in words."""
    if isinstance(value, Discrete):
        return f"Discrete, {value.n} values"
    return f"Box {list(value.shape)}, {bounds(value)}"


def bounds(box: Box | gymnasium.spaces.Box) -> str:
    """Lowest and highest number."""
    return f"{box.low.min():.4g} to {box.high.max():.4g}"


def parameter(value: gymnasium.Space[Any]) -> str:
    """A parameter's space in words."""
    if isinstance(value, gymnasium.spaces.Discrete):
        return f"Discrete, {value.start} to {value.start + value.n - 1}"
    if isinstance(value, gymnasium.spaces.Box):
        shape = f"Box {list(value.shape)}, " if value.shape else ""
        return f"{shape}{bounds(value)}"
    return str(value)


def table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    """A Markdown table's lines."""
    return [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}", *(f"| {' | '.join(row)} |" for row in rows)]


def _splits(family: Family) -> str:
    if family.splits_share_tasks:
        return "share their tasks: there are too few to keep apart"
    return "three streams that never meet"


def _references(found: tuple[Reference, ...]) -> list[str]:
    if not found:
        return [
            "None is known. `scripts/train-references` trains the memoryless bound and the oracle, where there is a "
            "settings file.",
        ]
    rows = [
        (
            r.name,
            f"{r.value:.4f}".rstrip("0").rstrip("."),
            f"{'an' if r.unit is ReturnUnit.EPISODE else 'a'} {r.unit}",
            r.source,
        )
        for r in found
    ]
    return table(("name", "mean return", "of", "source"), rows)


def index(families: Iterable[Family]) -> list[str]:
    """The table of ``docs/families.md``, between its markers."""
    rows = [
        (
            f"[`{f.name}`](families/{f.name}.md)",
            f.title,
            f"{f.horizon} × {f.episodes_per_trial}",
            ", ".join(s for s in Simulator if s in f.simulators),
            ", ".join(r.name for r in references(f)) or "none",
            f.extra.name if f.extra else "",
        )
        for f in families
    ]
    return table(("family", "what it is", "steps × episodes", "simulators", "references", "extra"), rows)


BEGIN, END = "<!-- families: written by scripts/family-pages -->", "<!-- families end -->"


def indexed(text: str, families: Iterable[Family]) -> str:
    """``docs/families.md`` with its table renewed."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return "\n".join([before + BEGIN, *index(families), END]) + after


def main() -> int:
    """Write, or compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    parser.add_argument("families", nargs="*", help="only these")
    arguments = parser.parse_args()
    families = [f for f in shipped() if not arguments.families or f.name in arguments.families]
    if unknown := set(arguments.families) - {family.name for family in families}:
        parser.error(f"not shipped: {', '.join(sorted(unknown))}")
    wanted = {FOLDER / f"{family.name}.md": page(family) for family in families}
    overview = FOLDER.with_suffix(".md")
    if not arguments.families:
        wanted[overview] = indexed(overview.read_text(encoding="utf-8"), families)
    if arguments.check:
        stale = [p for p, text in wanted.items() if not p.is_file() or p.read_text(encoding="utf-8") != text]
        stale += [p for f in families if not (p := FOLDER / f"{f.name}.png").is_file()]
        for file in stale:
            print(f"{file} does not say what the code does; run scripts/family-pages", file=sys.stderr)
        return 1 if stale else 0
    FOLDER.mkdir(exist_ok=True)
    for file, text in wanted.items():
        file.write_text(text, encoding="utf-8")
    for family in families:
        draw(family, FOLDER / f"{family.name}.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
