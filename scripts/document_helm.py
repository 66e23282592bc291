"""Writes the settings into the values.schema.json of the chart: Helm then refuses what the adapter would."""

import json
from pathlib import Path
from typing import Any

from adapter.settings import Settings

SCHEMA = Path(__file__).parents[1] / "docker/helm/miaas-adapter/values.schema.json"

CHARTS_OWN = frozenset({"host", "port", "ops_host", "ops_port", "metrics_dir", "state_dir", "keys_file"})
"""What the image or the chart says already."""
ELSEWHERE = frozenset({"triton_grpc_url", "nats_url", "tls_ended_by_proxy", "triton_traces_url"})
"""What follows from other values of the chart, or is for `up` alone."""


def documented(text: str) -> str:
    """The schema's text with the settings as they should be."""
    schema = json.loads(text)
    described = Settings.model_json_schema()["properties"]
    free = {name: _plain(one) for name, one in described.items() if name not in CHARTS_OWN | ELSEWHERE}
    files = sorted(name for name in free if name.endswith("_file"))
    secrets = sorted(name for name, one in free.items() if one.get("writeOnly"))
    values = schema["properties"]
    values["settings"]["properties"] = {
        name: one for name, one in free.items() if name not in (*files, *secrets)
    }
    values["files"]["propertyNames"] = {"enum": files}
    values["secretSettings"]["propertyNames"] = {"enum": sorted(free.keys() - set(files))}
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _plain(described: dict[str, Any]) -> dict[str, Any]:
    """A setting's schema without its name, its default, and null: whoever leaves it out gives none."""
    one = {
        key: value for key, value in described.items() if key not in ("title", "default", "anyOf", "format")
    }
    kinds = [kind for kind in described.get("anyOf", []) if kind != {"type": "null"}]
    one |= {key: value for key, value in (kinds[0] if kinds else {}).items() if key != "format"}
    return one | {"description": " ".join(described["description"].split())}


if __name__ == "__main__":
    SCHEMA.write_text(documented(SCHEMA.read_text()))
