from __future__ import annotations

import math
import os
import re

import attrs
import pytest

from keryx_trio.config import (
    Config,
    ConfigError,
    CorsConfig,
    LogConfig,
    McpConfig,
    RateLimitConfig,
    SecurityConfig,
    SessionConfig,
    settings,
)


def test_the_defaults_hold_where_nothing_is_set():
    config = Config.from_env({})
    assert config == Config()
    assert (config.debug, config.api_route, config.max_body_size) == (False, "/api", 10 * 1024 * 1024)
    assert (config.ping, config.action_timeout, config.write_timeout, config.drain_timeout) == (15, 300, 30, 10)
    assert (config.log.format, config.log.level, config.log.max_param_length) == ("text", "info", 100)
    assert config.cors.allowed_origins == ("*",)
    assert config.security.content_security_policy == "default-src 'self'"
    assert (config.compression.enabled, config.compression.threshold) == (True, 1024)


@pytest.mark.parametrize(
    ("name", "text", "path", "value"),
    [
        ("KERYX_DEBUG", "true", "debug", True),
        ("KERYX_DEBUG", " False ", "debug", False),
        ("KERYX_PING", "0", "ping", 0.0),
        ("KERYX_PING", "2.5", "ping", 2.5),
        ("KERYX_MAX_BODY_SIZE", "1024", "max_body_size", 1024),
        ("KERYX_API_ROUTE", "/v1/api", "api_route", "/v1/api"),
        ("KERYX_API_ROUTE", "/", "api_route", ""),
        ("KERYX_API_ROUTE", "", "api_route", ""),
        ("KERYX_LOG_FORMAT", "json", "log.format", "json"),
        ("KERYX_LOG_LEVEL", "DEBUG", "log.level", "debug"),
        (
            "KERYX_CORS_ALLOWED_ORIGINS",
            "https://a.test, https://b.test,",
            "cors.allowed_origins",
            ("https://a.test", "https://b.test"),
        ),
        ("KERYX_CORS_ALLOWED_ORIGINS", "", "cors.allowed_origins", ()),
        ("KERYX_SECURITY_FRAME_OPTIONS", "", "security.frame_options", ""),
        ("KERYX_COMPRESSION_ENABLED", "FALSE", "compression.enabled", False),
    ],
)
def test_a_variable_sets_its_setting(name, text, path, value):
    found = Config.from_env({name: text})
    for part in path.split("."):
        found = getattr(found, part)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("KERYX_DEBUG", "1", "true or false"),
        ("KERYX_PING", "soon", "a number of seconds, zero or more"),
        ("KERYX_PING", "-1", "a number of seconds, zero or more"),
        ("KERYX_PING", "inf", "a number of seconds, zero or more"),
        ("KERYX_PING", "nan", "a number of seconds, zero or more"),
        ("KERYX_MAX_BODY_SIZE", "10MB", "a whole number, zero or more"),
        ("KERYX_MAX_BODY_SIZE", "-1", "a whole number, zero or more"),
        ("KERYX_LOG_LEVEL", "loud", "one of debug, info, warning, error, critical"),
        ("KERYX_SECURITY_FRAME_OPTIONS", "DENY\r\nX: y", "text without control characters"),
        ("KERYX_CORS_ALLOWED_ORIGINS", "https://a\x7f", "a list of texts without control characters"),
    ],
)
def test_a_bad_value_is_told_in_one_line_with_the_variable_and_what_is_expected(name, text, expected):
    with pytest.raises(ConfigError) as caught:
        Config.from_env({name: text})
    assert str(caught.value) == f"{name} must be {expected}, not {text!r}"
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("route", ["api", "/api/"])
def test_a_route_that_is_no_prefix_is_refused(route):
    with pytest.raises(ConfigError, match=f'^KERYX_API_ROUTE must start with "/" and not end with it, not {route!r}$'):
        Config.from_env({"KERYX_API_ROUTE": route})


def test_all_bad_values_are_told_at_once():
    with pytest.raises(ConfigError) as caught:
        Config.from_env({"KERYX_PING": "x", "KERYX_LOG_FORMAT": "xml", "KERYX_CORS_MAX_AGE": "1.5"})
    assert [line.split()[0] for line in str(caught.value).split("\n")] == [
        "KERYX_PING",
        "KERYX_LOG_FORMAT",
        "KERYX_CORS_MAX_AGE",
    ]


def test_variables_that_name_no_setting_are_ignored():
    assert Config.from_env({"KERYX_UNHEARD_OF": "1", "PING": "x"}) == Config()


