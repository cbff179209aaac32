"""Families of our own."""
