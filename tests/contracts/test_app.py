"""What holds for every path of the app: credentials, errors, bodies, metrics, documentation."""

import socket
from pathlib import Path

import httpx
import pytest

from adapter.settings import Settings
from tests.contracts.running import PATH, ROW, SUBMISSION, Api, assert_error, running

# One path of each kind: (method, path, its contract's form).
PATHS = [
    ("GET", "/", "miaas"),
    ("GET", "/health", "miaas"),
    ("GET", "/v1/health", "miaas"),
    ("POST", "/inference", "miaas"),
    ("POST", "/v1/inference", "miaas"),
    ("GET", "/inference", "miaas"),
    ("GET", "/v1/inference", "miaas"),
    ("GET", "/inference/abc", "miaas"),
    ("GET", "/v1/inference/abc", "miaas"),
    ("DELETE", "/inference/abc", "miaas"),
    ("DELETE", "/v1/inference/abc", "miaas"),
    ("GET", "/models", "miaas"),
    ("GET", "/v1/models", "miaas"),
    ("GET", "/models/sklearn-iris", "miaas"),
    ("GET", PATH, "v1"),
    ("GET", f"{PATH}/versions/1", "v1"),
    ("GET", f"{PATH}/labels/stable", "v1"),
    ("POST", f"{PATH}:predict", "v1"),
    ("POST", f"{PATH}/versions/1:predict", "v1"),
    ("POST", f"{PATH}/labels/stable:predict", "v1"),
]


LIMIT_HEADERS = {
    *("ratelimit", "ratelimit-policy"),
    *("x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"),
}

# --- Every path ---


@pytest.mark.parametrize(("method", "path", "form"), PATHS)
def test_without_credentials_every_path_is_401(api: Api, method: str, path: str, form: str) -> None:
    realm = 'Bearer realm="miaas-adapter"'
    # RFC 6750, section 3.1: a request without credentials is told no error code.
    unknown = ', error="invalid_token", error_description="the API key is not known, or not valid any more"'
    for headers, challenge in (
        ({}, realm),
        ({"X-API-Key": "wrong"}, realm + unknown),
        ({"Authorization": "Bearer wrong"}, realm + unknown),
        ({"Authorization": "Basic YTpi"}, realm),
    ):
        response = api.call(method, path, who="", headers=headers)
        assert_error(response, 401, "unauthenticated", form)
        assert response.headers["www-authenticate"] == challenge
    assert api.engine.looked_up == []


@pytest.mark.parametrize(("method", "path", "form"), PATHS)
def test_a_key_without_the_scope_is_403(api: Api, method: str, path: str, form: str) -> None:
    who, scope = ("sender", "read") if method == "GET" else ("reader", "infer")
    assert_error(
        api.call(method, path, who), 403, "permission_denied", form, f"this needs the scope '{scope}'"
    )


@pytest.mark.parametrize(("method", "path", "form"), PATHS)
def test_a_method_that_a_path_does_not_take_is_405(api: Api, method: str, path: str, form: str) -> None:
    taken = {method} | {known for known, same, _ in PATHS if same == path}
    for other in {"GET", "POST", "PUT", "PATCH", "DELETE"} - taken:
        response = api.call(other, path)
        assert_error(response, 405, "method_not_allowed", form, f"{other} is not allowed on {path}")
        allowed = response.headers["allow"].split(", ")
        assert set(allowed) == taken | ({"HEAD"} if "GET" in taken else set())


@pytest.mark.parametrize("path", [path for method, path, _ in PATHS if method == "GET"])
@pytest.mark.parametrize("who", ["alice", "sender", ""])
def test_head_is_get_without_its_body(api: Api, path: str, who: str) -> None:
    key = {"X-API-Key": api.keys[who]} if who else {}
    with httpx.Client(base_url=api.url, headers=key, trust_env=False) as client:
        got = client.get(path)
        for _ in range(2):  # the second finds the connection as it should be
            asked = client.head(path)
            assert (asked.status_code, asked.content) == (got.status_code, b"")
            same = got.headers.keys() - {"date", "x-request-id"} - LIMIT_HEADERS
            assert asked.headers.keys() == got.headers.keys()
            assert {name: asked.headers[name] for name in same} == {name: got.headers[name] for name in same}
    assert int(got.headers["content-length"]) == len(got.content) > 0


