"""The JSON API, its document, and the metrics."""

from __future__ import annotations

import json
from typing import Any

import httpx
import openapi_spec_validator
import pytest
from prometheus_client.parser import text_string_to_metric_families

from limiter_core.requests import NO_LIMIT, Demand, Request
from limiter_memory import MemoryStore
from limiter_web.metrics import MAX_NAMES, OTHER

from ._server import page

KEY = "billing/customer_id=1"


def test_the_document_is_valid(client: httpx.Client) -> None:
    document = client.get("/api/openapi.json").json()
    openapi_spec_validator.validate(document)
    paths = document["paths"]
    assert set(paths) == {
        "/keys", "/key", "/names", "/changes", "/set", "/reset", "/pause", "/resume", "/evict",
    }  # fmt: skip


def test_answers_have_the_form_of_the_document(operator: httpx.Client) -> None:
    from openapi_schema_validator import OAS31Validator

    document = operator.get("/api/openapi.json").json()
    operator.post("/api/set", json={"name": "openai", "limit": "50%"})
    operator.post("/api/pause", json={"key": KEY})
    for path in ("/keys", f"/key?key={KEY}", "/names", "/changes"):
        answer = operator.get(f"/api{path}")
        assert answer.status_code == 200
        get = document["paths"][path.partition("?")[0]]["get"]
        schema = get["responses"]["200"]["content"]["application/json"]["schema"]
        whole = {**schema, "components": document["components"]}
        OAS31Validator(whole).validate(answer.json())


def test_keys_are_those_that_inspect_sees(client: httpx.Client, store: MemoryStore) -> None:
    found = client.get("/api/keys").json()
    assert [each["key"] for each in found["keys"]] == [KEY, "openai"]
    for each in found["keys"]:
        truth = store.inspect(each["key"])
        assert (each["in_use"], each["limit"], each["waiting"]) == (
            truth.in_use,
            truth.limit,
            truth.waiting,
        )
    assert client.get("/api/keys?search=open").json()["total"] == 1
    assert client.get("/api/keys?scope=billing").json()["total"] == 1
    assert client.get("/api/keys?page=9&size=1").json()["page"] == 2


def test_a_key_has_its_holders_and_its_line_in_order(client: httpx.Client) -> None:
    found = client.get("/api/key", params={"key": KEY}).json()
    assert [each["label"] for each in found["holders"]] == ["web-0"]
    assert [each["label"] for each in found["waiters"]] == ["web-1", "web-2"]


def test_every_change_is_done_and_logged(operator: httpx.Client, store: MemoryStore) -> None:
    note = {"reason": "because", "by": "Ann"}
    assert operator.post("/api/set", json={"key": KEY, "limit": 2, **note}).json()["done"]
    assert store.inspect(KEY).in_use == 2
    assert operator.post("/api/reset", json={"key": KEY, **note}).json()["done"]
    assert store.inspect(KEY).override is None
    assert operator.post("/api/pause", json={"key": KEY, **note}).json()["done"]
    assert store.inspect(KEY).paused
    assert operator.post("/api/resume", json={"key": KEY, **note}).json()["done"]
    assert operator.post("/api/evict", json={"key": KEY, "id": "call-0", **note}).json()["done"]
    assert operator.post("/api/evict", json={"key": KEY, "id": "call-2", **note}).json()["done"]
    again = operator.post("/api/evict", json={"key": KEY, "id": "call-0", **note})
    assert (again.status_code, again.json()["done"]) == (404, False)
    assert {each.id for each in store.inspect(KEY).holders} == {"call-1"}
    log = operator.get("/api/changes").json()["changes"]
    actions = [each["action"] for each in log]
    assert actions == ["evict", "evict", "resume", "pause", "reset", "set"]
    assert {(each["by"], each["reason"], each["key"]) for each in log} == {("Ann", "because", KEY)}


def test_changes_of_a_name(operator: httpx.Client) -> None:
    post = operator.post
    assert post("/api/set", json={"name": "billing", "limit": "50%", "lasts": 60}).json()["done"]
    assert post("/api/pause", json={"name": "billing"}).json()["done"]
    policies = operator.get("/api/names").json()["policies"]
    assert [(each["percent"], each["name"]) for each in policies] == [
        (50, "billing"),
        (None, "billing"),
    ]
    assert post("/api/resume", json={"name": "billing"}).json()["done"]
    assert post("/api/reset", json={"name": "billing"}).json()["done"]
    assert operator.get("/api/names").json()["policies"] == []


