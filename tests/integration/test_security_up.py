"""The two commands over TLS, with keys and tokens of a real provider: who gets in, and what leaks out."""

import json
import os
import re
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import grpc
import httpx
import jwt
import psutil
import pytest
from starlette.routing import Route
from tritonclient.grpc import service_pb2 as pb

from adapter.app import Services, contract_routers, openapi_document
from adapter.settings import Settings
from tests.integration.conftest import Up, eventually, make_repository, start_up
from tests.leaks import CANARY
from tests.security.oidc import AUDIENCE, Provider, make_key

IRIS = {"instances": [[5.1, 3.5, 1.4, 0.2]]}


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with Provider().running() as running:
        running.add_key("one", "ES256")
        yield running


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory, provider: Provider) -> Iterator[Up]:
    """`up --tls` that takes the provider's tokens."""
    folder = tmp_path_factory.mktemp("secure")
    settings = {"ADAPTER_OAUTH_ISSUER": provider.url, "ADAPTER_OAUTH_AUDIENCE": AUDIENCE}
    repository = make_repository(folder, "sklearn-iris")
    with start_up(folder, repository, "--tls", **settings) as running:
        yield running


def make(secure: Up, name: str, *options: str) -> dict[str, str]:
    """A new key by the command line, as a header."""
    command = [sys.executable, "-m", "adapter", "keys", "create", name, "--json", *options]
    done = subprocess.run(
        [*command, "--state-dir", str(secure.state_dir)], capture_output=True, text=True, check=True
    )
    return {"X-API-Key": json.loads(done.stdout)["key"]}


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def anonymous(secure: Up) -> httpx.Client:
    trust = ssl.create_default_context(cafile=secure.facts["ca_file"])
    return httpx.Client(base_url=secure.facts["url"], verify=trust)


CLIENTS = {
    "curl": [
        "bash",
        "-euo",
        "pipefail",
        "-c",
        """curl -sS --cacert "$CA" -H "Authorization: Bearer $TOKEN" "$URL/v1/models/sklearn-iris:predict" """
        """-d '{"instances": [[5.1, 3.5, 1.4, 0.2]]}'""",
    ],
    "python": [
        sys.executable,
        "-c",
        "import os, requests\n"
        "answer = requests.post(os.environ['URL'] + '/v1/models/sklearn-iris:predict',"
        " json={'instances': [[5.1, 3.5, 1.4, 0.2]]}, verify=os.environ['CA'],"
        " headers={'Authorization': 'Bearer ' + os.environ['TOKEN']})\n"
        "print(answer.text)",
    ],
    "node": [
        "node",
        "--input-type=module",
        "-e",
        "const answer = await fetch(process.env.URL + '/v1/models/sklearn-iris:predict', {method: 'POST',"
        " headers: {Authorization: 'Bearer ' + process.env.TOKEN},"
        " body: JSON.stringify({instances: [[5.1, 3.5, 1.4, 0.2]]})});\n"
        "console.log(await answer.text());",
    ],
}


