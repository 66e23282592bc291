"""`miaas-adapter predict`, `submit` and `result` against a running service, in processes of their own."""

import json
import os
import signal
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import psutil
import pytest
import skimage.data
import trustme
from PIL import Image

from tests.integration.conftest import Up, eventually
from tests.integration.services import PROGRAM
from tests.integration.serving import make_key, serving
from tests.integration.site import open_site

IRIS = "[[5.1, 3.5, 1.4, 0.2]]"


def run(
    *arguments: str, given: str | bytes = "", env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the command; `given` is its standard input."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("ADAPTER_")}
    done = subprocess.run(
        [sys.executable, "-m", "adapter", *arguments],
        env={**inherited, "NO_COLOR": "1", "COLUMNS": "100", **(env or {})},
        input=given.encode() if isinstance(given, str) else given,
        capture_output=True,
        timeout=60,
    )
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


@pytest.fixture(scope="module")
def coffee() -> bytes:
    buffer = BytesIO()
    Image.fromarray(skimage.data.coffee()).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.fixture
def place(up: Up) -> tuple[str, str]:
    """The option by which a command finds the running `up`, its key and its CA."""
    return "--state-dir", str(up.state_dir)


@pytest.mark.parametrize(
    ("given", "answer"),
    [
        (IRIS, {"predictions": [[1.0, 1.4247285e-22, 3.7e-43]]}),
        (f'\ufeff{{"instances": {IRIS}}}', {"predictions": [[1.0, 1.4247285e-22, 3.7e-43]]}),
        (f'{{"inputs": {IRIS}}}', {"outputs": [[1.0, 1.4247285e-22, 3.7e-43]]}),
        (f'{{"input": {IRIS}}}', {"outputs": [[1.0, 1.4247285e-22, 3.7e-43]]}),
        (
            '[{"sepal_length": 5.1, "sepal_width": 3.5, "petal_length": 1.4, "petal_width": 0.2}]',
            {"predictions": [[1.0, 1.4247285e-22, 3.7e-43]]},
        ),
    ],
)
def test_predict_takes_every_form(place: tuple[str, str], given: str, answer: dict[str, object]) -> None:
    done = run("predict", "sklearn-iris@2", "--json", *place, given=given)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == answer


def test_predict_shows_a_table(place: tuple[str, str], tmp_path: Path, coffee: bytes) -> None:
    (tmp_path / "iris.json").write_text(IRIS)
    done = run("predict", "sklearn-iris", str(tmp_path / "iris.json"), *place)
    assert (done.returncode, done.stderr) == (0, "")
    assert "│ [1.0, 1.4247285e-22, 3.7e-43] │" in done.stdout
    (tmp_path / "coffee.jpg").write_bytes(coffee)
    done = run("predict", "imagenet", str(tmp_path / "coffee.jpg"), *place)
    assert (done.returncode, done.stderr) == (0, "")
    header, row = (line for line in done.stdout.splitlines() if "labels" in line or "espresso" in line)
    assert set(header.split()) == {"┃", "labels", "probabilities"}
    assert '│ ["espresso", ' in row


def test_a_version_on_its_way_out_is_told(place: tuple[str, str]) -> None:
    done = run("predict", "sklearn-iris@1", "--json", *place, given=IRIS)
    assert json.loads(done.stdout) == {"predictions": [[1.0, 0.0, 0.0]]}
    assert done.stderr == (
        "note: sklearn-iris@1 is deprecated since 2026-06-30, "
        "and may be gone from Wed, 30 Jun 2027 00:00:00 GMT on\n"
    )


def test_submit_and_wait(place: tuple[str, str], coffee: bytes) -> None:
    done = run("submit", "sklearn-iris", "-", "--wait", "--json", *place, given=f'{{"input": {IRIS}}}')
    status = json.loads(done.stdout)
    assert (done.returncode, done.stderr, status["status"]) == (0, "", "completed")
    assert status["result"] == {"output": [[1.0, 1.4247285e-22, 3.7e-43]]}
    done = run("submit", "imagenet", "-", "--wait", *place, given=coffee)
    assert (done.returncode, done.stderr) == (0, "")
    assert '│ ["espresso", ' in done.stdout


def test_submit_now_and_read_later(place: tuple[str, str]) -> None:
    done = run("submit", "sklearn-iris", *place, given=IRIS)
    assert done.stderr == "queued; `miaas-adapter result ID` reads its result\n"
    request_id = done.stdout.strip()
    done = run("result", request_id, "--wait", "--json", *place)
    assert json.loads(done.stdout)["result"] == {"predictions": [[1.0, 1.4247285e-22, 3.7e-43]]}
    assert "[1.0, 1.4247285e-22, 3.7e-43]" in run("result", request_id, *place).stdout
    done = run("result", "none", *place)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "no request with the id none\n")


