"""Evaluations with their scores, and trainings."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_ROW = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add the tables of version 2."""
    op.create_table(
        "evaluations",
        sa.Column("row", _ROW, nullable=False),
        sa.Column("id", sa.String, nullable=False),
        sa.Column("owner", sa.String, nullable=False),
        sa.Column("request_id", sa.String),
        sa.Column("request", sa.JSON, nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("done", sa.BigInteger, nullable=False),
        sa.Column("total", sa.BigInteger, nullable=False),
        sa.Column("error", sa.String, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("finished_at", sa.Double),
        sa.PrimaryKeyConstraint("row", name="pk_evaluations"),
        sa.UniqueConstraint("id", name="uq_evaluations_id"),
        sa.UniqueConstraint("owner", "request_id", name="uq_evaluations_owner_request_id"),
    )
    op.create_index("ix_evaluations_owner", "evaluations", ["owner"])
    op.create_index("ix_evaluations_state", "evaluations", ["state"])
    op.create_table(
        "scores",
        sa.Column("row", _ROW, nullable=False),
        sa.Column("evaluation_id", sa.String, nullable=False),
        sa.Column("family", sa.String, nullable=False),
        sa.Column("learner_id", sa.String, nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("split", sa.String, nullable=False),
        sa.Column("guard", sa.Boolean, nullable=False),
        sa.Column("greedy", sa.Boolean, nullable=False),
        sa.Column("simulator", sa.String, nullable=False),
        sa.Column("k", sa.Integer, nullable=False),
        sa.Column("tasks", sa.Integer, nullable=False),
        sa.Column("episodes", sa.Integer, nullable=False),
        sa.Column("mean", sa.Double),
        sa.Column("interquartile_mean", sa.Double),
        sa.Column("low", sa.Double),
        sa.Column("high", sa.Double),
        sa.Column("standard_error", sa.Double),
        sa.Column("references", sa.JSON, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("row", name="pk_scores"),
        sa.ForeignKeyConstraint(
            ["evaluation_id"], ["evaluations.id"], ondelete="CASCADE", name="fk_scores_evaluation_id"
        ),
    )
    op.create_index("ix_scores_evaluation_id", "scores", ["evaluation_id"])
    op.create_index("ix_scores_family_learner_id_revision_k", "scores", ["family", "learner_id", "revision", "k"])
    op.create_table(
        "trainings",
        sa.Column("row", _ROW, nullable=False),
        sa.Column("id", sa.String, nullable=False),
        sa.Column("owner", sa.String, nullable=False),
        sa.Column("learner_id", sa.String, nullable=False),
        sa.Column("settings", sa.JSON, nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("seed", sa.BigInteger, nullable=False),
        sa.Column("update", sa.BigInteger, nullable=False),
        sa.Column("updates", sa.BigInteger, nullable=False),
        sa.Column("error", sa.String, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("updated_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("row", name="pk_trainings"),
        sa.UniqueConstraint("id", name="uq_trainings_id"),
        sa.ForeignKeyConstraint(["learner_id"], ["learners.id"], name="fk_trainings_learner_id"),
    )
    for column in ("owner", "learner_id", "state"):
        op.create_index(f"ix_trainings_{column}", "trainings", [column])
