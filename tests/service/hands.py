"""Clocks whose hands tests move."""

from dataclasses import dataclass

__all__ = ["Hands"]


@dataclass
class Hands:
    """A wall clock and a monotonic one, in ns."""

    wall: int = 1_800_000_000_000_000_000
    monotonic: int = 5_000_000_000

    def wall_ns(self) -> int:
        return self.wall

    def monotonic_ns(self) -> int:
        return self.monotonic

    def pass_ns(self, passed: int) -> None:
        """Time passes, for both."""
        self.wall += passed
        self.monotonic += passed

    def pass_s(self, passed: float) -> None:
        self.pass_ns(round(passed * 1e9))

    def reboot(self, down_ns: int = 0) -> None:
        """The machine starts anew: the monotonic clock begins again."""
        self.wall += down_ns
        self.monotonic = 0
