"""The tables, as the newest migration leaves them.

``migrations/versions`` is how a database gets here; a test holds the two equal.

``row`` columns order lists by insertion and are the keys of pages; ids are what the world sees.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    text,
)

# Constraints have names so that later migrations can speak of them.
METADATA = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

Row = BigInteger().with_variant(Integer(), "sqlite")  # SQLite numbers rows only in a column of type INTEGER
Json = JSON(none_as_null=True)

LEARNERS = Table(
    "learners",
    METADATA,
    Column("id", String, primary_key=True),
    Column("owner", String, nullable=False),
    Column("spec", Json, nullable=False),
    Column("champion", Integer),
    Column("previous_champion", Integer),
    Column("created_at", Double, nullable=False),
)

REVISIONS = Table(
    "revisions",
    METADATA,
    Column("learner_id", String, ForeignKey("learners.id"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("blob", String(64), nullable=False),
    Column("manifest", Json, nullable=False),
    Column("promoted", Boolean, nullable=False),
    Column("created_at", Double, nullable=False),
)

SESSIONS = Table(
    "sessions",
    METADATA,
    Column("row", Row, primary_key=True),
    Column("id", String, nullable=False, unique=True),
    Column("owner", String, nullable=False),
    Column("request_id", String),  # null where the caller chose none, so that only chosen ones must be unique
    Column("state", String, nullable=False),
    Column("learner_id", String, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("family", String, nullable=False),
    Column("simulated", Boolean, nullable=False),
    Column("task", Json),
    Column("options", Json, nullable=False),
    Column("budget", Json, nullable=False),
    Column("seed", BigInteger, nullable=False),
    Column("lease_seconds", Double, nullable=False),
    Column("expires_at", Double, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
    Column("step", Integer, nullable=False),
    Column("episodes", BigInteger, nullable=False),
    Column("seconds", Double, nullable=False),
    Column("last_sequence", BigInteger, nullable=False),
    Column("policy_id", String),
    Column("end_reason", String, nullable=False),
    ForeignKeyConstraint(["learner_id", "revision"], ["revisions.learner_id", "revisions.number"]),
    UniqueConstraint("owner", "request_id"),
    Index(None, "state", "expires_at"),
)

# The journal: what a resumed session needs. It goes when the session is cancelled or its lease ends.
STEPS = Table(
    "steps",
    METADATA,
    Column("session_id", String, ForeignKey("sessions.id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("sequence", BigInteger),
    Column("reply", LargeBinary, nullable=False),
    Index(None, "session_id", "sequence"),
)

STATES = Table(
    "states",
    METADATA,
    Column("session_id", String, ForeignKey("sessions.id", ondelete="CASCADE"), primary_key=True),
    Column("state", LargeBinary),  # null before the first step: the row is made with the session, so a step updates
)

ENDINGS = Table(
    "endings",
    METADATA,
    Column("session_id", String, ForeignKey("sessions.id", ondelete="CASCADE"), primary_key=True),
    Column("sequence", BigInteger),
    Column("reply", LargeBinary, nullable=False),
)

POLICIES = Table(
    "policies",
    METADATA,
    Column("row", Row, primary_key=True),
    Column("id", String, nullable=False, unique=True),
    Column("owner", String, nullable=False, index=True),
    Column("session_id", String, ForeignKey("sessions.id", ondelete="SET NULL"), index=True),
    Column("learner_id", String, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("family", String, nullable=False),
    Column("blob", String(64), nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("header", Json, nullable=False),
    Column("created_at", Double, nullable=False),
)

EVALUATIONS = Table(
    "evaluations",
    METADATA,
    Column("row", Row, primary_key=True),
    Column("id", String, nullable=False, unique=True),
    Column("owner", String, nullable=False, index=True),
    Column("request_id", String),  # null where the caller chose none, as for sessions
    Column("request", Json, nullable=False),
    Column("state", String, nullable=False, index=True),
    Column("done", BigInteger, nullable=False),
    Column("total", BigInteger, nullable=False),
    Column("error", String, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("finished_at", Double),
    UniqueConstraint("owner", "request_id"),
)

SCORES = Table(
    "scores",
    METADATA,
    Column("row", Row, primary_key=True),
    Column("evaluation_id", String, ForeignKey("evaluations.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("family", String, nullable=False),
    Column("learner_id", String, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("split", String, nullable=False),
    Column("guard", Boolean, nullable=False),
    Column("greedy", Boolean, nullable=False),
    Column("simulator", String, nullable=False),
    Column("k", Integer, nullable=False),
    Column("tasks", Integer, nullable=False),
    Column("episodes", Integer, nullable=False),
    # Null stands for NaN (an interval over one task), which SQLite cannot hold.
    Column("mean", Double),
    Column("interquartile_mean", Double),
    Column("low", Double),
    Column("high", Double),
    Column("standard_error", Double),
    Column("metrics", Json, nullable=False, server_default=text("'{}'")),
    Column("references", Json, nullable=False),
    Column("created_at", Double, nullable=False),
    Index(None, "family", "learner_id", "revision", "k"),
)

TRAININGS = Table(
    "trainings",
    METADATA,
    Column("row", Row, primary_key=True),
    Column("id", String, nullable=False, unique=True),
    Column("owner", String, nullable=False, index=True),
    Column("learner_id", String, ForeignKey("learners.id"), nullable=False, index=True),
    Column("settings", Json, nullable=False),
    Column("state", String, nullable=False, index=True),
    Column("seed", BigInteger, nullable=False),
    Column("update", BigInteger, nullable=False),
    Column("updates", BigInteger, nullable=False),
    Column("error", String, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
)

JOURNAL = (STEPS, STATES, ENDINGS)
