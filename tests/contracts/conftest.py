"""One running app for all tests of this folder; each finds it as new."""

from collections.abc import Iterator

import pytest

from adapter.settings import Settings
from tests.contracts.running import Api, running


@pytest.fixture(scope="package")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with running(Settings(state_dir=tmp_path_factory.mktemp("state"), max_body_bytes=100_000)) as api:
        yield api


@pytest.fixture
def api(started: Api) -> Api:
    started.reset()
    return started
