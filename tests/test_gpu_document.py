"""docs/gpu.md holds the figures of docs/gpu.json and no others."""

import json

from bench.gpu.report import DOCS, document


def test_the_document_is_what_its_figures_make() -> None:
    figures = json.loads((DOCS / "gpu.json").read_text())
    assert document(figures) == (DOCS / "gpu.md").read_text(), "run `python -m bench.gpu.report`"


def test_without_a_gpu_it_says_so() -> None:
    figures = json.loads((DOCS / "gpu.json").read_text())
    figures["machine"]["gpus"] = []
    assert "Nothing on this page has been run on a GPU yet" in document(figures)


def test_a_part_that_failed_is_not_yet_measured() -> None:
    figures = json.loads((DOCS / "gpu.json").read_text())
    figures["memory"] = {"error": "RuntimeError: no room"}
    assert "Not yet measured. It was tried: RuntimeError: no room" in document(figures)
