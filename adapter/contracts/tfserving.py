"""What TensorFlow Serving's REST API says of a model, beyond what the shared description holds.

https://www.tensorflow.org/tfx/serving/api_rest, "Model Metadata API": a `SignatureDefMap` in protobuf's JSON.
"""

from collections.abc import Sequence
from typing import Any

from adapter.core.types import ModelMetadata, TensorMetadata

_DTYPES = {
    "BOOL": "DT_BOOL",
    "INT8": "DT_INT8",
    "INT16": "DT_INT16",
    "INT32": "DT_INT32",
    "INT64": "DT_INT64",
    "UINT8": "DT_UINT8",
    "UINT16": "DT_UINT16",
    "UINT32": "DT_UINT32",
    "UINT64": "DT_UINT64",
    "FP16": "DT_HALF",
    "BF16": "DT_BFLOAT16",
    "FP32": "DT_FLOAT",
    "FP64": "DT_DOUBLE",
    "BYTES": "DT_STRING",
}
SIGNATURE = "serving_default"


def metadata_body(metadata: ModelMetadata) -> dict[str, Any]:
    """The answer of `/metadata`: one signature with the model's inputs and outputs."""
    signature = {
        "inputs": _tensors(metadata.inputs),
        "outputs": _tensors(metadata.outputs),
        "method_name": "tensorflow/serving/predict",
        "defaults": {},
    }
    return {
        "model_spec": {"name": metadata.name, "signature_name": "", "version": metadata.version},
        "metadata": {"signature_def": {"signature_def": {SIGNATURE: signature}}},
    }


def _tensors(tensors: Sequence[TensorMetadata]) -> dict[str, Any]:
    return {
        tensor.name: {
            "dtype": _DTYPES[tensor.datatype],
            "tensor_shape": {
                # Protobuf's JSON prints 64-bit integers as strings.
                "dim": [{"size": str(size), "name": ""} for size in tensor.shape],
                "unknown_rank": False,
            },
            "name": f"{tensor.name}:0",
        }
        for tensor in tensors
    }
