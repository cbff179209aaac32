"""Configuration: small frozen objects made once at the top and handed down. Units are in the names."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Limits:
    """What one caller, or all together, may ask for. Past a limit the answer is RESOURCE_EXHAUSTED with a hint."""

    sessions_per_owner: int = 1_000
    """Durable sessions that have not ended."""
    streams: int = 512
    """Open ``Adapt`` and follow streams, all callers."""
    pending_observations: int = 1_024
    """Act requests waiting for the engine."""
    evaluations_per_owner: int = 4
    """Unfinished evaluations."""
    families_per_owner: int = 100
    """Families that were defined over the wire."""
    trainings_per_owner: int = 4
    """Trainings that run or wait for their turn."""
    steps: int = 10_000
    """Largest budget of steps of one session."""
    episodes_per_step: int = 1_000
    episodes: int = 1_000_000
    """Largest budget of episodes of one session."""
    tasks_per_request: int = 1_000
    rows_per_message: int = 4_096
    """Rows of one ``observe``."""
    message_bytes: int = 16 * 1024 * 1024
    """Largest message, either way."""
    chunk_bytes: int = 1024 * 1024
    """Weights travel in chunks of this size."""


@dataclass(frozen=True)
class Tls:
    """Transport security. Certificates and keys are PEM files."""

    certificate: Path
    key: Path
    client_ca: Path | None = None
    """Given: clients must show a certificate signed by it (mutual TLS)."""


@dataclass(frozen=True)
class Settings:
    """One server."""

    data_dir: Path
    """Everything that outlives the process: catalog, blobs, training runs."""
    database_url: str = ""
    """SQLAlchemy URL of the catalog; empty: SQLite inside ``data_dir``."""
    host: str = "127.0.0.1"
    port: int = 50551
    """0: any free port (printed when the server is ready)."""
    admin_port: int | None = None
    """Prometheus metrics (HTTP) on 127.0.0.1; ``None``: off; 0: any free port."""
    device: str = "auto"
    """``cpu``, ``cuda``, ``cuda:1``; ``auto``: CUDA where there is one."""
    actors: int = 2
    """Environment-actor processes."""
    actor_slots: int = 256
    """Environments one actor holds at most."""
    device_rows: int = 4_096
    """Resident adaptation states on the device at most."""
    batching: bool = True
    """False: the engine takes sessions one by one (for benchmarks)."""
    lease_seconds: float = 900.0
    """Default lease of a session, renewed by any message."""
    heartbeat_seconds: float = 5.0
    """Silence on an ``Adapt`` stream after which the server sends a heartbeat."""
    drain_seconds: float = 10.0
    """How long streams may go on after SIGTERM."""
    tokens: dict[str, str] = field(default_factory=dict, repr=False)
    """Bearer token -> principal. Empty: no tokens; everybody on loopback is ``local``."""
    operators: tuple[str, ...] = ()
    """Principals that may train, promote and roll back learners of others. Without tokens ``local`` is one."""
    allowed_environments: tuple[str, ...] = ()
    """Gymnasium ids, with wildcards, that clients may make families of (``tasks.definition.is_allowed``)."""
    tls: Tls | None = None
    insecure: bool = False
    """Serve another address than loopback without TLS and tokens."""
    log_format: str = "console"
    """``console`` or ``json``."""
    parent_pid: int | None = None
    """Stop when this process is gone (``embedded()``)."""
    limits: Limits = field(default_factory=Limits)
