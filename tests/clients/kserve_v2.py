"""KServe's own client, unmodified, in V2 mode: `python kserve_v2.py URL [KEY]` prints what it saw as JSON."""

import asyncio
import json
import sys

import numpy as np
from httpx import HTTPStatusError
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput

url, *key = sys.argv[1:]
headers = {"X-API-Key": key[0]} if key else {}
FLOWER = np.array([[5.1, 3.5, 1.4, 0.2]], np.float32)


async def infer(client: InferenceRESTClient, *, into: bool, out: bool) -> object:
    """One inference, its input and its output each in JSON or in binary."""
    one = InferInput("input", [1, 4], "FP32")
    one.set_data_from_numpy(FLOWER, binary_data=into)
    wanted = [RequestedOutput("output", {"binary_data": out})]
    request = InferRequest("sklearn-iris", [one], request_id="7", request_outputs=wanted)
    answer = await client.infer(url, request, model_name="sklearn-iris", headers=dict(headers))
    values = answer.outputs[0].as_numpy()
    return [answer.id, answer.model_name, answer.model_version, str(values.dtype), values.tolist()]


async def refused(client: InferenceRESTClient, model: str) -> int:
    """The status of an inference that must fail."""
    request = InferRequest(model, [InferInput("input", [1, 1], "FP32", [1.0])])
    try:
        await client.infer(url, request, model_name=model, headers=dict(headers))
    except HTTPStatusError as error:
        return error.response.status_code
    return 200


async def main() -> None:
    client = InferenceRESTClient(RESTConfig(protocol="v2"))
    forms = [(False, False), (False, True), (True, False), (True, True)]
    seen = {
        "model ready": await client.is_model_ready(url, "sklearn-iris", headers=headers),
        "unknown ready": await client.is_model_ready(url, "nope", headers=headers),
        "infer": [await infer(client, into=into, out=out) for into, out in forms],
        "wrong": await refused(client, "sklearn-iris"),
        "unknown": await refused(client, "nope"),
    }
    if key:
        # Triton answers these with an empty body, which this client cannot read.
        seen["live"] = await client.is_server_live(url, headers=headers)
        seen["ready"] = await client.is_server_ready(url, headers=headers)
    await client.close()
    print(json.dumps(seen))


asyncio.run(main())
