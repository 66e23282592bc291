"""Writes docs/gpu.md from docs/gpu.json, which `python -m bench.gpu --json docs/gpu.json` makes."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[2] / "docs"
NOT_YET = "Not yet measured."

INTRODUCTION = """\
# On a GPU

Triton gives a model to a GPU where its `config.pbtxt` says `instance_group [{ kind: KIND_GPU }]`. NVIDIA's
container brings an ONNX Runtime with CUDA; for `miaas-adapter up` it comes from pip:

```console
pip uninstall onnxruntime
pip install 'onnxruntime-gpu[cuda,cudnn]'
```

CUDA's libraries are found where these packages put them; the driver is the machine's own. In `triton.log`
each GPU instance "runs on the GPU", or a warning says that it "is a GPU instance, but runs on the CPU": ONNX
Runtime takes the CPU without an error where it cannot have CUDA.

`python -m bench.gpu --json docs/gpu.json` measures what follows; `python -m bench.gpu.report` writes it down.
"""
CONFIGURATION = """\
## What a model's configuration can say

For the demo's EfficientNet, in place of its `instance_group`:

```protobuf
instance_group [{ kind: KIND_GPU count: 2 }]
optimization { execution_accelerators { gpu_execution_accelerator [{
  name: "tensorrt"
  parameters { key: "precision_mode" value: "FP16" }
  parameters { key: "trt_engine_cache_enable" value: "1" }
  parameters { key: "trt_engine_cache_path" value: "/tmp/engines" }
}] } }
model_warmup [{ name: "zeros" batch_size: 8 inputs {
  key: "input" value { data_type: TYPE_FP32 dims: [3, 224, 224] zero_data: true }
} }]
```

- `count` instances on each GPU run at the same time, and each holds the model in the GPU's memory.
- [TensorRT](https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/onnxruntime_backend/README.html)
  makes an engine of the model when it sees a shape for the first time, which may take minutes. The cache
  keeps engines for the next start; the folder must be one that Triton may write to, and a container's `/tmp`
  is empty at its next start: mount one that stays. FP16 rounds: compare the answers. In NVIDIA's container
  alone: under `up` the line is passed over, and ONNX Runtime's CUDA runs the model.
- Warm-up runs before the model counts as ready, so that no client waits for engines and kernels.
  `models add --warmup` writes one.

With TensorRT: not yet measured.
"""
UNSEEN = """\
> **Nothing on this page has been run on a GPU yet.** The figures are those of a machine without one.
"""


def table(heads: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """A Markdown table."""
    lines = [list(heads)]
    lines.append(["---"] * len(lines[0]))
    lines += [[str(cell) for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def ms(value: float) -> str:
    """Milliseconds, with three digits that count."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def size_of(size: int) -> str:
    """Bytes in the unit in which they are a small number."""
    return f"{size // 1024} KiB" if size < 1024**2 else f"{size // 1024**2} MiB"


def machine(seen: dict[str, Any]) -> str:
    """What it was measured on."""
    about = seen["machine"]
    gpus = "; ".join(about["gpus"]) or "none"
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    loads = about["loads"]
    text = (
        f"GPU: {gpus}. CPU: {about['cpu']}, {about['cores']} cores. {versions}. Figures are the medians of "
    )
    text += f"{seen['draws']} draws. Load average before and after each part: {', '.join(map(str, loads))}."
    if loads[0] > about["cores"] / 2:
        text += (
            " The machine was busy with other work: its figures compare with each other and with no others."
        )
    return text


def stack(part: dict[str, Any]) -> str:
    """Where the demo's instances run, and what a photograph is."""
    rows = ((f"`{name}`", ", ".join(groups) or "ensemble") for name, groups in part["instances"].items())
    places = [f"`{name}` {place}." for name, place in part["log"]]
    processes = [f"{used} of the GPU's memory is held by `{name}`." for name, used in part["processes"]]
    answer = f"A photograph of a cup of coffee is `{part['label']}` to the ensemble `imagenet`; its five "
    answer += f"probabilities are within {part['difference']:.0e} of ONNX Runtime's own on the CPU."
    return "\n\n".join(
        [table(("model", "instances"), rows), *filter(None, [" ".join(places + processes)]), answer]
    )


