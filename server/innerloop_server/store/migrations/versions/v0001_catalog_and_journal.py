"""Learners, revisions, sessions with their journal, policies."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_ROW = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make the tables of version 1."""
    op.create_table(
        "learners",
        sa.Column("id", sa.String, nullable=False),
        sa.Column("owner", sa.String, nullable=False),
        sa.Column("spec", sa.JSON, nullable=False),
        sa.Column("champion", sa.Integer),
        sa.Column("previous_champion", sa.Integer),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_learners"),
    )
    op.create_table(
        "revisions",
        sa.Column("learner_id", sa.String, nullable=False),
        sa.Column("number", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("blob", sa.String(64), nullable=False),
        sa.Column("manifest", sa.JSON, nullable=False),
        sa.Column("promoted", sa.Boolean, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("learner_id", "number", name="pk_revisions"),
        sa.ForeignKeyConstraint(["learner_id"], ["learners.id"], name="fk_revisions_learner_id"),
    )
    op.create_table(
        "sessions",
        sa.Column("row", _ROW, nullable=False),
        sa.Column("id", sa.String, nullable=False),
        sa.Column("owner", sa.String, nullable=False),
        sa.Column("request_id", sa.String),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("learner_id", sa.String, nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("family", sa.String, nullable=False),
        sa.Column("simulated", sa.Boolean, nullable=False),
        sa.Column("task", sa.JSON),
        sa.Column("options", sa.JSON, nullable=False),
        sa.Column("budget", sa.JSON, nullable=False),
        sa.Column("seed", sa.BigInteger, nullable=False),
        sa.Column("lease_seconds", sa.Double, nullable=False),
        sa.Column("expires_at", sa.Double, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("updated_at", sa.Double, nullable=False),
        sa.Column("step", sa.Integer, nullable=False),
        sa.Column("episodes", sa.BigInteger, nullable=False),
        sa.Column("seconds", sa.Double, nullable=False),
        sa.Column("last_sequence", sa.BigInteger, nullable=False),
        sa.Column("policy_id", sa.String),
        sa.Column("end_reason", sa.String, nullable=False),
        sa.PrimaryKeyConstraint("row", name="pk_sessions"),
        sa.UniqueConstraint("id", name="uq_sessions_id"),
        sa.UniqueConstraint("owner", "request_id", name="uq_sessions_owner_request_id"),
        sa.ForeignKeyConstraint(
            ["learner_id", "revision"],
            ["revisions.learner_id", "revisions.number"],
            name="fk_sessions_learner_id_revision",
        ),
    )
    op.create_index("ix_sessions_state_expires_at", "sessions", ["state", "expires_at"])
    op.create_table(
        "steps",
        sa.Column("session_id", sa.String, nullable=False),
        sa.Column("number", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("sequence", sa.BigInteger),
        sa.Column("reply", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("session_id", "number", name="pk_steps"),
        _of_session("steps"),
    )
    op.create_index("ix_steps_session_id_sequence", "steps", ["session_id", "sequence"])
    op.create_table(
        "states",
        sa.Column("session_id", sa.String, nullable=False),
        sa.Column("state", sa.LargeBinary),
        sa.PrimaryKeyConstraint("session_id", name="pk_states"),
        _of_session("states"),
    )
    op.create_table(
        "endings",
        sa.Column("session_id", sa.String, nullable=False),
        sa.Column("sequence", sa.BigInteger),
        sa.Column("reply", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("session_id", name="pk_endings"),
        _of_session("endings"),
    )
    op.create_table(
        "policies",
        sa.Column("row", _ROW, nullable=False),
        sa.Column("id", sa.String, nullable=False),
        sa.Column("owner", sa.String, nullable=False),
        sa.Column("session_id", sa.String),
        sa.Column("learner_id", sa.String, nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("family", sa.String, nullable=False),
        sa.Column("blob", sa.String(64), nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("header", sa.JSON, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("row", name="pk_policies"),
        sa.UniqueConstraint("id", name="uq_policies_id"),
        _of_session("policies", ondelete="SET NULL"),
    )
    op.create_index("ix_policies_owner", "policies", ["owner"])
    op.create_index("ix_policies_session_id", "policies", ["session_id"])


def _of_session(table: str, ondelete: str = "CASCADE") -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(["session_id"], ["sessions.id"], ondelete=ondelete, name=f"fk_{table}_session_id")
