"""docker/ without an engine: linters, and what compose, NATS, HAProxy and Prometheus say of their files."""

import re
import subprocess
from typing import Any

import pytest
import yaml

from adapter import __version__
from adapter.settings import Settings
from adapter.standalone.wheels import find
from tests.shipping.files import ADAPTER, BIN, DOCKER, ROOT, TRITON, Dockerfile, pinned, tool

PROFILES = ("cpu", "gpu", "cluster", "monitoring", "tools")
VARIABLES = {f"ADAPTER_{name.upper()}" for name in Settings.model_fields}

Compose = dict[str, Any]


@pytest.fixture(scope="module")
def compose() -> dict[str, Compose]:
    """What docker-compose makes of the file, by profile."""
    read = {}
    for profile in PROFILES:
        command = [tool("docker-compose", "docker-compose"), "--profile", profile, "config"]
        told = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=DOCKER)
        assert (told.returncode, told.stderr) == (0, "")
        read[profile] = yaml.safe_load(told.stdout)
    return read


def services(compose: dict[str, Compose], profile: str) -> dict[str, Any]:
    """What a profile starts."""
    every = compose[profile]["services"]
    return {name: service for name, service in every.items() if profile in service["profiles"]}


@pytest.mark.parametrize("name", ["adapter.Dockerfile", "triton.Dockerfile"])
def test_the_linter_finds_nothing(name: str) -> None:
    told = subprocess.run([BIN / "hadolint", DOCKER / name], capture_output=True, text=True, timeout=60)
    assert (told.returncode, told.stdout + told.stderr) == (0, "")


@pytest.mark.parametrize("dockerfile", [ADAPTER, TRITON], ids=["adapter", "triton"])
def test_what_is_copied_is_in_the_repository_and_sent_to_the_engine(dockerfile: Dockerfile) -> None:
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    for source in dockerfile.copied:
        assert source in sent
        assert any(file == source or file.startswith(f"{source}/") for file in tracked), source


@pytest.mark.parametrize("dockerfile", [ADAPTER, TRITON], ids=["adapter", "triton"])
def test_base_images_are_pinned_and_nobody_is_root(dockerfile: Dockerfile) -> None:
    images = [text.split()[0] for text in dockerfile.all("FROM")]
    assert [image for image in images if not pinned(image)] == []
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", dockerfile.last("USER")), "a number, for Kubernetes to check"


def test_compose_pins_every_image(compose: dict[str, Compose]) -> None:
    images = {service["image"] for file in compose.values() for service in file["services"].values()}
    assert [image for image in images if not pinned(image)] == []
    assert f"miaas-adapter:{__version__}" in images
    assert f"miaas-triton:{TRITON.last('FROM').partition(':')[2].removesuffix('-py3')}" in images


def test_every_setting_exists(compose: dict[str, Compose]) -> None:
    given = {
        name
        for profile in PROFILES
        for service in compose[profile]["services"].values()
        for name in service.get("environment", {})
        if name.startswith("ADAPTER_")
    }
    in_image = set(re.findall(r"(ADAPTER_\w+)=", ADAPTER.last("ENV")))
    assert len(given) >= 5
    assert len(in_image) >= 4
    assert given | in_image <= VARIABLES


@pytest.mark.parametrize(
    ("profile", "expected"),
    [
        ("cpu", {"nats": 1, "serve": 1, "worker": 1, "triton-cpu": 1}),
        ("gpu", {"nats": 1, "serve": 1, "worker": 1, "triton-gpu": 1}),
        (
            "cluster",
            {
                **{"nats-1": 1, "nats-2": 1, "nats-3": 1, "proxy": 1},
                **{"cluster-serve": 2, "cluster-worker": 2, "cluster-triton": 2},
            },
        ),
        ("monitoring", {"prometheus": 1, "grafana": 1}),
    ],
)
def test_a_profile_starts(compose: dict[str, Compose], profile: str, expected: dict[str, int]) -> None:
    found = services(compose, profile)
    assert {name: service["deploy"].get("replicas", 1) for name, service in found.items()} == expected
    for name, service in found.items():
        assert service["restart"] == "unless-stopped", name
        assert service["read_only"], name
        # Large bodies of requests, and much of what runs in a Triton, need a place.
        assert service.get("tmpfs") == ["/tmp"] or "build" not in service, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["deploy"]["resources"]["limits"].keys() == {"cpus", "memory"}, name
        # Images of our own bring their check along.
        assert "healthcheck" in service or "build" in service, name
        # Nothing is published off this machine.
        assert all(re.match(r"127\.0\.0\.1:\d+:", port) for port in service.get("ports", [])), name


def test_the_settings_of_every_adapter_are_valid(compose: dict[str, Compose]) -> None:
    for profile in ("cpu", "cluster"):
        for name, service in services(compose, profile).items():
            if service["image"].startswith("miaas-adapter:"):
                given = {n.removeprefix("ADAPTER_").lower(): v for n, v in service["environment"].items()}
                assert Settings(**given).queue_replicas == (3 if profile == "cluster" else 1), name


def test_only_the_gpu_profile_asks_for_gpus(compose: dict[str, Compose]) -> None:
    triton = compose["gpu"]["services"]["triton-gpu"]
    assert triton["deploy"]["resources"]["reservations"]["devices"] == [
        {"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}
    ]
    assert (triton["shm_size"], triton["ulimits"]["memlock"]) == ("1gb", -1)
    assert "reservations" not in str(services(compose, "cpu")) + str(services(compose, "cluster"))


@pytest.mark.parametrize("file", ["nats.conf", "cluster.conf"])
def test_nats_takes_its_configuration(file: str) -> None:
    command = [str(find().nats_server), "-t", "-c", str(DOCKER / "nats" / file)]
    told = subprocess.run(command, capture_output=True, text=True, timeout=20, env={"NATS_NAME": "nats-1"})
    assert told.returncode == 0, told.stderr
    # Anywhere but on a line of its own it is not read.
    assert re.search(r"^\s*sync_interval: always$", (DOCKER / "nats/nats.conf").read_text(), re.MULTILINE)


def test_haproxy_takes_its_configuration() -> None:
    command = [tool("haproxy", "haproxy"), "-c", "-f", str(DOCKER / "haproxy/haproxy.cfg")]
    told = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert told.returncode == 0, told.stderr


def test_prometheus_takes_its_configuration() -> None:
    command = [tool("promtool", "prometheus"), "check", "config", str(DOCKER / "prometheus/compose.yml")]
    told = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert told.returncode == 0, told.stderr
