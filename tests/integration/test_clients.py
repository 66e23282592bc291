"""Clients that were not written for us, unmodified."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.integration.conftest import ROOT, Up

KSERVE = ROOT / ".venv-kserve" / "bin" / "python"
TEXT_URL = "https://sklearn-iris.example.com"

# As the V1 protocol's text prints them; only a key is added, outside of the code.
CURL = r"""
curl -X POST https://sklearn-iris.example.com/v1/models/sklearn-iris:predict \
  -H "Content-Type: application/json" \
  -d '{
    "instances": [
      [5.1, 3.5, 1.4, 0.2]
    ]
  }'
"""
PYTHON = """
import requests
import json

url = "https://sklearn-iris.example.com/v1/models/sklearn-iris:predict"
data = {
    "instances": [[5.1, 3.5, 1.4, 0.2]]
}

response = requests.post(url, json=data)
predictions = response.json()["predictions"]
"""
JAVASCRIPT = """
const response = await fetch(
  "https://sklearn-iris.example.com/v1/models/sklearn-iris:predict",
  {
    method: "POST",
    headers: {
      "Content-Type": "application/json"
    },
    body: JSON.stringify({
      instances: [[5.1, 3.5, 1.4, 0.2]]
    })
  }
);

const result = await response.json();
console.log(result.predictions);
"""


def run(command: list[str], **environment: str) -> str:
    """What a command prints; it must succeed."""
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, env={**os.environ, **environment}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_curl_as_the_text_prints_it(up: Up, tmp_path: Path) -> None:
    (tmp_path / ".curlrc").write_text(f'silent\nheader = "X-API-Key: {up.facts["api_key"]}"\n')
    printed = run(["bash", "-c", CURL.replace(TEXT_URL, up.facts["url"])], CURL_HOME=str(tmp_path))
    assert json.loads(printed)["predictions"][0][0] == pytest.approx(1.0)


def test_requests_as_the_text_prints_it(up: Up, monkeypatch: pytest.MonkeyPatch) -> None:
    import requests

    plain = requests.post
    headers = {"X-API-Key": up.facts["api_key"]}
    monkeypatch.setattr(requests, "post", lambda url, **more: plain(url, headers=headers, **more))
    names: dict[str, list[list[float]]] = {}
    exec(PYTHON.replace(TEXT_URL, up.facts["url"]), names)
    assert names["predictions"][0][0] == pytest.approx(1.0)


def test_fetch_as_the_text_prints_it(up: Up) -> None:
    with_key = """
const plain = globalThis.fetch;
globalThis.fetch = (url, options) =>
  plain(url, { ...options, headers: { ...options.headers, "X-API-Key": process.env.API_KEY } });
"""
    code = with_key + JAVASCRIPT.replace(TEXT_URL, up.facts["url"])
    printed = run(["node", "--input-type=module", "-e", code], API_KEY=up.facts["api_key"])
    assert printed.startswith("[ [ 1, ")


def test_kserve_client_in_v1_mode(up: Up) -> None:
    assert KSERVE.exists(), "run the tests by `make test`, which sets up KServe's client"
    script = ROOT / "tests" / "clients" / "kserve_v1.py"
    seen = json.loads(run([str(KSERVE), str(script), up.facts["url"], up.facts["api_key"]]))
    assert seen["infer"]["predictions"][0][0] == pytest.approx(1.0)
    assert seen["live"] is True
    assert seen["model ready"] is True
    assert seen["unknown"].startswith("Model not found: nope, '404 Not Found'")
    wrong = "input 'input': instances[0]: expected an array of 4, got an array of 1"
    assert seen["wrong"].startswith(f"{wrong}, '400 Bad Request'")
