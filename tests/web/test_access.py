"""Who may do what: tokens, sessions, forms of others, hosts, and headers."""

from __future__ import annotations

import base64
import re
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from limiter_core import ConfigurationError
from limiter_memory import MemoryStore
from limiter_web import limits_app
from limiter_web.access import Access
from limiter_web.operations import ACTIONS
from limiter_web.security import CSP, is_allowed_host
from limiter_web.server import check_exposure

from ._server import TOKEN, page, served
from .conftest import BEARER

KEY = "billing/customer_id=1"
BODY = {"key": KEY, "limit": 3}


def acting_requests(client: httpx.Client, **more: Any) -> list[httpx.Response]:
    answers = [client.post(f"/api/{action}", json=BODY, **more) for action in ACTIONS]
    answers += [
        client.post("/change", data={"action": action, "key": KEY, "limit": "3"}, **more)
        for action in ACTIONS
    ]
    return [*answers, client.get(f"/change?action=set&key={KEY}", **more)]


def test_without_the_token_nothing_is_changed(client: httpx.Client, store: MemoryStore) -> None:
    before = store.inspect(KEY)
    for wrong in ({}, {"authorization": "Bearer wrong"}, {"authorization": f"Basic {TOKEN}"}):
        assert {each.status_code for each in acting_requests(client, headers=wrong)} == {401}
    client.cookies.set("limiter_session", "eyJieSI6IiJ9.00")
    assert {each.status_code for each in acting_requests(client)} == {401}
    after = store.inspect(KEY)
    assert (after.override, after.paused) == (None, False)
    assert [each.id for each in after.holders] == [each.id for each in before.holders]
    assert store.changes() == ()


def test_a_page_without_a_token_is_read_only(store: MemoryStore) -> None:
    with page(store, token=None) as url, httpx.Client(base_url=url) as client:
        assert "read-only" in client.get("/").text
        assert {each.status_code for each in acting_requests(client)} == {403}
        assert {each.status_code for each in acting_requests(client, headers=BEARER)} == {403}
        assert client.post("/login", data={"token": ""}).status_code == 403


def log_in(client: httpx.Client, by: str = "Ann") -> httpx.Response:
    answer = client.post("/login", data={"token": TOKEN, "by": by})
    assert answer.status_code == 303
    return answer


def csrf(client: httpx.Client) -> str:
    found = re.search(r'name="csrf" value="(\w+)"', client.get("/").text)
    assert found is not None
    return found[1]


def test_a_session_is_in_a_cookie_that_scripts_and_other_sites_cannot_use(
    client: httpx.Client,
) -> None:
    cookie = log_in(client).headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert TOKEN not in cookie


def test_a_form_of_another_site_is_refused(client: httpx.Client, store: MemoryStore) -> None:
    log_in(client)
    for given in ({}, {"csrf": "0" * 64}):
        form = {"action": "set", "key": KEY, "limit": "3", **given}
        assert client.post("/change", data=form).status_code == 403
    assert client.post("/api/set", json=BODY).status_code == 403
    assert client.post("/logout").status_code == 403
    assert store.inspect(KEY).override is None


def test_a_form_of_the_session_is_carried_out_and_logged(
    client: httpx.Client, store: MemoryStore
) -> None:
    log_in(client)
    form = {"action": "set", "key": KEY, "limit": "3", "reason": "busy", "csrf": csrf(client)}
    answer = client.post("/change", data=form)
    assert answer.status_code == 303
    assert store.inspect(KEY).override == 3
    (change,) = store.changes()
    assert (change.by, change.reason, change.new) == ("Ann", "busy", "3")
    shown = client.get(answer.headers["location"]).text
    assert f"The limit of {KEY} is 3 now." in shown
    assert "is 3 now." not in client.get("/").text, "it is said once"


@pytest.mark.parametrize("character", ["\N{GRINNING FACE}", "\x01", '"'])
@pytest.mark.parametrize("action", ["set", "evict"])
def test_a_message_fits_into_a_cookie(client: httpx.Client, action: str, character: str) -> None:
    """A browser ignores a cookie of more than 4096 bytes: nothing would say what was done."""
    log_in(client)
    long, key = character * 5000, character * 400
    wanted = {"set": {"limit": "3"}, "evict": {"id": long}}[action]
    answer = client.post(
        "/change", data={"action": action, "key": key, "csrf": csrf(client), **wanted}
    )
    assert answer.status_code == 303
    (cookie,) = answer.headers.get_list("set-cookie")
    assert len(cookie.partition(";")[0]) <= 4096
    assert "message" in client.get(answer.headers["location"]).text


def test_the_csrf_token_of_another_session_does_not_do(url: str) -> None:
    with httpx.Client(base_url=url) as mine, httpx.Client(base_url=url) as other:
        log_in(mine)
        log_in(other)
        form = {"action": "pause", "key": KEY, "csrf": csrf(other)}
        assert mine.post("/change", data=form).status_code == 403


def test_one_goes_back_to_this_site_only(client: httpx.Client) -> None:
    for back in ("https://evil.example/", "//evil.example/", "/\\evil.example", "evil"):
        answer = client.post("/login", data={"token": TOKEN, "back": back})
        assert answer.headers["location"] == "/"
        form = client.get("/change", params={"action": "pause", "key": KEY, "back": back})
        assert re.findall(r'data-cancel href="([^"]*)"', form.text) == ["/"]


