"""Measures the stack with a GPU, and without one where there is none: JSON for `bench.gpu.report`.

Every part stands alone: one that fails is recorded with its error, and the others are measured.
"""

import argparse
import json
import os
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.gpu import memory, pictures, speed, stack
from bench.gpu.machine import describe, has_gpu

Part = Callable[[Path, tuple[str, ...], int], Any]
PARTS: dict[str, Part] = {
    "stack": stack.examine,
    "speed": speed.measure,
    "pictures": pictures.measure,
    "memory": memory.measure,
}


def main() -> None:
    """Measure the parts that were asked for and write what was seen, after each part anew."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, required=True, help="where to write what was seen")
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--only", nargs="*", default=list(PARTS), choices=list(PARTS))
    options = parser.parse_args()
    kinds = ("CPU", "GPU") if has_gpu() else ("CPU",)
    machine = describe()
    seen: dict[str, Any] = {"machine": machine, "draws": options.draws}
    for name in options.only:
        with tempfile.TemporaryDirectory() as folder:
            try:
                seen[name] = PARTS[name](Path(folder), kinds, options.draws)
            except BaseException as error:  # `pytest.fail`, by which the servers' start fails, is one
                if isinstance(error, KeyboardInterrupt):
                    raise
                traceback.print_exc()
                seen[name] = {"error": f"{type(error).__name__}: {error}"}
        machine["loads"].append(round(os.getloadavg()[0], 1))
        options.json.write_text(json.dumps(seen, indent=1) + "\n")


if __name__ == "__main__":
    main()