def test_a_request_that_fails_is_an_error(place: tuple[str, str]) -> None:
    done = run("submit", "broken", "-", "--wait", *place, given="[1.0]")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("failed: ")
    assert "this model always fails" in done.stderr
    done = run("submit", "broken", "-", "--wait", "--json", *place, given="[1.0]")
    assert (done.returncode, json.loads(done.stdout)["status"]) == (1, "failed")


@pytest.mark.parametrize(
    ("arguments", "given", "code", "message"),
    [
        (
            ["sklearn-iris"],
            '[[5.1, 3.5, 1.4, "0.2"]]',
            1,
            "input 'input': instances[0][3]: expected a number (FP32), got the string '0.2'",
        ),
        (["no-such-model"], "[1]", 1, "Model not found: no-such-model"),
        (["sklearn-iris@9"], "[1]", 1, "Model not found: sklearn-iris version 9"),
        (["a/../b"], "[1]", 1, "no such path: /v1/models/a/../b:predict"),
        (["sklearn-iris"], "[1", 2, "standard input: is not JSON: Expecting ',' delimiter: line 1 column 3"),
        (["sklearn-iris"], "[" * 100_000, 2, "standard input: is nested too deep"),
        (["sklearn-iris"], "\n", 2, "standard input: is empty"),
        (["sklearn-iris"], "1", 2, "standard input: expected an array of instances, or an object"),
        (["sklearn-iris", "none.json"], "", 2, "none.json: No such file or directory"),
        (
            ["sklearn-iris"],
            b"\xff\xd8",
            2,
            "standard input: is no text, and sklearn-iris takes input FP32 [-1, 4]: write JSON, bytes as {",
        ),
        (
            ["two-io"],
            b"\xff\xd8",
            2,
            "and two-io takes a FP32 [-1, 2], b INT64 [-1, 1], c FP32 [-1, 1]: write JSON, ",
        ),
    ],
)
def test_mistakes_are_said_in_plain_words(
    place: tuple[str, str], arguments: list[str], given: str | bytes, code: int, message: str
) -> None:
    done = run("predict", *arguments, *place, given=given)
    assert (done.returncode, done.stdout) == (code, "")
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_url_and_key_may_be_said(up: Up, tmp_path: Path) -> None:
    key_file = tmp_path / "key"
    key_file.write_text(f"{up.facts['api_key']}\n")
    url = up.facts["url"]
    for options, variables in (
        (["--url", url, "--key", up.facts["api_key"]], {}),
        (["--url", url, "--key", f"@{key_file}"], {}),
        ([], {"ADAPTER_URL": url, "ADAPTER_KEY": f"@{key_file}"}),
        # As it comes out of many a store of secrets.
        ([], {"ADAPTER_URL": url, "ADAPTER_KEY": f"{up.facts['api_key']}\n"}),
    ):
        done = run("predict", "sklearn-iris", "--json", *options, given=IRIS, env=variables)
        assert (done.returncode, done.stderr) == (0, "")
    # The key of an `up` is for its own URL alone.
    done = run("predict", "sklearn-iris", "--url", url, "--state-dir", str(up.state_dir), given=IRIS)
    assert (done.returncode, done.stderr) == (2, "no API key: say --key, or set ADAPTER_KEY\n")
    done = run("predict", "sklearn-iris", "--url", url, "--key", "wrong", given=IRIS)
    assert done.returncode == 1
    assert up.facts["api_key"] not in done.stderr


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--state-dir", "nowhere"], 2, "no `up` runs on nowhere: say where the API is with --url"),
        (["--url", "http://127.0.0.1:9", "--key", "k"], 1, "http://127.0.0.1:9: cannot be reached: "),
        (["--url", "localhost:9", "--key", "k"], 1, "localhost:9: cannot be reached: "),
        (["--url", "http://127.0.0.1:9", "--key", "ä"], 2, "the URL or the key cannot be sent: "),
        (["--url", "http://127.0.0.1:9", "--key", "k\nx"], 2, "the API key holds a line break, or another "),
        (
            ["--url", "http://127.0.0.1:9", "--key", "@none"],
            2,
            "none: the key cannot be read: No such",
        ),
        (
            ["--url", "https://127.0.0.1:9", "--key", "k", "--ca-file", "none.pem"],
            2,
            "none.pem: is no CA certificate that can be read: No such file or directory",
        ),
    ],
)
def test_an_api_that_cannot_be_asked(options: list[str], code: int, message: str) -> None:
    done = run("predict", "m", *options, given="[1]")
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith(message)
    assert len(done.stderr.splitlines()) == 1


