"""The command line of ``python -m innerloop_server`` (``innerloop serve`` passes its own through)."""

from __future__ import annotations

import argparse
import math
import os
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from innerloop_server.errors import InvalidField
from innerloop_server.settings import Settings, Tls

DEFAULT_DATA_DIR = "~/.local/share/innerloop"


@dataclass(frozen=True)
class Arguments:
    """What was typed."""

    settings: Settings
    ready_file: Path | None
    """Where to write the address when the server serves."""


def parse(argv: Sequence[str] | None = None) -> Arguments:
    """Read the command line; exits with 2 and a usage line where it cannot be."""
    parser = _parser()
    args = parser.parse_args(argv)
    try:
        return Arguments(_settings(args), args.ready_file)
    except InvalidField as error:
        parser.exit(2, f"innerloop serve: {error.message}\n")


def _parser() -> argparse.ArgumentParser:
    default = Settings(data_dir=Path())
    parser = argparse.ArgumentParser(
        prog="innerloop serve",
        description="Serve policies that have just learned your task.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--data-dir",
        default=os.environ.get("INNERLOOP_DATA_DIR", DEFAULT_DATA_DIR),
        help="all that outlives the process",
    )
    add("--database-url", default="", help="SQLAlchemy URL of the catalog; empty: SQLite inside the data directory")
    add("--host", default=default.host, help="address to listen on; other than loopback needs TLS and tokens")
    add("--port", type=int, default=default.port, help="0: any free port")
    add("--admin-port", type=int, default=None, help="Prometheus metrics on loopback; 0: any free port")
    add("--device", default=default.device, help="cpu, cuda, cuda:1; auto: CUDA where there is one")
    add("--actors", type=int, default=default.actors, help="environment-actor processes")
    add("--actor-slots", type=int, default=default.actor_slots, help="environments that one actor holds at most")
    add("--device-rows", type=int, default=default.device_rows, help="adaptation states on the device at most")
    add("--no-batching", action="store_true", help="serve sessions one by one (for benchmarks)")
    add("--lease-seconds", type=float, default=default.lease_seconds, help="default lease of a session")
    add("--heartbeat-seconds", type=float, default=default.heartbeat_seconds, help="silence before a heartbeat")
    add("--drain-seconds", type=float, default=default.drain_seconds, help="how long streams may go on after SIGTERM")
    add(
        "--allow-env",
        action="append",
        default=[],
        metavar="ID",
        help="a Gymnasium environment that clients may define families of, such as CartPole-v1 or 'ALE/*'; repeatable",
    )
    add("--tls-cert", type=Path, default=None, help="PEM certificate chain")
    add("--tls-key", type=Path, default=None, help="PEM private key")
    add("--tls-client-ca", type=Path, default=None, help="clients must show a certificate that this CA signed")
    add("--tokens-file", type=Path, default=None, help="TOML of operators and tokens (docs/operations.md)")
    add("--insecure", action="store_true", help="serve another address without TLS and tokens")
    add("--log-format", choices=("console", "json"), default=default.log_format)
    add("--ready-file", type=Path, default=None, help="a JSON line with the address is written here when serving")
    add("--parent-pid", type=int, default=None, help="stop when this process is gone")
    return parser


def _settings(args: argparse.Namespace) -> Settings:
    if (args.tls_cert is None) != (args.tls_key is None):
        raise InvalidField("--tls-cert", "comes together with --tls-key")
    if args.tls_client_ca is not None and args.tls_cert is None:
        raise InvalidField("--tls-client-ca", "needs --tls-cert and --tls-key")
    for name in ("port", "admin_port"):
        port = getattr(args, name)
        if port is not None and not 0 <= port <= 65_535:
            raise InvalidField(f"--{name.replace('_', '-')}", f"{port} is not in 0 to 65535")
    for name in ("lease_seconds", "heartbeat_seconds", "drain_seconds"):
        if not 0 < getattr(args, name) < math.inf:
            raise InvalidField(f"--{name.replace('_', '-')}", f"{getattr(args, name)} is not a positive number")
    if args.ready_file is not None and not args.ready_file.absolute().parent.is_dir():
        raise InvalidField("--ready-file", f"there is no folder {args.ready_file.absolute().parent}")
    for name in ("actors", "actor_slots", "device_rows"):
        if getattr(args, name) < (0 if name == "actors" else 1):
            raise InvalidField(f"--{name.replace('_', '-')}", f"{getattr(args, name)} is too small")
    for pattern in args.allow_env:
        if not pattern or any(character.isspace() or character == "," for character in pattern):
            raise InvalidField("--allow-env", f"{pattern!r} is no id of Gymnasium's; give one, and repeat the option")
    tokens, operators = _tokens(args.tokens_file) if args.tokens_file else ({}, ())
    return Settings(
        data_dir=Path(args.data_dir).expanduser(),
        database_url=args.database_url,
        host=args.host,
        port=args.port,
        admin_port=args.admin_port,
        device=args.device,
        actors=args.actors,
        actor_slots=args.actor_slots,
        device_rows=args.device_rows,
        batching=not args.no_batching,
        lease_seconds=args.lease_seconds,
        heartbeat_seconds=args.heartbeat_seconds,
        drain_seconds=args.drain_seconds,
        tokens=tokens,
        operators=operators,
        allowed_environments=tuple(args.allow_env),
        tls=Tls(args.tls_cert, args.tls_key, args.tls_client_ca) if args.tls_cert else None,
        insecure=args.insecure,
        log_format=args.log_format,
        parent_pid=args.parent_pid,
    )


def _tokens(path: Path) -> tuple[dict[str, str], tuple[str, ...]]:
    """Tokens and operators. A file that gives no tokens is refused: it would leave the server open."""
    try:
        value = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidField("--tokens-file", f"{path} cannot be read: {error}") from error
    form = (
        'write operators = ["principal"] first, then [tokens] and lines such as "token" = "principal", quotes and all'
    )
    tokens = value.pop("tokens", None)
    operators = value.pop("operators", [])
    if value:
        raise InvalidField("--tokens-file", f"{path} has {', '.join(value)} outside [tokens]; {form}")
    if not isinstance(tokens, dict) or not tokens:
        raise InvalidField("--tokens-file", f"{path} gives no tokens; {form}")
    if not all(isinstance(who, str) and who and token for token, who in tokens.items()):
        raise InvalidField("--tokens-file", f"{path}: a token names a principal; {form}")
    if not isinstance(operators, list) or not all(isinstance(who, str) for who in operators):
        raise InvalidField("--tokens-file", f"{path}: operators is a list of principals; {form}")
    return dict(tokens), tuple(operators)
