"""Schema migrations (alembic). Versions that were released are never edited; a change is a new file."""