def speed(part: dict[str, Any]) -> str:
    """Throughput in pictures a second, and latency."""
    heads = (
        "instances",
        "contract",
        "batch",
        "clients",
        "pictures/s",
        "p50 / p90 / p99, ms",
        "draws, pictures/s",
    )

    def cells(row: dict[str, Any]) -> tuple[object, ...]:
        batch = row["batch"]
        latency = " / ".join(ms(row[name]) for name in ("p50", "p90", "p99"))
        draws = sorted(rate * batch for rate in row["rates"])
        return (
            f"{row['instances']} x {row['kind']}",
            row["contract"],
            batch,
            row["concurrency"],
            f"{row['rate'] * batch:.1f}",
            latency,
            f"{draws[0]:.1f} to {draws[-1]:.1f}",
        )

    order = ("contract", "batch", "concurrency", "kind", "instances")
    rows = sorted(part["rows"], key=lambda row: [row[name] for name in order])
    text = table(heads, map(cells, rows))
    if not any(row["kind"] == "GPU" for row in rows):
        text += f"\n\nGPU instances: {NOT_YET.lower()}"
    spread = max(max(row["rates"]) / min(row["rates"]) for row in rows)
    text += "\n\nRequests count that were sent after a second's warm-up, until the last is answered. "
    text += f"The draws of one row differ by up to {spread:.1f} times: "
    text += "a smaller difference between rows says nothing."
    if part["failed"]:
        text += "\n\nFailed: " + "; ".join(part["failed"])
    return text


def pictures(rows: list[dict[str, Any]]) -> str:
    """What decoding and scaling cost, and so what a GPU could take over."""
    heads = ("picture", "decode, ms", "scale with Pillow, ms", "scale on the GPU, ms", "mean difference")
    text = table(
        heads,
        (
            (
                " x ".join(map(str, row["size"])),
                ms(row["decode"]),
                ms(row["pillow"]),
                ms(row["gpu"]) if "gpu" in row else "not yet measured",
                f"{row['difference']:.4f}",
            )
            for row in rows
        ),
    )
    shares = [row["pillow"] / (row["pillow"] + row["decode"]) for row in rows]
    text += "\n\nThe GPU would take over the scaling alone, since cupy decodes no JPEG: "
    text += f"{max(shares):.0%} of the smallest picture's time and {min(shares):.0%} of the largest's. "
    return text + "`mean difference` is that of the other way's tensor, which spans 2, from Pillow's."


def memory(rows: list[dict[str, Any]]) -> str:
    """Round trips through an identity, and from which size shared memory wins."""
    points: dict[tuple[str, int], dict[str, dict[str, Any]]] = {}
    for row in rows:
        points.setdefault((row["kind"], row["size"]), {})[row["way"]] = row

    def cell(ways: dict[str, dict[str, Any]], way: str) -> str:
        return f"{ms(ways[way]['p50'])} / {ms(ways[way]['p99'])}" if way in ways else "not yet measured"

    names = {"gRPC": "in the gRPC message", "system": "system shared memory", "CUDA": "CUDA shared memory"}
    heads = ("identity on", "tensor", *(f"{name}, p50 / p99 ms" for name in names.values()))
    body = (
        (kind, size_of(size), *(cell(ways, way) for way in names)) for (kind, size), ways in points.items()
    )
    about = (
        "Out and back, by Triton's own Python client, with the copies into and out of its regions counted."
    )
    return "\n\n".join([about, table(heads, body), *(winner(points, way) for way in ("system", "CUDA"))])


def winner(points: dict[tuple[str, int], dict[str, dict[str, Any]]], way: str) -> str:
    """At which sizes a way's slowest draw is twice as fast as gRPC's fastest."""
    sentences = []
    for kind in sorted({kind for kind, _ in points}):
        sizes = {size: ways for (of, size), ways in points.items() if of == kind and way in ways}
        if not sizes:
            continue
        won = [
            size
            for size, ways in sorted(sizes.items())
            if 2 * max(ways[way]["p50s"]) < min(ways["gRPC"]["p50s"])
        ]
        text = ", ".join(map(size_of, won)) or "no size"
        sentences.append(
            f"On the {kind}, {way} shared memory is at least twice as fast in every draw at {text}."
        )
    return " ".join(sentences) or f"Of {way} shared memory nothing is measured yet."


PARTS = {
    "stack": ("The demo models under `up`", stack),
    "speed": ("EfficientNet-Lite0 on CPU and GPU instances", speed),
    "pictures": ("Preprocessing of pictures", pictures),
    "memory": ("Tensors to a Triton on the same machine", memory),
}


def document(seen: dict[str, Any]) -> str:
    """The whole of docs/gpu.md."""
    sections = [
        INTRODUCTION,
        *([] if seen["machine"]["gpus"] else [UNSEEN]),
        CONFIGURATION,
        f"## Measured on\n\n{machine(seen)}\n",
    ]
    for name, (title, write) in PARTS.items():
        part = seen.get(name)
        if part is None:
            text = NOT_YET
        elif isinstance(part, dict) and "error" in part:
            text = f"{NOT_YET} It was tried: {part['error']}"
        else:
            text = write(part)  # type: ignore[operator]
        sections.append(f"## {title}\n\n{text}\n")
    return "\n".join(sections)


if __name__ == "__main__":
    (DOCS / "gpu.md").write_text(document(json.loads((DOCS / "gpu.json").read_text())))