def test_head_of_what_is_posted_to_is_405(api: Api) -> None:
    response = api.call("HEAD", f"{PATH}:predict")
    assert (response.status_code, response.headers["allow"], response.content) == (405, "POST", b"")


@pytest.mark.parametrize(
    ("path", "form"),
    [
        ("/nothing", "miaas"),
        ("/v1", "miaas"),
        ("/v1/nothing", "miaas"),
        ("/health/", "miaas"),
        ("/inference/a/b", "miaas"),
        ("/models/", "miaas"),
        ("/openapi.json", "miaas"),
        ("/docs", "miaas"),
        ("/v1/models/", "v1"),
        (f"{PATH}/", "v1"),
        (f"{PATH}/nothing", "v1"),
        (f"{PATH}/versions", "v1"),
        (f"{PATH}/versions/1/2", "v1"),
        (f"{PATH}:", "v1"),
        ("/v1/models/a%2Fb:predict", "v1"),
        ("/v1/models/a:b:predict", "v1"),
        (f"{PATH}/versions/:predict", "v1"),
    ],
)
def test_a_path_that_is_none_is_404(api: Api, path: str, form: str) -> None:
    for method in ("GET", "POST"):
        assert_error(api.call(method, path), 404, "not_found", form, "no such path: /")
    assert api.call("GET", path, who="").status_code == 401


def test_a_long_path_is_cut_in_the_message(api: Api) -> None:
    message = api.get("/" + "x" * 5000).json()["error"]["message"]
    assert message == "no such path: /" + "x" * 199


@pytest.mark.parametrize(
    ("method", "path", "form"), [("POST", "/inference", "miaas"), ("POST", f"{PATH}:predict", "v1")]
)
class TestBodies:
    def test_one_over_the_limit_is_413_before_its_end(
        self, api: Api, method: str, path: str, form: str
    ) -> None:
        # The client never ends its body; that it gets an answer shows that nobody waits for that.
        with socket.create_connection(("127.0.0.1", api.port), timeout=10) as connection:
            head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nX-API-Key: {api.keys['alice']}\r\n"
            connection.sendall(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
            connection.sendall((b"2710\r\n" + b" " * 10_000 + b"\r\n") * 11)
            answer = b""
            while b"}" not in answer:
                answer += connection.recv(10_000)
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert b"the body is larger than 100000 bytes" in answer
        response = api.call(method, path, content=b" " * 100_001)
        assert_error(response, 413, "payload_too_large", form, "the body is larger than 100000 bytes")

    def test_one_at_the_limit_is_read(self, api: Api, method: str, path: str, form: str) -> None:
        response = api.call(method, path, content=b" " * 99_998 + b"{}")
        assert_error(response, 400, "invalid_input", form)

    def test_an_encoded_one_is_415(self, api: Api, method: str, path: str, form: str) -> None:
        response = api.call(method, path, content=b"x", headers={"Content-Encoding": "gzip"})
        assert_error(response, 415, "unsupported_encoding", form, "Content-Encoding 'gzip' is not supported")

    def test_a_client_that_hangs_up_leaves_no_trace(
        self, api: Api, method: str, path: str, form: str
    ) -> None:
        model = "sklearn-iris" if form == "v1" else ""
        before = api.count(contract=form, model=model, code="499")
        with socket.create_connection(("127.0.0.1", api.port)) as connection:
            head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nX-API-Key: {api.keys['alice']}\r\n"
            connection.sendall(f'{head}Content-Length: 50\r\n\r\n{{"instances": '.encode())
        assert api.counts(before + 1, contract=form, model=model, code="499")
        assert api.engine.requests == []
        assert api.get("/health").status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "form"),
    [entry for entry in PATHS if entry[1] != "/" and (entry[0] == "POST" or "/inference" not in entry[1])],
)
def test_of_an_unexpected_error_not_a_word_is_shown(api: Api, method: str, path: str, form: str) -> None:
    api.engine.fault = RuntimeError("/srv/secret/path.py: it broke")
    before = api.count(contract=form, model="", code="500")
    response = api.post(path, SUBMISSION) if method == "POST" else api.get(path)
    assert_error(response, 500, "internal", form, "an internal error; the server's log has more")
    assert "secret" not in response.text + str(response.headers)
    assert api.counts(before + 1, contract=form, model="", code="500")
    api.reset()
    assert api.get("/health").status_code == 200


