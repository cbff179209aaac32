import hashlib
import json

import numpy as np
import pytest
import torch

from innerloop.policy import Policy, load_policy
from innerloop_server.actors.pool import ActorPool
from innerloop_server.domain import Split
from innerloop_server.errors import NotFound
from innerloop_server.tasks.registry import load_registry
from innerloop_server.tasks.sampling import sample_task
from innerloop_server.training import references, train_references
from innerloop_server.training.episodes import actor_collector, batch_collector

FAMILY = load_registry().get("pendulum-dynamics")
SMALL = {"updates": 2, "tasks_per_update": 4, "hidden_sizes": [4], "minibatches": 2, "value_unit": 100.0}


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("kind", references.KINDS)
def test_the_same_seed_trains_the_same_policy(kind: str) -> None:
    seen, learner = references.bind(FAMILY, kind, SMALL)
    told: list[int] = []
    first, same, other = (
        references.train(seen, learner, batch_collector(seen), seed, lambda update, mean: told.append(update))
        for seed in (0, 0, 1)
    )
    assert told == [1, 2] * 3
    assert first.environment_steps == 2 * 4 * 200
    assert first.curve == same.curve != other.curve
    assert all(torch.equal(first.meta[name], same.meta[name]) for name in first.meta)
    assert any(not torch.equal(first.meta[name], learner.initial_meta(0)[name]) for name in first.meta)


def test_returns_are_of_each_task() -> None:
    seen, learner = references.bind(FAMILY, "memoryless", SMALL)
    meta, collect = learner.initial_meta(0), batch_collector(seen)
    tasks = [sample_task(FAMILY, 1, Split.TEST, index) for index in range(3)]
    episodes = collect(learner, meta, tasks, 2, 5, True)
    assert episodes.rewards.shape == (1, 6, 200)
    found = references.returns(learner, meta, collect, tasks, 2, 5, greedy=True)
    expected = episodes.rewards[0].sum(-1).double().numpy().reshape(3, 2).mean(-1)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_policy_that_is_told_one_task_acts_as_the_oracle_that_sees_it() -> None:
    _, oracle = references.bind(FAMILY, "oracle", {**SMALL, "last_layer_scale": 1.0})
    _, plain = references.bind(FAMILY, "memoryless", SMALL)
    meta = oracle.initial_meta(3)
    header, weights = oracle.export(meta, oracle.begin(meta, 1))
    told = np.linspace(-1, 1, 5).astype(np.float32)
    fixed = {"policy/" + name: value for name, value in references.folded(weights[0], told).items()}
    observations = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
    want = Policy(header, weights[0]).act(np.concatenate([observations, np.tile(told, (7, 1))], 1), greedy=True)
    plain_header, plain_weights = plain.export(fixed, plain.begin(fixed, 1))
    got = Policy(plain_header, plain_weights[0]).act(observations, greedy=True)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("better", [True, False])
def test_an_oracle_told_one_task_counts_as_memoryless_where_it_is_better(tmp_path, monkeypatch, better: bool) -> None:
    monkeypatch.setattr(references, "settings", lambda family, kind: SMALL)
    monkeypatch.setattr(train_references, "draw_tasks", lambda family, plan: [sample_task(family, 1, Split.TEST, 0)])
    scores = iter([-5.0, -5.0, -5.0, -5.0, *([-1.0, -2.0] if better else [-7.0, -6.0])])
    monkeypatch.setattr(references, "returns", lambda *args, greedy: np.array([next(scores)]))
    monkeypatch.setattr(references, "told_one", lambda family, learner, *rest: (learner.initial_meta(0), -1.0))
    assert train_references.main(["pendulum-dynamics", "--out", str(tmp_path)]) == 0
    entry = json.loads((tmp_path / "pendulum-dynamics.json").read_text())["references"]["memoryless"]
    told = max(entry["told_one"][acting]["mean"] for acting in ("greedy", "sampled"))
    assert (entry["value"], told) == ((-1.0, -1.0) if better else (-5.0, -6.0))
    assert entry["weights"] == f"pendulum-dynamics-{'told-one' if better else 'memoryless'}.safetensors"
    assert hashlib.sha256((tmp_path / entry["weights"]).read_bytes()).hexdigest() == entry["sha256"]


def test_a_family_without_settings_says_what_to_write() -> None:
    with pytest.raises(NotFound, match=r"configs/oracle/nobody\.toml"):
        references.settings("nobody", "oracle")


