"""What scores are read against: exact optima, textbook strategies, and the catalog of all that is known."""
