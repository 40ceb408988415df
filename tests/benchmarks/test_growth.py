"""The tables and the plot of how cost grows."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from benchmarks import growth
from benchmarks.plot import Axis, Line, Panel, draw, short

SVG = "{http://www.w3.org/2000/svg}"


def stands(system: str, streams: int, cpu: float) -> dict[str, object]:
    return {
        "system": system, "streams": streams, "cpu_us_per_event": cpu, "lateness_ms_p50": 0.5, "lateness_ms_p99": 2.0,
        "kib_per_stream": 30.0, "wrong": 0,
    }  # fmt: skip


def burst(system: str, size: int, cpu: float) -> dict[str, object]:
    return {
        "system": system, "size": size, "events_per_s": 1000.0, "mb_per_s": 9.5, "cpu_us_per_event": cpu, "wrong": 0
    }  # fmt: skip


RESULTS = {
    "machine": {}, "rounds": 2, "quick": False,
    "open": [stands("a", 10, 100), stands("a", 1000, 40), stands("b", 10, 80), stands("a", 10, 300)],
    "sizes": [burst("a", 32, 3), burst("a", 1024, 0)],
}  # fmt: skip


def test_a_row_has_the_medians_of_a_system_at_a_place_or_dashes():
    lines = growth.tables(RESULTS).splitlines()
    assert "| a | 10 | 200 | 0.50 | 2.0 | 30.0 |" in lines
    assert "| b | 1,000 | - | - | - | - |" in lines
    assert "| a | 1,024 | 1,000 | 9.5 | 0.0 |" in lines
    assert lines[-1] == "Every stream was whole and in order."


def test_broken_streams_are_told():
    wrong = {**RESULTS, "sizes": [{**burst("a", 32, 3), "wrong": 1}]}
    assert growth.tables(wrong).endswith("1 streams were broken or out of order.\n")


def test_the_plot_is_an_svg_with_a_legend_and_a_mark_for_each_point_above_0():
    root = ET.fromstring(growth.plot(RESULTS))
    texts = [element.text for element in root.iter(f"{SVG}text")]
    assert {"a", "b", "open streams", "µs of CPU", "What a stream takes"} <= set(texts)
    # Of a and b: 3 points in each panel of open streams, 1 of sizes (0 has no place), and 1 for each in the legend.
    assert len(list(root.iter(f"{SVG}circle"))) == 2 * 3 + 1 + 1
    assert len(list(root.iter(f"{SVG}rect"))) == 3 + 1
    assert "prefers-color-scheme: dark" in root.find(f"{SVG}style").text


def test_points_stand_on_a_logarithmic_axis_between_its_ends():
    axis = Axis([10, 1000], 0, 100)
    assert axis.marks() == [10, 100, 1000]
    assert axis.place(100) == pytest.approx(50)
    assert 0 < axis.place(10) < axis.place(1000) < 100


@pytest.mark.parametrize("values", [[1.2, 1.6], [440, 600], [0.03, 0.031], [5, 5], [1, 10**6]])
def test_every_axis_has_at_least_two_marks(values):
    assert len(Axis(values, 0, 100).marks()) >= 2


def test_numbers_at_an_axis_are_short():
    assert [short(value) for value in (0.1, 30, 5000, 2e6)] == ["0.1", "30", "5k", "2M"]


def test_what_has_no_place_on_the_axes_is_refused():
    with pytest.raises(ValueError, match="Panel: logarithmic axes need points, all above 0"):
        draw([Panel("Panel", "x", "y", [Line("a", [(1, 0)])])], "told")


def test_names_may_have_any_character():
    svg = draw([Panel("<&>", "x", "y", [Line('"<a>"', [(1, 1), (2, 3)])])], 'a "plot" <told>')
    texts = [element.text for element in ET.fromstring(svg).iter(f"{SVG}text")]
    assert {"<&>", '"<a>"'} <= set(texts)