def test_an_api_with_a_certificate_of_its_own(tmp_path: Path) -> None:
    ca = trustme.CA()
    issued = ca.issue_cert("127.0.0.1")
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    issued.private_key_pem.write_to_path(tmp_path / "key.pem")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    tls = {"TLS_CERT_FILE": str(tmp_path / "cert.pem"), "TLS_KEY_FILE": str(tmp_path / "key.pem")}
    key = make_key(tmp_path, "alice")["X-API-Key"]
    with serving(tmp_path, **tls) as api:
        options = ["--url", api.url, "--key", key]
        done = run("predict", "m", *options, given="[1]")
        assert (done.returncode, done.stderr) == (
            1,
            f"{api.url}: its certificate is not trusted; name the CA that it is from with --ca-file\n",
        )
        done = run("predict", "m", *options, "--ca-file", str(tmp_path / "ca.pem"), given="[1]")
        assert (done.returncode, done.stderr) == (1, "Triton cannot be reached\n")


def test_whoever_waits_waits_through_a_restart_of_the_api(tmp_path: Path) -> None:
    with open_site(tmp_path, workers=1) as site:
        assert site.workers[0].stop() == 0
        options = ["--url", site.urls[0], "--key", site.api_key]
        (tmp_path / "seven.json").write_text('{"value": [[7]]}')
        waiting = subprocess.Popen(
            [*PROGRAM, "submit", "count", str(tmp_path / "seven.json"), "--wait", "--json", *options],
            env=site.env,
            stdout=subprocess.PIPE,
            text=True,
        )
        eventually(lambda: site.cli("queue", "list", "waiting"))
        site.apis[0].restart()
        site.workers[0].start().wait_up()
        printed, _ = waiting.communicate(timeout=30)
        assert waiting.returncode == 0
        assert json.loads(printed)["result"] == {"echo": [[7]]}

        assert site.workers[0].stop() == 0
        request_id = run("submit", "count", *options, given='{"value": [[8]]}').stdout.strip()
        assert run("result", request_id, *options).stdout == "processing\n"
        impatient = subprocess.Popen(
            [*PROGRAM, "result", request_id, "--wait", *options],
            env=site.env,
            stderr=subprocess.PIPE,
            text=True,
            # A program that is started in the background inherits that the signal is ignored.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        # It waits as soon as it has connected.
        eventually(lambda: psutil.Process(impatient.pid).net_connections("tcp"))
        impatient.send_signal(signal.SIGINT)
        _, said = impatient.communicate(timeout=30)
        assert (impatient.returncode, said) == (
            130,
            f"{request_id} goes on; `miaas-adapter result {request_id}` reads its result\n",
        )
