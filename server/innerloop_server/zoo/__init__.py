"""Shipped learners and trained references: data only."""
