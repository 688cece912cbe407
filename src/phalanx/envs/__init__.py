"""Worlds in which each step is one event that the committee decides."""

from phalanx.envs.registry import make

__all__ = ["make"]
