"""Worlds in which each step is one event that the committee decides."""
