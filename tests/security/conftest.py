"""The provider of tokens that tests talk to."""

from collections.abc import Iterator

import pytest

from tests.security.oidc import Provider
from tests.security.verifying import ALGORITHMS, KEYS


@pytest.fixture
def provider() -> Iterator[Provider]:
    with Provider().running() as running:
        running.keys = {algorithm: (algorithm, KEYS[algorithm]) for algorithm in ALGORITHMS}
        yield running
