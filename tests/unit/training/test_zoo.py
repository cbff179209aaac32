from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog.testing

sys.path.insert(0, str(Path(__file__).parents[2]))  # training_support
from training_support import tiny_run, tiny_settings

from innerloop_server.errors import DataLoss, PreconditionFailed
from innerloop_server.store.store import Store
from innerloop_server.tasks.registry import Registry, load_registry
from innerloop_server.training import candidates, zoo
from innerloop_server.training.run import RunFolder
from innerloop_server.training.trainer import train

LEARNER = "navigation-2d-maml"
REGISTRY = load_registry()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "data") as opened:
        yield opened


def a_run(path: Path, seed_of_update: int = 1) -> RunFolder:
    """A finished run whose result was scored."""
    folder = tiny_run(path, updates=seed_of_update)
    train(folder, lambda _: None, lambda: False)
    candidate = candidates.read(folder, seed_of_update)
    manifest = {**candidate.manifest, "validation": {"protocol": {}, "scores": []}}
    candidates.write(folder, seed_of_update, candidate.path.read_bytes(), manifest)
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[RunFolder]:
    root = tmp_path_factory.mktemp("runs")
    return [a_run(root / str(updates), updates) for updates in (1, 2)]


def test_install_upgrade_and_again(store: Store, tmp_path: Path, runs: list[RunFolder]) -> None:
    directory = tmp_path / "zoo"
    directory.mkdir()
    zoo.export(runs[0], directory)
    (added,) = zoo.install_zoo(store, REGISTRY, directory)
    learner = store.get_learner(LEARNER)
    assert (learner.owner, learner.champion, added.number, added.promoted) == ("", 1, 1, True)
    assert added.manifest["command"].startswith("scripts/train")
    assert zoo.install_zoo(store, REGISTRY, directory) == []
    zoo.export(runs[1], directory)
    (newer,) = zoo.install_zoo(store, REGISTRY, directory)
    assert (newer.number, newer.promoted) == (2, True)
    assert store.get_learner(LEARNER).champion == 2


def test_what_was_promoted_here_is_not_displaced(store: Store, tmp_path: Path, runs: list[RunFolder]) -> None:
    directory = tmp_path / "zoo"
    directory.mkdir()
    zoo.export(runs[0], directory)
    (shipped,) = zoo.install_zoo(store, REGISTRY, directory)
    own = store.add_revision(LEARNER, store.read_blob(shipped.blob), {"training": "t1"})
    store.promote(LEARNER, own.number)
    zoo.export(runs[1], directory)
    (newer,) = zoo.install_zoo(store, REGISTRY, directory)
    assert not newer.promoted
    assert store.get_learner(LEARNER).champion == own.number


def test_a_family_that_is_not_installed_is_left_out(store: Store, tmp_path: Path, runs: list[RunFolder]) -> None:
    zoo.export(runs[0], tmp_path)
    with structlog.testing.capture_logs() as logs:
        assert zoo.install_zoo(store, Registry({}), tmp_path) == []
    assert [log["reason"] for log in logs] == ["family navigation-2d is not installed"]


def test_damage_and_a_learner_in_the_way(store: Store, tmp_path: Path, runs: list[RunFolder]) -> None:
    target = zoo.export(runs[0], tmp_path)
    store.put_learner(tiny_settings(hidden_sizes=[9]).spec)
    with structlog.testing.capture_logs() as logs:
        assert zoo.install_zoo(store, REGISTRY, tmp_path) == []
    assert [log["reason"] for log in logs] == ["the learner of that name here has other hidden_sizes"]
    (target / "meta.safetensors").write_bytes(b"x")
    with pytest.raises(DataLoss, match="does not match its manifest"):
        zoo.install_zoo(store, REGISTRY, tmp_path)


def test_only_finished_and_scored_runs_are_shipped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tiny_run(tmp_path / "run")
    with pytest.raises(PreconditionFailed, match="not finished"):
        zoo.export(folder, tmp_path)
    train(folder, lambda _: None, lambda: False)
    with pytest.raises(PreconditionFailed, match="no validation scores"):
        zoo.export(folder, tmp_path)
    assert zoo.main([str(folder.path), "--zoo", str(tmp_path)]) == 1
    assert "run its command again" in capsys.readouterr().err


def test_what_this_package_ships_is_sound() -> None:
    for item in zoo.shipped():
        assert item.spec.family in REGISTRY.families
        assert item.manifest["validation"]["scores"]
        assert item.manifest["command"].startswith(f"scripts/train {item.spec.family} ")
