"""The Helm chart without a cluster: Helm's library renders it, Kubernetes' schemas check what comes out."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import helm_python as helm
import kubernetes_validate
import pytest
import yaml
from helm_python import Chart, HelmError

from adapter import __version__
from adapter.jobs.lanes import LANES
from adapter.jobs.streams import JOBS
from adapter.settings import Settings
from scripts.document_helm import SCHEMA, documented
from tests.monitoring.shipped import RULES
from tests.shipping.files import ADAPTER, DOCKER, TRITON

CHART = DOCKER / "helm/miaas-adapter"
KUBERNETES = ("1.30", "1.37")
# Their schemas are not Kubernetes': the tests below look at what these say.
CUSTOM = {"ScaledObject", "ServiceMonitor", "PrometheusRule"}

Manifest = dict[str, Any]
Values = dict[str, Any]

EVERYTHING: Values = {
    "settings": {"queue_replicas": 3, "max_body_bytes": 67_108_864, "infer_timeout_s": 2.5, "docs": True},
    "secretSettings": {"nats_password": {"secret": "nats", "key": "password"}},
    "files": {
        "tls_cert_file": {"secret": "api-tls", "key": "tls.crt"},
        "tls_key_file": {"secret": "api-tls", "key": "tls.key"},
        "nats_ca_file": {"secret": "nats-tls", "key": "ca.crt"},
    },
    "apiKeysSecret": "keys",
    "imagePullSecrets": [{"name": "registry"}],
    "serve": {
        "autoscaling": {"enabled": True},
        "podAnnotations": {"a": "b"},
        "service": {"type": "LoadBalancer", "port": 443, "annotations": {"c": "d"}},
        "nodeSelector": {"pool": "web"},
    },
    "worker": {"keda": {"enabled": True}, "tolerations": [{"key": "spot", "operator": "Exists"}]},
    "serviceAccount": {"annotations": {"role": "arn"}},
    "podDisruptionBudget": {"enabled": True},
    "monitoring": {
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "prometheusRule": {"enabled": True, "labels": {"release": "prometheus"}},
    },
    "networkPolicy": {"enabled": True, "clients": [{"podSelector": {"matchLabels": {"app": "ingress"}}}]},
    "triton": {"enabled": True, "modelRepositoryClaim": "models"},
}
GPU: Values = {"triton": {"enabled": True, "modelRepositoryClaim": "models", "gpus": 2, "replicas": 2}}
VALUES = {"default": {}, "everything": EVERYTHING, "gpu": GPU}


@pytest.fixture(scope="module")
def chart() -> Iterator[Chart]:
    with Chart.load(CHART) as loaded:
        yield loaded


def render(chart: Chart, values: Values) -> dict[str, Manifest]:
    """What an installation would create, by kind and name without the release's."""
    chart.validate_schema(values)
    texts = chart.render(values, name="demo", namespace="ns")
    every = [
        m for name, text in texts.items() if not name.endswith(".txt") for m in yaml.safe_load_all(text) if m
    ]
    found = {
        f"{m['kind']} {m['metadata']['name'].removeprefix('demo-miaas-adapter')}".strip(): m for m in every
    }
    assert len(found) == len(every)
    return found


def container(deployment: Manifest) -> Manifest:
    only: Manifest
    (only,) = deployment["spec"]["template"]["spec"]["containers"]
    return only


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
def test_the_linter_finds_nothing(values: Values) -> None:
    found = helm.lint(CHART, values, strict=True)
    assert found["errors"] == []
    assert [message["error"] for message in found["messages"]] == ["icon is recommended"]


@pytest.mark.parametrize("version", KUBERNETES)
@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
def test_kubernetes_takes_what_comes_out(chart: Chart, values: Values, version: str) -> None:
    for manifest in render(chart, values).values():
        if manifest["kind"] not in CUSTOM:
            kubernetes_validate.validate(manifest, version, strict=True)


def test_by_default_there_is_only_what_is_needed(chart: Chart) -> None:
    assert render(chart, {}).keys() == {
        *("ConfigMap", "ServiceAccount", "Service"),
        *("Deployment -serve", "Deployment -worker", "Service -serve-ops", "Service -worker-ops"),
    }