def test_forms_that_no_page_has_are_refused(client: httpx.Client) -> None:
    log_in(client)
    for path in ("/change", "/login", "/logout"):
        assert client.post(path, data={f"field-{n}": "" for n in range(51)}).status_code == 400
    client.cookies.set("limiter_message", base64.urlsafe_b64encode(b"[" * 3000).decode())
    assert client.get("/").status_code == 200


def test_after_the_logout_the_cookie_is_gone(client: httpx.Client) -> None:
    log_in(client)
    assert client.post("/logout", data={"csrf": csrf(client)}).status_code == 303
    assert {each.status_code for each in acting_requests(client)} == {401}


def test_a_wrong_token_gets_no_session(client: httpx.Client) -> None:
    answer = client.post("/login", data={"token": "wrong"})
    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers


def test_a_private_page_shows_nothing_without_the_token(store: MemoryStore) -> None:
    with page(store, private=True) as url, httpx.Client(base_url=url) as client:
        for path in ("/api/keys", "/api/openapi.json", "/metrics", "/events"):
            assert client.get(path).status_code == 401, path
        for path in ("/", "/key?key=openai", "/names", "/changes", "/change"):
            answer = client.get(path)
            assert (answer.status_code, answer.headers["location"]) == (303, "/login"), path
        assert client.get("/login").status_code == 200
        assert client.get("/static/style.css").status_code == 200
        assert client.get("/metrics", headers=BEARER).status_code == 200
        log_in(client)
        assert "customer_id" in client.get("/").text


def test_headers_of_every_response(client: httpx.Client) -> None:
    for path in ("/", "/nothing", "/api/keys", "/metrics", "/static/live.js", "/change"):
        headers = client.get(path).headers
        assert headers["content-security-policy"] == CSP
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
    assert CSP.startswith("default-src 'self'")
    assert client.get("/").headers["cache-control"] == "no-store"


def test_no_page_has_what_the_policy_forbids(operator: httpx.Client) -> None:
    for path in (
        "/",
        f"/key?key={KEY}",
        "/names",
        "/changes",
        "/login",
        "/change?action=set&key=k",
    ):
        text = operator.get(path).text
        assert "<style" not in text
        assert " style=" not in text
        assert not re.search(r"<script(?! src=)", text)
        assert not re.search(r" on\w+=", text)
        assert not re.search(r'(src|href)="(https?:)?//', text)


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("localhost:8700", True),
        ("127.0.0.1", True),
        ("[::1]:8700", True),
        ("10.1.2.3:80", True),
        ("limits.example.com", True),
        ("LIMITS.example.com:443", True),
        ("a.wild.example", True),
        ("evil.example", False),
        ("wild.example", False),
        ("limits.example.com.evil.example", False),
        ("", False),
        ("localhost.evil.example", False),
        ("[::1].evil.example", False),
        ("localhost:80.evil.example", False),
        ("::1", True),
        ("limits.example.com.:443", True),
    ],
)
def test_hosts(host: str, allowed: bool) -> None:
    assert is_allowed_host(host, ["limits.example.com", "*.wild.example"]) is allowed


def test_another_host_is_refused(store: MemoryStore) -> None:
    with page(store, allowed_hosts=["limits.example"]) as url, httpx.Client(base_url=url) as client:
        assert client.get("/").status_code == 200
        assert client.get("/", headers={"host": "limits.example"}).status_code == 200
        assert client.get("/", headers={"host": "rebound.example"}).status_code == 400


def test_it_works_below_a_path(store: MemoryStore) -> None:
    outer = Starlette(routes=[Mount("/ops/limits", limits_app(store, token=TOKEN))])
    with served(outer) as url, httpx.Client(base_url=f"{url}/ops/limits") as client:
        text = client.get("/").text
        links = re.findall(r'(?:href|src|action)="(/[^"]*)"', text)
        assert links
        assert all(link.startswith("/ops/limits/") for link in links)
        assert client.get("/static/style.css").status_code == 200
        assert client.get("/api/openapi.json").json()["servers"] == [{"url": "/ops/limits/api"}]
        answer = client.post("/login", data={"token": TOKEN, "back": "/names"})
        assert answer.headers["location"] == "/ops/limits/names"
        assert "path=/ops/limits" in answer.headers["set-cookie"].lower()


@pytest.mark.parametrize(
    "wrong",
    [
        {"token": ""},
        {"private": True},
        {"top_keys": -1},
        {"allowed_hosts": "*.example"},
        {"allowed_hosts": [""]},
        {"allowed_hosts": [1]},
        {"allowed_hosts": 1},
        {"allowed_hosts": ["limits.example."]},
        {"allowed_hosts": ["a.example,b.example"]},
        {"allowed_hosts": ["https://limits.example"]},
        {"allowed_hosts": ["limits.example:8700"]},
        {"trace_url": "https://traces.example"},
        {"trace_url": "javascript:alert({trace_id})"},
    ],
)
def test_wrong_options_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        limits_app(MemoryStore(), **wrong)


def test_others_reach_it_only_if_that_is_meant() -> None:
    for host in ("127.0.0.1", "::1", "localhost"):
        check_exposure(host, token=None, public=False)
    check_exposure("0.0.0.0", token=TOKEN, public=False)
    check_exposure("0.0.0.0", token=None, public=True)
    with pytest.raises(ConfigurationError, match="--public"):
        check_exposure("0.0.0.0", token=None, public=False)


def test_a_token_that_can_be_guessed_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    Access("long enough to be none", private=False)
    assert not caplog.records
    assert Access("short", private=False).accepts("short")
    assert "has 5 characters and can be guessed" in caplog.text
    assert "short" not in caplog.text
