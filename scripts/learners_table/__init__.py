"""The table of all learning methods: ``scripts/bench learners``."""
