"""KServe's own client, unmodified, in V1 mode: `python kserve_v1.py URL KEY` prints what it saw as JSON."""

import asyncio
import json
import sys
from typing import Any

from httpx import HTTPStatusError
from kserve import InferenceRESTClient, RESTConfig

url, key = sys.argv[1:]
headers = {"X-API-Key": key}


async def refused(client: InferenceRESTClient, model: str, data: dict[str, Any]) -> str:
    try:
        await client.infer(url, data, model_name=model, headers=headers)
    except HTTPStatusError as error:
        return str(error)
    return "not refused"


async def main() -> None:
    client = InferenceRESTClient(RESTConfig(protocol="v1"))
    flower = {"instances": [[5.1, 3.5, 1.4, 0.2]]}
    seen = {
        "live": await client.is_server_live(url, headers=headers),
        "model ready": await client.is_model_ready(url, "sklearn-iris", headers=headers),
        "infer": await client.infer(url, flower, model_name="sklearn-iris", headers=headers),
        "unknown": await refused(client, "nope", flower),
        "wrong": await refused(client, "sklearn-iris", {"instances": [[5.1]]}),
    }
    print(json.dumps(seen))


asyncio.run(main())
