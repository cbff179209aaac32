"""``kill -9`` of the server, twenty times: every acknowledged step survives, none is applied twice, and the policy is
that of an undisturbed twin.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # harness
from harness import learners
from harness.clients import lost
from harness.scenarios import QUICK, THOROUGH, Scenario
from harness.server import ServerProcess, served

pytestmark = pytest.mark.faults


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    data_dir = tmp_path_factory.mktemp("twins") / "data"
    learners.install(data_dir)
    with served(data_dir, actors=1) as server:
        yield server


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    made = tmp_path / "data"
    learners.install(made)
    return made


def test_there_are_twenty_points() -> None:
    assert sum(len(scenario.points) for scenario in (*QUICK, *THOROUGH)) == 20


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "scenario",
    [
        *(pytest.param(scenario, id=scenario.name) for scenario in QUICK),
        *(pytest.param(scenario, id=scenario.name, marks=pytest.mark.slow) for scenario in THOROUGH),
    ],
)
def test_nothing_acknowledged_is_lost(scenario: Scenario, data_dir: Path, undisturbed: ServerProcess) -> None:
    twin = scenario.client("twin-of-" + scenario.name.replace(" ", "-"))
    twin.run(undisturbed.address)
    client = scenario.client("killed")
    found: list[int | None] = []
    for point in scenario.points:
        with served(data_dir, point, actors=scenario.actors) as server:
            with lost():
                client.run(server.address)
            assert server.was_killed_at_its_point()
        found.append(client.found)
    with served(data_dir, actors=scenario.actors) as server:
        client.run(server.address)
    found.append(client.found)
    equal = (client.acknowledged, client.policy) == (twin.acknowledged, twin.policy)
    for point, step in zip(scenario.points, found[1:], strict=True):
        print(f"| {scenario.name} | `{point}` | yes | {step} | {'yes' if equal else 'NO'} |")  # noqa: T201 - the record
    assert client.acknowledged == twin.acknowledged
    assert client.policy == twin.policy
