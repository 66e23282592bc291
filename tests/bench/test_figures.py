"""From draws to figures, goals and the page."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from bench.goals import GOALS, Goal
from bench.report import page
from bench.results import Draw, Run
from bench.summary import Figure, compared, figure


def make_draw(server: str, number: int, per_second: float, connections: int = 1) -> Draw:
    return Draw(server, "iris", connections, number, 100, 0, per_second, 1.0, 2.0, 3.0, 40.0, 50.0)


def make_run(draws: list[Draw]) -> Run:
    servers = {key: key for key in dict.fromkeys(draw.server for draw in draws)}
    return Run(
        "test", "2026-11-21", True, {"CPU": "2 cores"}, servers, {"mlserver": "gone"}, {"iris": "x"}, draws
    )


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([5.0], Figure(5.0, 5.0, 5.0)),
        ([3.0, 1.0, 2.0], Figure(2.0, 1.0, 3.0)),
        ([1.0, 2.0, 3.0, 4.0, 5.0], Figure(3.0, 2.0, 4.0)),
    ],
)
def test_a_figure_is_a_median_within_quartiles(values: list[float], expected: Figure) -> None:
    assert Figure.of(values) == expected


def test_no_draws_are_no_figure() -> None:
    assert Figure.of([]) is None
    assert figure(make_run([]), "adapter", "iris", 1, "per_second") is None


def test_a_machine_that_drifts_does_not_change_a_ratio() -> None:
    draws = [make_draw("adapter", number, 200.0 / speed) for number, speed in enumerate((1, 2, 4))]
    draws += [make_draw("kserve", number, 100.0 / speed) for number, speed in enumerate((1, 2, 4))]
    found = compared(make_run(draws), "adapter", "kserve", "iris", 1, "per_second")
    assert found == Figure(2.0, 2.0, 2.0)


def test_only_draws_of_one_number_are_compared() -> None:
    draws = [make_draw("adapter", 0, 100.0), make_draw("adapter", 1, 900.0), make_draw("kserve", 0, 50.0)]
    assert compared(make_run(draws), "adapter", "kserve", "iris", 1, "per_second") == Figure(2.0, 2.0, 2.0)


@pytest.mark.parametrize(
    ("kind", "bound", "met"),
    [("at least", 2.0, True), ("at least", 2.1, False), ("at most", 2.0, True), ("at most", 1.9, False)],
)
def test_a_goal_is_met_on_its_side_of_the_bound(kind: str, bound: float, met: bool) -> None:
    goal = Goal("", "iris", 1, "per_second", "kserve", kind, bound)  # type: ignore[arg-type]
    found = goal.stands(make_run([make_draw("adapter", 0, 100.0), make_draw("kserve", 0, 50.0)]))
    assert found is not None
    assert goal.met(found) is met


def test_what_is_added_is_a_difference() -> None:
    (goal,) = (goal for goal in GOALS if goal.kind == "added")
    found = goal.stands(make_run([make_draw("adapter", 0, 1.0), make_draw("triton", 0, 1.0)]))
    assert found == Figure(0.0, 0.0, 0.0)


def test_the_page_says_all_that_was_found() -> None:
    run = make_run([make_draw("adapter", 0, 1234.0), make_draw("kserve", 0, 617.0)])
    run.jobs.update(adapter=[700.0], nats=[1000.0])
    run.checked["adapter iris"] = 500
    text = page(run, Path("test"))
    assert "| 1 | `adapter` | 1,234 (1,234–1,234) |" in text
    assert "| iris, requests/s ÷ KServe's | 1 | ≥ 1.9 | 2.00 (2.00–2.00) | met |" in text
    assert "| asynchronous jobs/s ÷ NATS alone | 64 | ≥ 0.65 | 0.70 (0.70–0.70) | met |" in text
    assert "- `mlserver` is left out: gone" in text
    assert "- `adapter`: iris 500" in text


def test_the_page_says_what_was_compiled() -> None:
    draws = [make_draw("adapter", 0, 1000.0), make_draw("adapter-source", 0, 800.0)]
    text = page(replace(make_run(draws), compiled=True), Path("test"))
    assert "is compiled here [as in the container image](decisions/compiled.md); goals are judged on" in text
    assert "| 1 | `adapter-source` | 800 (800–800) | 0.80 |" in text


def test_the_page_says_that_nothing_was_compiled(tmp_path: Path) -> None:
    old = asdict(make_run([make_draw("adapter", 0, 1.0)]))
    del old["compiled"]
    (tmp_path / "old.json").write_text(json.dumps(old))
    text = page(Run.load(tmp_path / "old.json"), Path("test"))
    assert "The adapter runs from its sources here, as `make up` runs them; it is not compiled" in text
    assert "adapter-source" not in text


def test_a_run_comes_back_from_its_file(tmp_path: Path) -> None:
    run = make_run([make_draw("adapter", 0, 1.0)])
    run.save(tmp_path / "run.json")
    assert Run.load(tmp_path / "run.json") == run