@pytest.mark.parametrize(
    ("action", "body"),
    [
        ("set", {"key": KEY}),
        ("set", {"key": KEY, "limit": -1}),
        ("set", {"key": KEY, "limit": "50%"}),
        ("set", {"key": KEY, "limit": 2.5}),
        ("set", {"key": KEY, "limit": True}),
        ("set", {"key": KEY, "name": "n", "limit": 1}),
        ("set", {"limit": 1}),
        ("set", {"key": "", "limit": 1}),
        ("set", {"key": KEY, "limit": 1, "lasts": 5}),
        ("set", {"name": "n", "limit": 1, "lasts": -5}),
        ("set", {"name": "n", "limit": "some"}),
        ("set", {"key": KEY, "limit": 1, "typo": 1}),
        ("pause", {"key": KEY, "limit": 1}),
        ("pause", {"key": KEY, "id": "x"}),
        ("resume", {"name": "n", "lasts": 3}),
        ("evict", {"key": KEY}),
        ("evict", {"name": "n", "id": "x"}),
    ],
    ids=str,
)
def test_wrong_changes_are_refused(
    operator: httpx.Client, store: MemoryStore, action: str, body: dict[str, Any]
) -> None:
    answer = operator.post(f"/api/{action}", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]
    assert store.changes() == ()


@pytest.mark.parametrize("body", [b"", b"[1]", b"{", b'"x"', b"\xff", b"[" * 60_000], ids=range(6))
def test_a_body_that_is_no_object_is_refused(operator: httpx.Client, body: bytes) -> None:
    assert operator.post("/api/set", content=body).status_code == 400


def test_a_body_that_is_too_large_is_refused(operator: httpx.Client) -> None:
    body = json.dumps({"key": KEY, "reason": "x" * 70_000})
    assert operator.post("/api/set", content=body).status_code == 413


def test_errors_are_json(client: httpx.Client) -> None:
    assert client.get("/api/nothing").json()["error"]
    assert client.get("/api/key").status_code == 400
    assert client.get("/key?key=").status_code == 404


def samples(text: str) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_metrics_per_name(client: httpx.Client) -> None:
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    found = samples(answer.text)
    assert found[("limiter_store_up",)] == 1
    assert found[("limiter_slots_in_use", "billing")] == 1
    assert found[("limiter_slots_limit", "openai")] == 5
    assert found[("limiter_waiting", "billing")] == 2
    assert found[("limiter_keys", "billing")] == 1
    assert found[("limiter_oldest_wait_seconds", "billing")] > 0
    assert not any(name.startswith("limiter_key_") for name, *_ in found)


def test_metrics_of_the_busiest_keys(store: MemoryStore) -> None:
    with page(store, top_keys=1) as url:
        found = samples(httpx.get(f"{url}/metrics").text)
    keys = {frozenset(labels) for labels in found if labels[0] == "limiter_key_waiting"}
    assert keys == {frozenset(("limiter_key_waiting", "billing", KEY))}


def test_a_key_without_a_limit_has_no_sample_of_it(store: MemoryStore) -> None:
    """With 0 it would be more than full."""
    store.acquire(Request("note", (Demand("notes", NO_LIMIT),), lease=600))
    with page(store, top_keys=9) as url:
        found = samples(httpx.get(f"{url}/metrics").text)
    assert found["limiter_key_slots_in_use", "notes", ""] == 1
    assert ("limiter_key_slots_limit", "notes", "") not in found
    assert ("limiter_key_slots_limit", KEY, "billing") in found


def test_names_that_contain_values_make_a_bounded_number_of_series(store: MemoryStore) -> None:
    for number in range(MAX_NAMES + 30):
        name = f"user-{number:03}"
        store.acquire(Request(name, (Demand(name, 1, name=name),), lease=600))
    with page(store) as url:
        found = samples(httpx.get(f"{url}/metrics").text)
    names = {labels[1] for labels in found if labels[0] == "limiter_keys"}
    assert len(names) == MAX_NAMES + 1
    assert OTHER in names
    assert sum(found[("limiter_keys", name)] for name in names) == MAX_NAMES + 32