# --- Credentials, metrics, documentation ---


@pytest.mark.parametrize(
    ("path", "form"),
    [
        (PATH, "v1"),
        (f"{PATH}/metadata", "v1"),
        ("/v2/models/sklearn-iris", "v2"),
        ("/models/sklearn-iris", "miaas"),
    ],
)
def test_who_looks_at_a_model_is_none_of_its_requests(api: Api, path: str, form: str) -> None:
    """It takes no time to speak of: among predictions it would hide the slow ones."""
    looks, requests = api.count(contract=form, model="", code="200"), api.count(model="sklearn-iris")
    assert api.get(path).status_code == 200
    assert api.counts(looks + 1, contract=form, model="", code="200")
    assert api.count(model="sklearn-iris") == requests


def test_a_key_may_come_in_either_header(api: Api) -> None:
    for headers in (
        {"X-API-Key": api.keys["alice"]},
        {"Authorization": f"Bearer {api.keys['alice']}"},
        {"Authorization": f"bearer  {api.keys['alice']}"},
    ):
        assert api.get("/health", who="", headers=headers).status_code == 200


def ask_for(api: Api, name: str) -> None:
    """Everything that a client can name, by a name that it made up."""
    for who in ("alice", ""):
        api.get(f"/v1/models/{name}", who)
        api.get(f"/v1/models/sklearn-iris/versions/{name}", who)
        api.post(f"/v1/models/{name}:predict", {"instances": [ROW]}, who)
        api.post(f"/v1/models/sklearn-iris/labels/{name}:predict", {"instances": [ROW]}, who)
        api.post(f"/v2/models/{name}/infer", {"inputs": []}, who)
        api.get(f"/v2/models/{name}/stats", who)
        api.post("/inference", SUBMISSION | {"model_id": name}, who)
        api.post("/inference/batch", [SUBMISSION, SUBMISSION | {"model_id": name}], who)
        api.get(f"/inference/{name}", who)
        api.call("DELETE", f"/inference/{name}", who)
        api.get(f"/{name}", who)
        api.call("BREW", f"/{name}", who)
    for key in (name, f"miaas_0123456789abcdef_{name:x<43}"):
        api.get("/models", "", headers={"X-API-Key": key})


def series(api: Api) -> int:
    return sum(len(family.series) for family in api.services.metrics.families)


def test_a_made_up_name_never_becomes_a_label(api: Api) -> None:
    api.post(f"{PATH}:predict", {"instances": [ROW]})
    ask_for(api, "made-up-name")
    known = series(api)
    for number in range(10):
        ask_for(api, f"made-up-name-{number}")
    assert series(api) == known
    labels = [
        label for family in api.services.metrics.families for values in family.series for label in values
    ]
    assert "sklearn-iris" in labels
    assert not [label for label in labels if "made-up-name" in label]


def test_requests_are_counted_by_contract_model_and_status(api: Api) -> None:
    good, bad = ({"contract": "v1", "model": "sklearn-iris", "code": code} for code in ("200", "400"))
    before = api.count(**good), api.count(**bad)
    api.post(f"{PATH}:predict", {"instances": [ROW]})
    api.post(f"{PATH}:predict", {"instances": [1]})
    assert api.counts(before[0] + 1, **good)
    assert api.counts(before[1] + 1, **bad)


def test_the_documentation_is_open_where_it_is_switched_on(tmp_path: Path) -> None:
    with running(Settings(state_dir=tmp_path, docs=True)) as api:
        page = api.get("/docs", who="")
        assert page.status_code == 200
        assert "http://" not in page.text.replace(api.url, "")
        assert "https://" not in page.text
        assert api.get("/openapi.json", who="").json()["openapi"] == "3.1.0"
        assert api.get("/docs/files/swagger-ui-bundle.js", who="").status_code == 200
        # The rest is as closed as ever.
        assert api.get("/health", who="").status_code == 401
        assert api.get("/docs/files/../../health", who="").status_code in (401, 404)
