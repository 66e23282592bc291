"""The models that only tests need, written as a Triton model repository."""

import argparse
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

SOURCES = Path(__file__).parent

# Triton's names on the wire; a configuration writes TYPE_STRING for BYTES.
DATATYPES = (
    *("BOOL", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64"),
    *("FP16", "BF16", "FP32", "FP64", "BYTES"),
)


class Tensor(NamedTuple):
    name: str
    datatype: str
    dims: tuple[int, ...]
    optional: bool = False

    def config(self) -> str:
        datatype = "STRING" if self.datatype == "BYTES" else self.datatype
        optional = " optional: true" if self.optional else ""
        return f'{{ name: "{self.name}" data_type: TYPE_{datatype} dims: {list(self.dims)}{optional} }}'


def write_model(
    folder: Path,
    source: str,
    max_batch_size: int,
    inputs: Iterable[Tensor],
    outputs: Iterable[Tensor],
    more: str = "",
) -> None:
    """A folder that Triton's python backend loads, one process on the CPU."""
    (folder / "1").mkdir(parents=True)
    shutil.copyfile(SOURCES / source, folder / "1" / "model.py")
    (folder / "config.pbtxt").write_text(
        f"""\
backend: "python"
max_batch_size: {max_batch_size}
input [{", ".join(tensor.config() for tensor in inputs)}]
output [{", ".join(tensor.config() for tensor in outputs)}]
instance_group [{{ kind: KIND_CPU count: 1 }}]
{more}"""
    )


def write_count_model(folder: Path, log: Path) -> None:
    """The model that writes down its executions in `log`."""
    inputs, outputs = [Tensor("value", "INT64", (1,))], [Tensor("echo", "INT64", (1,))]
    parameter = f'parameters {{ key: "log" value: {{ string_value: "{log}" }} }}\n'
    write_model(folder, "count.py", 64, inputs, outputs, parameter)


def write_running_sum_model(folder: Path) -> None:
    """The model whose requests form sequences."""
    write_model(
        folder,
        "running_sum.py",
        0,
        [Tensor("INPUT0", "INT32", (1,))],
        [Tensor("sum", "INT32", (1,))],
        # Triton tells the model where a sequence begins by a tensor of its own.
        """sequence_batching { control_input [{
  name: "START" control [{ kind: CONTROL_SEQUENCE_START int32_false_true: [0, 1] }]
}] }
""",
    )


def write_block_model(folder: Path, elements: int, more: str = "") -> None:
    """The model of large tensors that takes its time."""
    inputs, outputs = [Tensor("block", "FP32", (elements,))], [Tensor("echo", "FP32", (elements,))]
    write_model(folder, "block.py", 0, inputs, outputs, more)


def build(target: Path) -> None:
    """Write every test model into `target`, a folder that has none of them yet."""
    for datatype in DATATYPES:
        write_model(
            target / f"identity-{datatype.lower()}",
            "echo.py",
            0,
            [Tensor("INPUT0", datatype, (-1, -1))],
            [Tensor("OUTPUT0", datatype, (-1, -1))],
        )
    write_model(
        target / "identity-batch",
        "echo.py",
        8,
        [Tensor("INPUT0", "FP32", (-1,))],
        [Tensor("OUTPUT0", "FP32", (-1,))],
    )
    write_model(
        target / "two-io",
        "two_io.py",
        4,
        [Tensor("a", "FP32", (2,)), Tensor("b", "INT64", (1,)), Tensor("c", "FP32", (1,), optional=True)],
        [Tensor("sum", "FP32", (1,)), Tensor("echo", "INT64", (1,))],
    )
    write_model(
        target / "sleepy",
        "sleepy.py",
        0,
        [Tensor("seconds", "FP32", (1,))],
        [Tensor("slept", "FP32", (1,))],
    )
    write_model(
        target / "crash", "crash.py", 0, [Tensor("INPUT0", "FP32", (1,))], [Tensor("OUTPUT0", "FP32", (1,))]
    )
    write_model(target / "broken", "broken.py", 0, [Tensor("x", "FP32", (1,))], [Tensor("y", "FP32", (1,))])
    write_model(
        target / "inspect",
        "inspect_request.py",
        0,
        [Tensor("INPUT0", "INT32", (1,))],
        [Tensor("seen", "BYTES", (1,))],
    )
    write_running_sum_model(target / "running-sum")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write the test models as a Triton model repository.")
    parser.add_argument("target", type=Path)
    build(parser.parse_args().target)