def test_the_environment_of_the_process_is_read_when_none_is_given(monkeypatch):
    monkeypatch.setitem(os.environ, "KERYX_PING", "7")
    assert Config.from_env().ping == 7


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"ping": -1}, "Config.ping"),
        ({"ping": True}, "Config.ping"),
        ({"ping": "1"}, "Config.ping"),
        ({"ping": math.nan}, "Config.ping"),
        ({"max_body_size": 1.5}, "Config.max_body_size"),
        ({"max_body_size": True}, "Config.max_body_size"),
        ({"debug": 1}, "Config.debug"),
        ({"api_route": "api"}, "Config.api_route"),
        ({"api_route": None}, "Config.api_route"),
    ],
)
def test_code_is_held_to_the_same_rules(values, name):
    with pytest.raises(ValueError, match=f"^{re.escape(name)} must "):
        Config(**values)


def test_the_settings_of_a_group_are_held_to_them_too():
    with pytest.raises(ValueError, match=r"^LogConfig\.level must be one of"):
        LogConfig(level="loud")
    with pytest.raises(ValueError, match=r"^CorsConfig\.allowed_origins must be a list"):
        CorsConfig(allowed_origins="*")


def test_a_change_is_checked_and_a_list_becomes_a_tuple():
    assert attrs.evolve(Config(), ping=1).ping == 1
    assert CorsConfig(allowed_origins=["https://a.test"]).allowed_origins == ("https://a.test",)
    with pytest.raises(ConfigError):
        attrs.evolve(Config(), ping=-1)


def test_a_configuration_cannot_be_changed():
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        Config().ping = 1


def test_every_setting_is_listed_with_its_variable_its_default_and_what_it_is():
    rows = {row.path: row for row in settings(Config)}
    level = rows["log.level"]
    assert (level.env, level.default) == ("KERYX_LOG_LEVEL", "info")
    assert "level" in level.description
    assert rows["ping"].type is float
    assert len({row.env for row in rows.values()}) == len(rows)
    assert all(row.description.endswith(".") for row in rows.values())


def test_every_listed_variable_is_read():
    texts = {bool: "true", float: "1", int: "1", str: "/x", tuple[str, ...]: "x"}
    own = {
        "cors.allowed_origins": "https://a.test, https://b.test",
        "mcp.allowed_origins": "https://a.test",
        "websocket.allowed_origins": "https://a.test, *",
        "trusted_proxies": "127.0.0.1, 10.0.0.0/8",
        "session.cookie_name": "sid",
    }
    for row in settings():
        with pytest.raises(ConfigError, match=f"^{row.env} must "):
            Config.from_env({row.env: "\x00"})
        Config.from_env({row.env: own.get(row.path) or texts.get(row.type, row.default)})


@pytest.mark.parametrize("route", ["/a?b", "/{x}", "/a b", "/é", "/a//b", "a"])
def test_a_route_that_no_path_can_match_is_refused(route):
    with pytest.raises(ConfigError, match="api_route"):
        Config(api_route=route)


def test_origins_are_kept_as_browsers_spell_them():
    kept = CorsConfig(allowed_origins=("HTTPS://App.Example/", "null", "http://[::1]:3000")).allowed_origins
    assert kept == ("https://app.example", "null", "http://[::1]:3000")


@pytest.mark.parametrize("origin", ["app.example", "https://a/b", "https://a b", "ä"])
def test_what_is_no_origin_is_refused(origin):
    with pytest.raises(ConfigError, match="allowed_origins"):
        CorsConfig(allowed_origins=(origin,))


def test_what_no_header_can_carry_is_refused():
    with pytest.raises(ConfigError, match="content_security_policy"):
        SecurityConfig(content_security_policy="default-src 'self' ä")
    with pytest.raises(ConfigError, match="exposed_headers"):
        CorsConfig(exposed_headers=("a b",))


def test_a_bad_setting_stops_a_start_without_a_traceback():
    with pytest.raises(SystemExit, match="ping"):
        Config(ping=-1)


@pytest.mark.parametrize("host", ["", "https://app.example", "app.example/", "app.example:port", "*"])
def test_what_is_no_host_is_refused(host):
    with pytest.raises(ValueError, match=r"^McpConfig\.allowed_hosts must be hosts, such as app\.example, "):
        McpConfig(allowed_hosts=("app.example", host))


@pytest.mark.parametrize(
    ("group", "setting", "bad"),
    [
        (SessionConfig, "ttl", 0),
        (SessionConfig, "cookie_name", "a;b"),
        (SessionConfig, "same_site", "sometimes"),
        (RateLimitConfig, "limit", 0),
        (RateLimitConfig, "window", 0),
        (Config, "trusted_proxies", ("proxy.example",)),
    ],
)
def test_what_sessions_and_limits_cannot_work_with_is_refused(group, setting, bad):
    with pytest.raises(ConfigError, match=setting):
        group(**{setting: bad})
