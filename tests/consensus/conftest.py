"""What tests of real networks need."""

import os

import pytest

from phalanx.errors import UsageError
from phalanx.service.consensus import engine


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips, with its reason, a test that needs the consensus engine where there is none."""
    if item.get_closest_marker("network"):
        try:
            engine.find()
        except UsageError as problem:
            if os.environ.get("PHALANX_REQUIRE_ENGINE"):
                pytest.fail(str(problem))
            pytest.skip(str(problem))
