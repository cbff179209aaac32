"""The command line of the server: what it takes, and what it says to what it does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from innerloop_server.arguments import parse

TOKENS = """
operators = ["ann"]
[tokens]
"ann-secret" = "ann"
"bob.secret" = "bob"
"""


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    with pytest.raises(SystemExit) as caught:
        parse(argv)
    assert caught.value.code == 2
    return capsys.readouterr().err


def tokens_file(folder: Path, text: str) -> str:
    path = folder / "tokens.toml"
    path.write_text(text)
    return str(path)


def test_defaults_are_loopback_without_tokens() -> None:
    settings = parse([]).settings
    assert (settings.host, settings.port, settings.tokens, settings.tls) == ("127.0.0.1", 50551, {}, None)


def test_tokens_and_operators_are_read(tmp_path: Path) -> None:
    settings = parse(["--tokens-file", tokens_file(tmp_path, TOKENS)]).settings
    assert settings.tokens == {"ann-secret": "ann", "bob.secret": "bob"}
    assert settings.operators == ("ann",)
    assert "ann-secret" not in repr(settings)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "gives no tokens"),
        ("[tokens]", "gives no tokens"),
        ('ann-secret = "ann"', "ann-secret outside [tokens]"),
        ('[tokens]\n"a" = "ann"\noperators = ["ann"]', "operators"),
        ('[tokens]\na.b = "ann"', "quotes and all"),
        ('[tokens]\n"a" = ""', "names a principal"),
        ('operators = "ann"\n[tokens]\n"a" = "ann"', "list of principals"),
        ("[tokens", "cannot be read"),
    ],
)
def test_a_tokens_file_that_would_leave_the_server_open_is_refused(
    text: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(capsys, "--tokens-file", tokens_file(tmp_path, text))
    assert says in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (("--port", "99999"), "--port: 99999"),
        (("--admin-port", "-1"), "--admin-port: -1"),
        (("--actors", "-1"), "--actors: -1"),
        (("--lease-seconds", "nan"), "--lease-seconds: nan"),
        (("--heartbeat-seconds", "0"), "--heartbeat-seconds: 0"),
        (("--ready-file", "missing/ready.json"), "there is no folder"),
        (("--device-rows", "0"), "--device-rows: 0"),
        (("--tls-cert", "a.pem"), "--tls-key"),
        (("--tls-client-ca", "a.pem"), "needs --tls-cert"),
        (("--tokens-file", "missing.toml"), "cannot be read"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(
    argv: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(capsys, *argv)
    assert says in said
    assert said.startswith("innerloop serve: ")


def test_environments_that_clients_may_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert parse([]).settings.allowed_environments == ()
    words = ["--allow-env", "CartPole-v1", "--allow-env", "ale_py:ALE/*"]
    assert parse(words).settings.allowed_environments == ("CartPole-v1", "ale_py:ALE/*")
    for wrong in ("", "A-v1,B-v1", "A-v1 B-v1"):
        assert "repeat the option" in refused(capsys, "--allow-env", wrong)
