from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

import innerloop
from innerloop import _server_process, errors

CHILD = Path(__file__).parent / "fake_child.py"


@pytest.fixture
def child(monkeypatch):
    def use(mode: str) -> None:
        monkeypatch.setattr(_server_process, "server_command", lambda: [sys.executable, str(CHILD), mode])

    return use


def test_serves_and_stops(child, tmp_path):
    child("serves")
    with innerloop.embedded(tmp_path, device="cpu") as client:
        assert len(client.families()) == 3
        given = json.loads((tmp_path / "arguments.json").read_text())
        assert given["host"] == "127.0.0.1"
        assert given["port"] == "0"
        assert given["device"] == "cpu"
        assert given["ppid"] == int(given["parent_pid"]) == os.getpid()
        assert client.address.startswith("127.0.0.1:")
        assert client.log_path.read_text() == "hello from the child\n"
        scratch = Path(given["ready_file"]).parent
        assert client._server.alive
    assert not client._server.alive
    assert (tmp_path / "drained").exists()
    assert not scratch.exists()
    client.close()


def test_a_temporary_data_directory_goes_with_it(child):
    child("serves")
    client = innerloop.embedded()
    data_dir = client.data_dir
    assert data_dir.is_dir()
    client.close()
    assert not data_dir.exists()


def test_one_that_dies_shows_its_log(child, tmp_path):
    child("dies")
    with pytest.raises(errors.ServerFailed, match="exit code 3") as caught:
        innerloop.embedded(tmp_path)
    assert caught.value.log_tail == "hello from the child\nthe disk is full"
    assert "the disk is full" in caught.value.message


def test_an_option_that_the_server_does_not_have_is_named(child, tmp_path):
    child("serves")
    with pytest.raises(TypeError, match="unknown option 'actrs'"):
        innerloop.embedded(tmp_path, device="cpu", actrs=1)


def test_one_that_never_serves_is_ended(child, tmp_path):
    child("never")
    with pytest.raises(errors.ServerFailed, match="did not become ready in time"):
        innerloop.embedded(tmp_path, start_timeout=1)


def test_one_that_will_not_stop_is_killed(child, tmp_path, monkeypatch):
    child("deaf")
    monkeypatch.setattr(_server_process, "STOP_SECONDS", 0.2)
    client = innerloop.embedded(tmp_path)
    client.close()
    assert not client._server.alive
    assert not (tmp_path / "drained").exists()


def test_missing_parts_are_named(monkeypatch):
    find = _server_process.importlib.util.find_spec
    monkeypatch.setattr(_server_process.importlib.util, "find_spec", lambda n: None if n == "torch" else find(n))
    with pytest.raises(errors.ServerNotInstalled, match=r"pip install 'innerloop\[server\]'") as caught:
        innerloop.embedded()
    assert caught.value.facts["missing"] == "torch"


def test_flags():
    options = {"admin_port": 0, "insecure": True, "device": None, "no_batching": False, "log_format": "json"}
    assert _server_process.flags(options) == ["--admin-port", "0", "--insecure", "--log-format", "json"]
    assert _server_process.flags({"allow_env": ["A-v1", "B-*"], "other": ()}) == [
        "--allow-env",
        "A-v1",
        "--allow-env",
        "B-*",
    ]
