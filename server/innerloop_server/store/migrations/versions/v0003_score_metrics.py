"""What else an evaluation measured, beside the return."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Scores from before have none."""
    op.add_column("scores", sa.Column("metrics", sa.JSON, nullable=False, server_default=sa.text("'{}'")))
