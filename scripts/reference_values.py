"""Measure what known strategies earn in a family, and keep it in the package as zoo/references/<family>.json.

Same seed, samples and versions, same numbers. What trainings left in the file stays.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from innerloop_server import zoo
from innerloop_server.evaluation.references.bandits import measure_bandit
from innerloop_server.evaluation.references.measured import Measure
from innerloop_server.evaluation.references.tabular_mdps import measure_tabular_mdp
from innerloop_server.tasks.family import Family
from innerloop_server.tasks.registry import load_registry

MEASURES: Mapping[str, Measure] = {
    "bernoulli-bandit": measure_bandit,
    "tabular-mdp": measure_tabular_mdp,
}
"""A family's own name, without options -> what measures its references."""


def main() -> int:
    """Measure every family asked for."""
    parser = argparse.ArgumentParser(prog="scripts/references", description=__doc__)
    parser.add_argument("families", nargs="+", metavar="FAMILY", help=f"with its options; one of {', '.join(MEASURES)}")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--samples", type=int, default=None, help="tasks to measure on; left out: as is customary")
    parser.add_argument("--out", type=Path, default=Path(zoo.__path__[0]) / "references")
    args = parser.parse_args()
    if args.samples is not None and args.samples < 2:
        parser.error("a standard error takes two samples or more")
    registry = load_registry()
    for name in args.families:
        if name.partition(".")[0] not in MEASURES:
            parser.error(f"nothing to measure for {name}; there are {', '.join(MEASURES)}")
        file = write(registry.get(name), args.samples, args.seed, args.out)
        print(file, file=sys.stderr, flush=True)
    return 0


def write(family: Family, samples: int | None, seed: int, out: Path) -> Path:
    """Measure one family.

    Args:
        family: with its options.
        samples: tasks to measure on; ``None``: as is customary.
        seed: of everything drawn.
        out: folder of the manifests.

    Returns:
        The file written.
    """
    began = time.perf_counter()
    measured = MEASURES[family.name.partition(".")[0]](family, samples, seed)
    command = ["scripts/references", family.name, "--seed", str(seed)]
    if samples is not None:
        command += ["--samples", str(samples)]
    how = {
        "seed": seed,
        "command": " ".join(command),
        "versions": {"python": platform.python_version(), "numpy": version("numpy")},
    }
    file = out / f"{family.name}.json"
    manifest: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    entries = {
        name: {
            "value": m.value,
            "standard_error": m.standard_error,
            "samples": m.samples,
            "unit": m.unit.value,
            "source": m.source,
            **how,
        }
        for name, m in measured.items()
    }
    trained = {name: entry for name, entry in manifest.get("references", {}).items() if "weights" in entry}
    manifest |= {"family": family.name, "references": {**entries, **trained}}
    file.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    for name, m in measured.items():
        print(f"{family.name:40} {name:24} {m.value:10.4f} +- {m.standard_error:.4f}")
    print(f"{family.name}: {time.perf_counter() - began:.1f} s", file=sys.stderr)
    return file


if __name__ == "__main__":
    raise SystemExit(main())
