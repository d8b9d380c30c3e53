"""The message of a task that waits: packed into its ticket, and published again as it came."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from limiter_celery._parked_message import (
    ORIGIN,
    REFUSAL,
    Origin,
    ParkedMessage,
    origin_of,
    parked_message_of,
    unpack,
)

from ._parts import Parts


def message(**given: Any) -> ParkedMessage:
    fields: dict[str, Any] = {
        "body": b"\x80\x00body",
        "headers": {"task": "one", "id": "1"},
        "properties": {"priority": 3},
        "content_type": "application/json",
        "content_encoding": "utf-8",
        "exchange": "",
        "routing_key": "feed.import",
        "queue": "feeds",
        "temporary": False,
        "order": 123,
    }
    return ParkedMessage(**(fields | given))


@pytest.mark.parametrize("body", [b"\x80\x00body", "täxt", b"", ""])
def test_what_is_packed_comes_out_again(body: bytes | str) -> None:
    assert unpack(message(body=body).pack()) == message(body=body)


def test_it_packs_as_it_always_did() -> None:
    """Tickets outlive the release of this package that made them."""
    assert message().pack() == (
        b'[false, "gABib2R5", {"task": "one", "id": "1"}, {"priority": 3}, "application/json", '
        b'"utf-8", "", "feed.import", "feeds", false, 123]'
    )


def test_a_request_is_parked_with_its_body_and_headers_as_they_came(parts: Parts) -> None:
    request = parts.receive("one", "eve", countdown=60, priority=3, headers={"tenant": "a"})
    parked = parked_message_of(request)
    assert parked.body == request.message.body
    assert parked.task_in(parts.app) == "one"
    assert parked.headers["tenant"] == "a"
    assert parked.headers["eta"] is None, "its countdown must not start again"
    assert parked.properties["priority"] == 3
    assert parked.queue == parts.app.conf.task_default_queue


def test_it_is_published_to_the_queue_of_granted_tasks(parts: Parts) -> None:
    first = parts.receive("one", "eve", expiration=600)
    parked_message_of(first).publish(parts.app)
    again = parts.receive(None)
    assert again.message.body == first.message.body
    assert again.id == first.id
    assert "expiration" not in again.message.headers
    assert again.request_dict["properties"]["expiration"] == "600000", "the task sees it"
    assert again.delivery_info["routing_key"] == first.delivery_info["routing_key"]
    assert again.delivery.origin == origin_of(again.message.headers)
    assert ORIGIN not in again.request_dict, "a retry would send it along"
    assert parked_message_of(again) == parked_message_of(first)


def test_a_refused_one_says_why_where_it_is_delivered(parts: Parts) -> None:
    parked_message_of(parts.receive("one")).refused("too late").publish(parts.app)
    again = parts.receive(None)
    assert again.message.headers[REFUSAL] == "too late"
    assert REFUSAL not in again.request_dict
    assert REFUSAL not in parked_message_of(again).headers


def test_the_origin_is_read_from_its_header() -> None:
    assert origin_of({}) is None
    given = ["x", "feed.import", "queue", True, 7, {"type": "y"}]
    assert origin_of({ORIGIN: given}) == Origin(*given)


@pytest.mark.parametrize("queue", ["feeds", None])
def test_what_the_release_before_parked_is_read(queue: str | None) -> None:
    """0.1.0 did not write whether a queue is temporary, nor the properties of a message."""
    before = message(queue=queue)._asdict()
    body = base64.b64encode(before.pop("body")).decode()
    del before["temporary"]
    packed = json.dumps([False, body, *before.values()])
    assert unpack(packed.encode()) == message(queue=queue or "feed.import")
    given = ["x", "feed.import", queue, 7]
    expected = Origin(
        "x", "feed.import", queue or "feed.import", temporary=False, order=7, properties={}
    )
    assert origin_of({ORIGIN: given}) == expected


@pytest.mark.parametrize("given", ["text", 7, [], ["x"], ["x", "y", "z", None], ["x"] * 9, {}])
def test_a_header_of_others_is_none_of_ours(
    given: object, caplog: pytest.LogCaptureFixture
) -> None:
    assert origin_of({ORIGIN: given}) is None
    assert "limiter_origin" in caplog.text