def test_every_settings_file_is_of_a_family_and_trains_both_kinds() -> None:
    for kind in references.KINDS:
        files = (references.CONFIGS / references.METHODS[kind]).iterdir()
        names = {file.name.removesuffix(".toml") for file in files} - {"default"}
        assert {"halfcheetah-direction", "ant-goal", "humanoid-direction", "walker2d-parameters"} <= names
        for name in names:
            family = load_registry().get(name)
            seen, learner = references.bind(family, kind, references.settings(name, kind))
            assert learner.settings.updates > 0
            assert (seen is family) == (kind == "memoryless")


def test_the_command_keeps_every_run_and_the_best_policies(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(references, "settings", lambda family, kind: SMALL)
    monkeypatch.setattr(train_references, "draw_tasks", lambda family, plan: [sample_task(family, 1, Split.TEST, 0)])
    assert train_references.main(["pendulum-dynamics", "--seeds", "3", "4", "--out", str(tmp_path)]) == 0
    manifest = json.loads((tmp_path / "pendulum-dynamics.json").read_text())
    for kind in references.KINDS:
        entry = manifest["references"][kind]
        assert entry["command"] == f"scripts/train-references pendulum-dynamics --kinds {kind} --seeds 3 4"
        assert [run["seed"] for run in entry["runs"]] == [3, 4]
        best = max(
            (run[acting]["mean"], run["seed"], acting) for run in entry["runs"] for acting in ("greedy", "sampled")
        )
        told = [entry["told_one"][acting]["mean"] for acting in ("greedy", "sampled")] if kind == "memoryless" else []
        assert entry["value"] == max([best[0], *told])
        if entry["value"] == best[0]:
            assert (entry["seed"], entry["acting"]) == best[1:]
        assert load_policy(tmp_path / entry["weights"]).header.learner == f"pendulum-dynamics-{kind}"
    said = capsys.readouterr().out
    assert [f"{manifest['references'][kind]['value']:.2f}" in said for kind in references.KINDS] == [True, True]

    # A measured entry stays, and a setting that is new since has its default: another seed is added to those that ran
    # already; nothing else changes.
    manifest["references"]["measured"] = {"value": 1.0, "source": "measured"}
    del manifest["references"]["memoryless"]["settings"]["lowest_log_std"]
    (tmp_path / "pendulum-dynamics.json").write_text(json.dumps(manifest))
    trained: list[int] = []
    train = references.train
    monkeypatch.setattr(references, "train", lambda *args: trained.append(args[3]) or train(*args))
    arguments = ["pendulum-dynamics", "--kinds", "memoryless", "--seeds", "3", "4", "5", "--out", str(tmp_path)]
    assert train_references.main(arguments) == 0
    after = json.loads((tmp_path / "pendulum-dynamics.json").read_text())["references"]
    assert trained == [5]
    assert after["oracle"] == manifest["references"]["oracle"]
    assert after["memoryless"]["runs"][:2] == manifest["references"]["memoryless"]["runs"]
    assert [run["seed"] for run in after["memoryless"]["runs"]] == [3, 4, 5]
    assert after.pop("measured") == {"value": 1.0, "source": "measured"}
    for entry in after.values():
        assert hashlib.sha256((tmp_path / entry["weights"]).read_bytes()).hexdigest() == entry["sha256"]

    # Other settings start anew.
    monkeypatch.setattr(references, "settings", lambda family, kind: {**SMALL, "updates": 1})
    assert train_references.main([*arguments[:4], "3", "--out", str(tmp_path)]) == 0
    anew = json.loads((tmp_path / "pendulum-dynamics.json").read_text())["references"]
    assert [run["updates"] for run in anew["memoryless"]["runs"]] == [1]


def test_actors_run_the_same_kind_of_episodes() -> None:
    seen, learner = references.bind(FAMILY, "oracle", SMALL)
    tasks = [sample_task(seen, 1, Split.TEST, index) for index in range(3)]
    with ActorPool(1, 8) as pool:
        collect = actor_collector(pool)
        meta = learner.initial_meta(0)
        episodes = collect(learner, meta, tasks, 2, 0, False)
        again = collect(learner, meta, tasks, 2, 0, False)
    assert episodes.observations.shape == (1, 6, 200, 8)
    assert torch.equal(episodes.rewards, again.rewards)
    # What stands in view is each task's own.
    shown = episodes.observations[0, :, 0, 3:].reshape(3, 2, 5)
    assert torch.equal(shown[:, 0], shown[:, 1])
    assert not torch.equal(shown[0], shown[1])