def test_everything_that_can_be_had(chart: Chart) -> None:
    assert render(chart, EVERYTHING).keys() - render(chart, {}).keys() == {
        *("HorizontalPodAutoscaler -serve", "ScaledObject -worker", "ServiceMonitor", "PrometheusRule"),
        *("PodDisruptionBudget -serve", "PodDisruptionBudget -worker", "PodDisruptionBudget -triton"),
        *("NetworkPolicy -serve", "NetworkPolicy -worker", "NetworkPolicy -triton"),
        *("Deployment -triton", "Service -triton"),
    }


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
def test_every_pod_keeps_to_the_restricted_standard(chart: Chart, values: Values) -> None:
    for manifest in render(chart, values).values():
        if manifest["kind"] == "Deployment":
            pod = manifest["spec"]["template"]["spec"]
            assert pod["securityContext"]["runAsNonRoot"]
            assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
            assert not pod["automountServiceAccountToken"]
            assert container(manifest)["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container(manifest)["resources"]["limits"]["memory"]
            # Large bodies of requests, and much of what runs in a Triton, need a place.
            assert {"name": "tmp", "mountPath": "/tmp"} in container(manifest)["volumeMounts"]
            assert {"name": "tmp", "emptyDir": {}} in pod["volumes"]


@pytest.mark.parametrize("values", VALUES.values(), ids=VALUES)
def test_every_selector_finds_its_pods(chart: Chart, values: Values) -> None:
    found = render(chart, values)
    pods = [m["spec"]["template"] for m in found.values() if m["kind"] == "Deployment"]
    labels = [pod["metadata"]["labels"].items() for pod in pods]
    for manifest in found.values():
        spec = manifest.get("spec", {})
        if manifest["kind"] == "Service":
            (pod,) = [pod for pod, its in zip(pods, labels, strict=True) if spec["selector"].items() <= its]
            ports = {port["name"] for port in pod["spec"]["containers"][0]["ports"]}
            assert {port["targetPort"] for port in spec["ports"]} <= ports
        elif (
            selector := spec.get("selector", spec.get("podSelector"))
            if manifest["kind"] not in CUSTOM
            else None
        ):
            assert sum(selector["matchLabels"].items() <= its for its in labels) == 1
        if target := spec.get("scaleTargetRef"):
            assert target["name"].replace("demo-miaas-adapter", "Deployment ") in found
            assert (
                "replicas"
                not in found[f"Deployment {target['name'].removeprefix('demo-miaas-adapter')}"]["spec"]
            )


def settings(found: dict[str, Manifest]) -> Settings:
    """What the pods are told, as the adapter reads it."""
    told = dict(found["ConfigMap"]["data"])
    for source in container(found["Deployment -serve"]).get("env", []):
        told[source["name"]] = "secret"
    assert all(name.removeprefix("ADAPTER_").lower() in Settings.model_fields for name in told)
    return Settings(**{name.removeprefix("ADAPTER_").lower(): value for name, value in told.items()})


def test_the_adapter_takes_its_settings(chart: Chart) -> None:
    plain = settings(render(chart, {}))
    assert (plain.triton_grpc_url, plain.nats_url) == ("triton:8001", "nats://nats:4222")
    assert plain.tls_ended_by_proxy
    found = render(chart, EVERYTHING)
    told = settings(found)
    assert (told.queue_replicas, told.max_body_bytes, told.infer_timeout_s, told.docs) == (
        3,
        67_108_864,
        2.5,
        True,
    )
    assert told.triton_grpc_url == "dns:///demo-miaas-adapter-triton:8001"
    assert not told.tls_ended_by_proxy
    mounts = {mount["mountPath"] for mount in container(found["Deployment -worker"])["volumeMounts"]}
    for file in (told.tls_cert_file, told.tls_key_file, told.nats_ca_file, told.keys_file):
        assert str(file and file.parent) in mounts
    assert told.keys_path == Path("/keys/keys.json")


def test_the_pods_are_told_where_traces_go(chart: Chart) -> None:
    given = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317", "OTEL_TRACES_SAMPLER_ARG": 0.01}
    told = render(chart, {"openTelemetry": given})["ConfigMap"]["data"]
    assert {name: value for name, value in told.items() if name in given} == {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317",
        "OTEL_TRACES_SAMPLER_ARG": "0.01",
    }


def test_tritons_may_have_addresses_of_either_family(chart: Chart) -> None:
    for url in ("10.0.0.1:8001,[2001:db8::1]:8001", "dns:///triton.models.svc:8001"):
        assert settings(render(chart, {"triton": {"url": url}})).triton_grpc_url == url


def test_probes_and_prometheus_speak_tls_where_the_listeners_do(chart: Chart) -> None:
    for values, scheme in (({}, "HTTP"), (EVERYTHING, "HTTPS")):
        found = render(chart, values)
        for role in ("serve", "worker"):
            probes = [
                probe for name, probe in container(found[f"Deployment -{role}"]).items() if "Probe" in name
            ]
            assert {probe["httpGet"]["scheme"] for probe in probes} == {scheme}
            assert {probe["httpGet"]["path"] for probe in probes} == {"/livez", "/readyz"}
    ops, triton = found["ServiceMonitor"]["spec"]["endpoints"]
    assert (ops["scheme"], ops["relabelings"]) == (
        "https",
        [{"targetLabel": "job", "replacement": "adapter"}],
    )
    assert triton["relabelings"] == [{"targetLabel": "job", "replacement": "triton"}]


def test_workers_follow_every_lane_of_the_queue(chart: Chart) -> None:
    triggers = render(chart, EVERYTHING)["ScaledObject -worker"]["spec"]["triggers"]
    assert [trigger["type"] for trigger in triggers] == ["nats-jetstream"] * len(LANES)
    asked = {(trigger["metadata"]["stream"], trigger["metadata"]["consumer"]) for trigger in triggers}
    assert asked == {(JOBS, lane.consumer) for lane in LANES}
    assert triggers[0]["metadata"] | {"consumer": ""} == {
        "natsServerMonitoringEndpoint": "nats-headless.ns.svc:8222",
        "account": "$G",
        "stream": JOBS,
        "consumer": "",
        "lagThreshold": "64",
    }


def test_keda_is_told_a_name_that_it_can_resolve_in_its_own_namespace(chart: Chart) -> None:
    whole = ("nats.messaging.svc:8222", "10.0.0.1:80")
    for given, told in (("nats:8222", "nats.ns.svc:8222"), *zip(whole, whole, strict=True)):
        keda = {"enabled": True, "natsMonitoring": given}
        triggers = render(chart, {"worker": {"keda": keda}})["ScaledObject -worker"]["spec"]["triggers"]
        assert {trigger["metadata"]["natsServerMonitoringEndpoint"] for trigger in triggers} == {told}


def test_the_rules_are_those_of_prometheus(chart: Chart) -> None:
    groups = render(chart, EVERYTHING)["PrometheusRule"]["spec"]["groups"]
    assert [rule for group in groups for rule in group["rules"]] == RULES


def test_gpus(chart: Chart) -> None:
    triton = render(chart, GPU)["Deployment -triton"]
    assert container(triton)["resources"]["limits"] == {"nvidia.com/gpu": 2, "memory": "8Gi"}
    # Nobody waits for a GPU that the old pod holds.
    assert triton["spec"]["strategy"]["rollingUpdate"] == {"maxUnavailable": 1, "maxSurge": 0}
    found = render(chart, EVERYTHING)
    assert "nvidia.com/gpu" not in str(found)
    # Where it may have a place beside the old one, a new pod is there first.
    strategy = found["Deployment -triton"]["spec"]["strategy"]
    assert strategy["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}


def test_tritons_command_and_image_are_those_of_its_dockerfile(chart: Chart) -> None:
    triton = container(render(chart, GPU)["Deployment -triton"])
    assert triton["image"] == TRITON.last("FROM")
    assert triton["args"] == yaml.safe_load(TRITON.last("CMD"))


def test_the_users_are_those_of_the_images(chart: Chart) -> None:
    found = render(chart, EVERYTHING)
    for dockerfile, name in ((ADAPTER, "serve"), (ADAPTER, "worker"), (TRITON, "triton")):
        context = found[f"Deployment -{name}"]["spec"]["template"]["spec"]["securityContext"]
        assert f"{context['runAsUser']}:{context['runAsGroup']}" == dockerfile.last("USER")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"serve": {"replicas": "two"}}, "serve/replicas"),
        ({"serve": {"replica": 2}}, "replica"),
        ({"settings": {"rate_limit": 5}}, "rate_limit"),
        ({"settings": {"rate_limit_per_minute": "many"}}, "rate_limit_per_minute"),
        ({"settings": {"worker_slots": 0}}, "worker_slots"),
        ({"settings": {"nats_password": "secret"}}, "nats_password"),
        ({"settings": {"log_format": "xml"}}, "log_format"),
        ({"secretSettings": {"nats_password": {"secret": "nats"}}}, "key"),
        ({"files": {"keys_file": {"secret": "keys", "key": "keys.json"}}}, "keys_file"),
        ({"nats": {"url": "nats://user:password@nats:4222"}}, "nats/url"),
        ({"triton": {"url": "http://triton"}}, "triton/url"),
        ({"triton": {"url": "::1:8001"}}, "triton/url"),
        ({"openTelemetry": {"ADAPTER_DOCS": "true"}}, "ADAPTER_DOCS"),
        ({"triton": {"enabled": True}}, "modelRepositoryClaim"),
        ({"triton": {"gpus": -1}}, "gpus"),
        ({"worker": {"keda": {"jobsPerWorker": 0}}}, "jobsPerWorker"),
        ({"networkPolicy": {"monitoring": []}}, "networkPolicy/monitoring"),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
def test_wrong_values_are_refused(chart: Chart, values: Values, said: str) -> None:
    with pytest.raises(HelmError, match=re.escape(said)):
        chart.validate_schema(values)


def test_the_schema_knows_every_setting() -> None:
    assert documented(SCHEMA.read_text()) == SCHEMA.read_text(), "run `make docs`"


def test_every_value_has_its_schema(chart: Chart) -> None:
    assert chart.metadata["appVersion"] == chart.version == __version__
    assert chart.schema is not None
    assert chart.values.keys() == chart.schema["properties"].keys() - {"global"}


def test_it_packs_with_its_rules(tmp_path: Path) -> None:
    # What is linked here is in the archive.
    archive = helm.package(CHART, destination=tmp_path)
    shutil.unpack_archive(archive, tmp_path, "gztar")
    assert {path.name for path in (tmp_path / "miaas-adapter/rules").iterdir()} == {"alerts.yml", "slo.yml"}
