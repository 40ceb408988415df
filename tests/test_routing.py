"""Which action answers a method and a path."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keryx_trio.routing import Router, parameters


@pytest.mark.parametrize(
    ("route", "hint"),
    [
        ("x", "start with a slash"),
        ("/a{b}", "whole segment"),
        ("/{a}b", "whole segment"),
        ("/{1a}", "whole segment"),
        ("/{}", "whole segment"),
        ("/{a}/{a}", "twice"),
        ("/a?b", "without a query"),
        ("/a#b", "without a query"),
    ],
)
def test_a_malformed_route_is_refused(route, hint):
    with pytest.raises(ValueError, match=hint):
        parameters(route)


def test_the_parameters_of_a_route_in_order():
    assert parameters("/a/{x}/b/{y_1}") == ("x", "y_1")
    assert parameters("/") == ()


def test_a_parameter_gives_way_to_a_fixed_segment_and_is_come_back_to():
    router: Router[str] = Router()
    router.add("GET", "/a/{x}/c", "parameter")
    router.add("GET", "/a/b/d", "fixed")
    router.add("GET", "/{any}/b/e", "early")
    assert router.find("GET", "/a/b/d") == ("fixed", {})
    assert router.find("GET", "/a/b/c") == ("parameter", {"x": "b"})
    assert router.find("GET", "/a/b/e") == ("early", {"any": "a"})
    assert router.find("GET", "/a/b/x") is None
    assert router.find("POST", "/a/b/d") is None


def test_the_same_target_may_be_added_twice_and_another_may_not():
    router: Router[str] = Router()
    assert router.add("GET", "/x", "a") is None
    assert router.add("GET", "/x", "a") is None
    assert router.add("GET", "/x", "b") == "a"
    assert router.find("GET", "/x") == ("a", {})


def test_a_fixed_segment_may_be_sent_percent_encoded():
    router: Router[str] = Router()
    router.add("GET", "/ü/x", "a")
    assert router.find("GET", "/%C3%BC/%78") == ("a", {})


@given(st.text(min_size=1), st.text(min_size=1))
def test_a_parameter_gets_the_decoded_segment_whatever_is_in_it(first, second):
    router: Router[str] = Router()
    router.add("GET", "/{a}/{b}", "t")
    try:
        path = f"/{quote(first, safe='')}/{quote(second, safe='')}"
    except UnicodeEncodeError:
        return
    assert router.find("GET", path) == ("t", {"a": first, "b": second})