@pytest.mark.parametrize("kind", ["key", "token"])
@pytest.mark.parametrize("program", CLIENTS)
def test_predict_over_tls(secure: Up, provider: Provider, program: str, kind: str) -> None:
    facts = secure.facts
    credential = facts["api_key"] if kind == "key" else provider.token("one")
    environment = {"URL": facts["url"], "CA": facts["ca_file"], "TOKEN": credential}
    environment |= {"PATH": os.environ["PATH"], "NODE_EXTRA_CA_CERTS": facts["ca_file"]}
    done = subprocess.run(
        CLIENTS[program], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert json.loads(done.stdout)["predictions"][0][0] == pytest.approx(1.0)


def test_a_job_over_tls_end_to_end(secure: Up) -> None:
    request_id = secure.submit("sklearn-iris", IRIS).json()["request_id"]
    assert secure.result(request_id)["status"] == "completed"


def test_an_operator_finds_the_queue_over_tls(secure: Up) -> None:
    command = [sys.executable, "-m", "adapter", "queue", "status", "--json"]
    done = subprocess.run(
        [*command, "--state-dir", str(secure.state_dir)], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout)["streams"].keys() >= {"MIAAS_JOBS", "MIAAS_RESULTS"}


def test_nothing_speaks_plain_text(secure: Up) -> None:
    facts = secure.facts
    port = httpx.URL(facts["url"]).port
    with pytest.raises(httpx.TransportError):
        httpx.get(f"http://127.0.0.1:{port}/health")
    with pytest.raises(httpx.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
        httpx.get(f"{facts['url']}/health")
    old = ssl.create_default_context(cafile=facts["ca_file"])
    with pytest.deprecated_call():
        old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    with socket.create_connection(("127.0.0.1", port)) as plain, pytest.raises(ssl.SSLError):
        old.wrap_socket(plain, server_hostname="127.0.0.1")


def test_triton_and_nats_take_none_but_the_adapter(secure: Up) -> None:
    facts = secure.facts
    ca = Path(facts["ca_file"]).read_bytes()
    for credentials in (None, grpc.ssl_channel_credentials(ca)):
        channel = (
            grpc.secure_channel(facts["triton_grpc"], credentials)
            if credentials
            else grpc.insecure_channel(facts["triton_grpc"])
        )
        with channel:
            live = channel.unary_unary(
                "/inference.GRPCInferenceService/ServerLive",
                request_serializer=pb.ServerLiveRequest.SerializeToString,
            )
            with pytest.raises(grpc.RpcError) as caught:
                live(pb.ServerLiveRequest(), timeout=5)
            assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
    [triton] = secure.pids("triton")
    listening = {
        each.laddr.port for each in psutil.Process(triton).net_connections() if each.status == "LISTEN"
    }
    known = {facts["triton_grpc"].rpartition(":")[2], str(httpx.URL(facts["triton_metrics"]).port)}
    assert {str(port) for port in listening} == known
    address = httpx.URL(facts["nats_url"])
    assert address.port
    with socket.create_connection((address.host, address.port), timeout=5) as nats:
        assert b'"tls_required":true' in nats.recv(4096)
        nats.sendall(b"CONNECT {}\r\nPING\r\n")
        answer = b""
        try:
            while chunk := nats.recv(4096):
                answer += chunk
        except ConnectionResetError:
            pass
        assert b"PONG" not in answer


def every_route() -> list[tuple[str, str]]:
    """Method and path of each route of the app, and of each operation of its OpenAPI document."""
    found = {
        (method.upper(), path) for path, methods in openapi_document()["paths"].items() for method in methods
    }
    # Neither engine nor queue is called: the routes are all that is looked at.
    settings = Settings()
    for router in contract_routers(settings, Services(settings, engine=_NOTHING, queue=_NOTHING)):
        for route in router.routes:
            assert isinstance(route, Route)
            found |= {(method, route.path) for method in route.methods or ()}
    return sorted((method, re.sub(r"\{[^}]*\}", "x", path)) for method, path in found)


_NOTHING: Any = object()
WRONG = {
    "nothing": {},
    "no key": {"X-API-Key": "miaas_0123456789abcdef_" + "a" * 43},
    "no token": bearer("x.y.z"),
    "an empty key": {"X-API-Key": ""},
    "basic": {"Authorization": "Basic YTpi"},
    "a cookie": {"Cookie": "X-API-Key=x"},
}


def test_every_route_asks_for_credentials(secure: Up, provider: Provider) -> None:
    routes = every_route()
    assert ("POST", "/v1/models/x:predict") in routes
    assert ("GET", "/inference/x") in routes
    forged = jwt.encode(provider.claims(), make_key("ES256"), algorithm="ES256", headers={"kid": "one"})
    expired = provider.token("one", exp=int(time.time()) - 60)
    wrong = {**WRONG, "a forged token": bearer(forged), "an expired token": bearer(expired)}
    with anonymous(secure) as client:
        for method, path in [*routes, ("GET", "/no/such/path"), ("DELETE", "/"), ("OPTIONS", "/health")]:
            for what, headers in wrong.items():
                answer = client.request(method, path, headers=headers, content=b"{}")
                assert answer.status_code == 401, (method, path, what, answer.text)
                assert answer.headers["WWW-Authenticate"].startswith('Bearer realm="miaas-adapter"')
                if method != "HEAD":
                    assert "error" in answer.json()
        for place in ("?api_key=", "?access_token="):
            assert client.get(f"/health{place}{secure.facts['api_key']}").status_code == 401


def test_a_scope_is_needed(secure: Up, provider: Provider) -> None:
    reader, caller = make(secure, "reader", "--scopes", "read"), make(secure, "caller", "--scopes", "infer")
    none = bearer(provider.token("one", scope="openid"))
    with anonymous(secure) as client:
        assert client.get("/models", headers=reader).status_code == 200
        assert client.get("/models", headers=caller).status_code == 403
        for headers in (reader, none):
            answer = client.post("/v1/models/sklearn-iris:predict", json=IRIS, headers=headers)
            assert answer.status_code == 403
            assert answer.json() == {"error": "this needs the scope 'infer'"}
        assert client.post("/v1/models/sklearn-iris:predict", json=IRIS, headers=caller).status_code == 200


def test_a_clients_requests_do_not_exist_for_others(secure: Up, provider: Provider) -> None:
    alice = [make(secure, "alice"), make(secure, "alice")]
    others = [make(secure, "mallory"), bearer(provider.token("one", sub="alice")), secure.client.headers]
    body = {"model_id": "sklearn-iris", "input_data": IRIS}
    with anonymous(secure) as client:

        def submit(headers: Mapping[str, str]) -> str:
            answer = client.post("/inference", json=body, headers={**headers, "Idempotency-Key": "one"})
            request_id: str = answer.json()["request_id"]
            return request_id

        def listed(headers: Mapping[str, str]) -> list[str]:
            return [
                each["request_id"] for each in client.get("/inference", headers=headers).json()["requests"]
            ]

        request_id = submit(alice[0])
        unknown = client.get("/inference/" + "0" * len(request_id), headers=alice[0])
        assert unknown.status_code == 404
        for headers in others:
            for method in ("GET", "DELETE"):
                answer = client.request(method, f"/inference/{request_id}", headers=headers)
                assert answer.status_code == 404
                assert answer.text.replace(request_id, "") == unknown.text.replace("0" * len(request_id), "")
            assert submit(headers) != request_id
            assert request_id not in listed(headers)
        # Her second key is hers too.
        assert client.get(f"/inference/{request_id}", headers=alice[1]).status_code == 200
        assert submit(alice[1]) == request_id
        assert listed(alice[1]) == [request_id]


def test_a_revoked_key_is_out_within_five_seconds(secure: Up) -> None:
    headers = make(secure, "leaver")
    with anonymous(secure) as client:
        assert client.get("/models", headers=headers).status_code == 200
        command = [sys.executable, "-m", "adapter", "keys", "revoke", "leaver"]
        subprocess.run([*command, "--state-dir", str(secure.state_dir)], check=True, capture_output=True)
        eventually(lambda: client.get("/models", headers=headers).status_code == 401, within_s=5)


def test_the_docs_page_is_guarded_against_others_scripts(secure: Up) -> None:
    with anonymous(secure) as client:
        page = client.get("/docs")
        policy = page.headers["Content-Security-Policy"]
        assert re.search(r"script-src 'self' 'sha256-[A-Za-z0-9+/=]{44}';", policy)
        assert "default-src 'none'" in policy
        assert "unsafe-inline" not in policy.partition("script-src")[2].partition(";")[0]
        assert page.headers["X-Frame-Options"] == "DENY"
        answer = client.get("/health")
        assert answer.headers["Strict-Transport-Security"] == "max-age=31536000"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cache-Control"] == "no-store"


def test_secrets_are_nowhere_to_be_read(secure: Up, provider: Provider) -> None:
    key = make(secure, "canary")
    token = provider.token("one", sub="canary", note=CANARY)
    forged = provider.token("one", aud="others", note=CANARY)
    wrong_key = f"miaas_0123456789abcdef_{CANARY}{'x' * 33}"
    with anonymous(secure) as client:
        for headers in (key, bearer(token), bearer(forged), {"X-API-Key": wrong_key}, bearer(CANARY)):
            client.get("/models", headers=headers)
            client.post("/inference", headers=headers, json={"model_id": 1, "input_data": CANARY[:3]})
            client.post("/v1/models/sklearn-iris:predict", headers=headers, content=b"{")
    secrets = [CANARY, key["X-API-Key"].split("_", 2)[2], token, token.split(".")[2], forged.split(".")[2]]
    secrets.append(secure.facts["api_key"].split("_", 2)[2])
    state = secure.state_dir
    read = {path: path.read_text(errors="replace") for path in (state / "logs").iterdir()}
    read |= {path: path.read_text(errors="replace") for path in state.glob("keys.*")}
    read[Path("/metrics")] = secure.ops.get("/metrics").text
    for pids in secure.facts["pids"].values():
        for pid in pids:
            for name in ("cmdline", "comm", "environ"):
                place = Path(f"/proc/{pid}/{name}")
                read[place] = place.read_bytes().decode(errors="replace")
    for place, text in read.items():
        for secret in secrets:
            assert secret not in text, place
