"""The summary's numbers, from small files of results."""

from __future__ import annotations

import json

import pytest

from benchmarks import summary
from benchmarks.markdown import README, replace_part
from benchmarks.tables import FROZEN, STREAMS, Column


def run(system: str, number: int, **result: object) -> dict[str, object]:
    return {"system": system, "round": number, "result": result}


def rate(value: float) -> dict[str, float]:
    return {"events_per_s": value, "errors": 0, "bad_streams": 0}


RUNS = [
    run("base", 0, w1_1x60000x32=rate(100), idle_rss_mib=50.0),
    run("ours", 0, w1_1x60000x32=rate(1500), w1_raw_1x60000x32=rate(900)),
    run("base", 1, w1_1x60000x32=rate(300)),
    run("ours", 1, w1_1x60000x32=rate(1700), w1_raw_1x60000x32=rate(900)),
    run("ours", 2, failed="it did not start"),
]
EVENTS = Column("events/s", "w1@_1x60000x32", "events_per_s", 0, compared=True)


def test_a_cell_is_the_median_its_ratio_to_the_base_and_the_spread():
    assert summary.cell(summary.Results(RUNS), "ours", EVENTS, "", "base") == "1,600 (8.00x) [1,500..1,700]"


def test_a_variant_is_compared_with_the_base_itself():
    assert summary.cell(summary.Results(RUNS), "ours", EVENTS, "_raw", "base") == "900 (4.50x) [900..900]"


def test_what_was_not_measured_is_a_dash_and_what_has_no_base_has_no_ratio():
    results = summary.Results(RUNS)
    assert summary.cell(results, "base", EVENTS, "_raw", "base") == "-"
    assert summary.cell(results, "ours", EVENTS, "", "nobody") == "1,600 [1,500..1,700]"
    assert summary.cell(results, "base", Column("idle", "idle_rss_mib"), "", "base") == "50.0"


def test_a_table_has_a_row_for_each_system_and_variant_that_has_a_value():
    lines = summary.table(summary.Results(RUNS), STREAMS[0], "base").splitlines()
    assert lines[0] == "### W1: 1 stream of 60,000 events of 32 B"
    assert [line.split(" | ")[0] for line in lines[4:]] == ["| base", "| ours", "| ours raw"]
    assert summary.table(summary.Results(RUNS), FROZEN, "base") == ""


def test_producers_that_are_left_are_told_for_each_run():
    left = {"seconds_to_zero": None, "live_at_end": 4}
    gone = {"seconds_to_zero": 0.0042, "live_at_end": 0}
    died = {"server_died": -9, "seconds_to_zero": None, "live_at_end": 3}
    runs = [run("one", 0, w4_fin=left), run("one", 1, w4_fin=gone), run("two", 0, w4_fin=died)]
    lines = summary.left_behind(summary.Results(runs)).splitlines()
    assert lines[-2:] == ["| one | never (4 left), 0.004 |", "| two | the server died |"]


def test_broken_streams_and_failed_runs_are_told_and_count_nowhere():
    broken = {**rate(1), "errors": 2, "disorder": 1, "first_error": "Connection refused"}
    runs = [*RUNS, run("base", 3, w1_1x60000x32=broken, died=1)]
    assert list(summary.faults(runs)) == [
        "ours, round 3: it did not start",
        "base, round 4: the server died, 1 times",
        "base, round 4, w1_1x60000x32: 2 errors, 1 disorder (Connection refused)",
    ]
    assert "Every stream was whole" not in summary.summary({"runs": runs}, "base")


def test_the_whole_stands_in_markdown_with_its_machine():
    machine = {
        "date": "2026-01-02", "cpu": "A CPU", "cores": 2, "memory_gib": 8.0, "system": "Linux 6", "python": "3.13.1",
        "packages": {"trio": "0.35.0", "litestar": None}, "commit": "abc",
    }  # fmt: skip
    text = summary.summary({"machine": machine, "runs": [*RUNS[:2], {**RUNS[2], "quick": True}]}, "base")
    assert "Measured on 2026-01-02 in 2 rounds, **quick" in text
    assert "on A CPU with 2 cores and 8.0 GiB, Linux 6, Python 3.13.1; trio 0.35.0 (commit abc)." in text
    assert text.endswith("Every stream was whole and in order, and every answer a 200.\n")


def test_results_without_a_machine_and_without_runs_are_read_too():
    assert "Measured in 3 rounds." in summary.summary({"runs": RUNS}, "base")
    assert summary.summary({"runs": []}, "base") == "There are no results yet.\n"


def test_the_command_prints_the_tables_or_says_what_is_missing(tmp_path, capsys):
    file = tmp_path / "results.json"
    with pytest.raises(SystemExit):
        summary.main([str(file)])
    assert "python -m benchmarks.run makes it" in capsys.readouterr().err
    file.write_text(json.dumps({"runs": RUNS}))
    summary.main([str(file), "--base", "base"])
    assert "1,600 (8.00x)" in capsys.readouterr().out


def test_a_part_of_a_page_is_replaced_and_nothing_else(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- results -->\nold\n<!-- /results -->\nafter\n")
    replace_part(page, "results", "new\n")
    replace_part(page, "results", "newer\n")
    assert page.read_text() == "before\n<!-- results -->\n\nnewer\n\n<!-- /results -->\nafter\n"
    with pytest.raises(ValueError, match="has no part <!-- growth -->"):
        replace_part(page, "growth", "")


def test_the_readme_has_a_place_for_both_tables():
    text = README.read_text()
    for name in ("results", "growth"):
        assert text.count(f"<!-- {name} -->") == text.count(f"<!-- /{name} -->") == 1
