"""A whole cluster under load: each process is killed once, then half of each kind at once."""

import asyncio
import sys
from pathlib import Path

import pytest

from tests.integration.cluster import open_cluster
from tests.soak.cluster import Run, one_round, table


@pytest.mark.timeout(300)  # nine processes, one after the other
def test_no_accepted_job_is_lost_and_no_request_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with open_cluster(tmp_path) as cluster:
        run = Run(cluster)
        asyncio.run(run.inflict(one_round(cluster, 0)))
    with capsys.disabled():
        sys.stdout.write("\n" + "\n".join(table(run.phases)) + "\n")
    assert [(phase.name, phase.errors) for phase in run.phases if phase.errors] == []
    assert [(phase.name, phase.failures) for phase in run.phases if phase.failures] == []
    assert [(phase.name, phase.lost) for phase in run.phases if phase.lost] == []
    assert all(phase.accepted and phase.answered for phase in run.phases)
