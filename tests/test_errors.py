"""The one exception for callers, and what an unknown one becomes."""

from __future__ import annotations

import time

import pytest

from keryx_trio import ErrorType, TypedError
from keryx_trio.errors import GENERIC_MESSAGE, as_typed, leaves, text_of, unwrap

STATUSES = {
    "CONNECTION_ACTION_PARAM_VALIDATION": 422,
    "CONNECTION_ACTION_PARAM_FORMATTING": 400,
    "CONNECTION_ACTION_NOT_FOUND": 404,
    "CONNECTION_METHOD_NOT_ALLOWED": 405,
    "CONNECTION_SESSION_NOT_FOUND": 401,
    "CONNECTION_CHANNEL_AUTHORIZATION": 403,
    "CONNECTION_ACTION_TIMEOUT": 408,
    "CONNECTION_PAYLOAD_TOO_LARGE": 413,
    "CONNECTION_RATE_LIMITED": 429,
    "CONNECTION_UNAVAILABLE": 503,
    "CONNECTION_SERVER_ERROR": 500,
    "CONNECTION_ACTION_RUN": 500,
    "CONNECTION_TASK_DEFINITION": 500,
}


@pytest.mark.parametrize(("type_", "status"), STATUSES.items())
def test_the_type_decides_the_status(type_, status):
    error = TypedError("x", ErrorType(type_))
    assert error.status == status
    assert error.is_ours is (status >= 500)


def test_the_payload_has_what_is_known_and_no_more():
    before = int(time.time() * 1000)
    payload = TypedError("no").payload()
    assert before <= payload.pop("timestamp") <= time.time() * 1000
    assert payload == {"message": "no", "type": "CONNECTION_ACTION_RUN"}
    error = TypedError("no", ErrorType.CONNECTION_ACTION_PARAM_VALIDATION, "a.b", 3, errors=[("a.b", "bad")])
    assert error.payload() | {"timestamp": 0} == {
        "message": "no",
        "type": "CONNECTION_ACTION_PARAM_VALIDATION",
        "timestamp": 0,
        "key": "a.b",
        "value": 3,
        "errors": [{"key": "a.b", "message": "bad"}],
    }
    assert "stack" in error.payload(debug=True)


@pytest.mark.parametrize("retry_after", [-1, float("inf"), float("nan")])
def test_a_time_to_try_again_is_a_number_of_seconds(retry_after):
    with pytest.raises(ValueError, match="retry_after"):
        TypedError("x", retry_after=retry_after)


def test_an_unknown_type_is_refused():
    with pytest.raises(ValueError, match="NO_SUCH_TYPE"):
        TypedError("x", "NO_SUCH_TYPE")


def test_what_is_no_text_becomes_one():
    error = TypedError(5, key=3, errors=[(1, None)])
    assert (error.message, error.key, error.errors) == ("5", "3", (("1", "None"),))


def test_an_unknown_exception_is_told_in_general_words_but_in_debug_mode():
    assert as_typed(ValueError("secret")).message == GENERIC_MESSAGE
    assert as_typed(ValueError("secret"), debug=True).message == "ValueError: secret"


def test_groups_are_opened_as_far_as_they_have_one_thing_in_them():
    one = TypedError("one")
    assert unwrap(ExceptionGroup("", [ExceptionGroup("", [one])])) is one
    assert as_typed(ExceptionGroup("", [one])) is one
    two = ExceptionGroup("", [one, ExceptionGroup("", [KeyError()])])
    assert unwrap(two) is two
    assert as_typed(two).message == GENERIC_MESSAGE
    assert [type(leaf) for leaf in leaves(two)] == [TypedError, KeyError]


def test_an_exception_without_a_text_is_survived():
    class OddError(Exception):
        def __str__(self) -> str:
            raise ValueError("hidden")

    assert "hidden" not in text_of(OddError())
    assert "hidden" not in as_typed(OddError(), debug=True).message
