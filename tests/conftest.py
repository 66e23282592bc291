"""What holds for all tests: a busy machine fails none of them, and they leave no secret in any log."""

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.leaks import leaks

settings.register_profile("tests", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")


@pytest.fixture(scope="session", autouse=True)
def no_secret_is_in_any_log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Every process that a test starts writes its log below the run's folder."""
    yield
    assert leaks(tmp_path_factory.getbasetemp()) == []
