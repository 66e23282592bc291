"""Writes docs/openapi.json, unless the change would break a client."""

import json
import sys
from pathlib import Path

from adapter.app import openapi_document
from scripts.openapi_compatibility import breaking

SNAPSHOT = Path(__file__).parents[1] / "docs" / "openapi.json"

if __name__ == "__main__":
    document = openapi_document()
    if SNAPSHOT.exists() and (found := breaking(json.loads(SNAPSHOT.read_text()), document)):
        sys.exit("\n".join(["This would break clients; see docs/versioning.md.", *found]))
    SNAPSHOT.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
