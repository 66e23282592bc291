"""The adapter that one would write in an hour: FastAPI, json, numpy, tritonclient."""

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import tritonclient.grpc.aio as triton
from fastapi import FastAPI, Request


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """One client as long as the process lives."""
    app.state.client = triton.InferenceServerClient(os.environ["TRITON_GRPC_URL"])
    yield
    await app.state.client.close()


app = FastAPI(lifespan=lifespan)


@app.post("/v1/models/{name}:predict")
async def predict(name: str, request: Request) -> dict[str, Any]:
    """V1's `instances` in, `predictions` out."""
    instances = json.loads(await request.body())["instances"]
    array = np.array(instances, dtype=np.float32)
    tensor = triton.InferInput("input", list(array.shape), "FP32")
    tensor.set_data_from_numpy(array)
    result = await request.app.state.client.infer(name, [tensor])
    return {"predictions": result.as_numpy("output").tolist()}
