"""All tests of GANs."""

import pytest


@pytest.fixture(autouse=True)
def one_core(one_thread: None) -> None:
    """Networks this small lose more by sharing their work than they gain."""
