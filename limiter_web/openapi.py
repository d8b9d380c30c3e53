"""The OpenAPI document of the API, made of the types that the API returns."""

from __future__ import annotations

import functools
from typing import Any

from pydantic import TypeAdapter

from limiter_core import KeySnapshot, __version__
from limiter_core.monitoring import KeyStatus, NameStatus, Sort
from limiter_core.policies import Change, Policy
from limiter_web.operations import ACTIONS, Operation, Outcome

__all__ = ("document",)

_TYPES: dict[str, Any] = {
    "Change": Change,
    "KeySnapshot": KeySnapshot,
    "KeyStatus": KeyStatus,
    "NameStatus": NameStatus,
    "Operation": Operation,
    "Outcome": Outcome,
    "Policy": Policy,
}
_REFERENCE = "#/components/schemas/{model}"

_SUMMARIES = {
    "set": "Set the limit of a key, or of all keys of a name.",
    "reset": "Return to the limit that the code declares.",
    "pause": "Admit no call to a key, or to all keys of a name.",
    "resume": "Admit calls again.",
    "evict": "Take the slot from a holder, or end the waiting of a call or job.",
}


def document(server: str) -> dict[str, Any]:
    """Return the document.

    Args:
        server: the path of the API.
    """
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "concurrency-limits",
            "version": __version__,
            "description": "Limits in use, their holders and waiters, and changes of operators.",
        },
        "servers": [{"url": server}],
        "paths": _paths(),
        "components": {
            "schemas": _schemas(),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _paths() -> dict[str, Any]:
    paths: dict[str, Any] = {
        "/keys": _get(
            "Keys in use, the busiest first.",
            _object(keys=_list("KeyStatus"), total=_INT, page=_INT, pages=_INT, store=_STORE),
            _parameter("search", "Text in the key or name; `*` and `?` make it a pattern."),
            _parameter("name", "Only keys of this name."),
            _parameter("scope", "Only keys of this scope; empty: those without one."),
            _parameter("adapter", "Only keys with jobs of it; empty: keys of calls alone."),
            _parameter("sort", "The order.", {"enum": [each.value for each in Sort]}),
            _parameter("reverse", "1: the other way round.", {"enum": ["0", "1"]}),
            _parameter("page", "From 1.", {"type": "integer", "minimum": 1}),
            _parameter(
                "size", "Keys on a page.", {"type": "integer", "minimum": 1, "maximum": 1000}
            ),
        ),
        "/key": _get(
            "One key: its holders and its line in order.",
            {"allOf": [_ref("KeySnapshot"), _object(history=_HISTORY)]},
            {**_parameter("key", "The key, as it is listed."), "required": True},
        ),
        "/names": _get(
            "The keys of each name, summed up, and what operators set for names.",
            _object(names=_list("NameStatus"), policies=_list("Policy"), store=_STORE),
        ),
        "/changes": _get(
            "The last 100 changes, the latest first.", _object(changes=_list("Change"))
        ),
    }
    for action in ACTIONS:
        paths[f"/{action}"] = _post(_SUMMARIES[action])
    return paths


_INT: dict[str, Any] = {"type": "integer"}
_NUMBER_OR_NULL: dict[str, Any] = {"type": ["number", "null"]}
_ERROR = {
    "description": "What was wrong.",
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["error"],
                "properties": {"error": {"type": "string"}},
            }
        }
    },
}


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": _REFERENCE.format(model=name)}


def _list(name: str) -> dict[str, Any]:
    return {"type": "array", "items": _ref(name)}


def _object(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": list(properties), "properties": properties}


_HISTORY: dict[str, Any] = {
    "type": "array",
    "description": "The last 15 minutes by 10 s, the oldest first; null where it was not seen.",
    "items": {"anyOf": [_object(in_use=_INT, waiting=_INT), {"type": "null"}]},
}
_STORE: dict[str, Any] = _object(
    title={"type": "string"},
    unavailable_since={**_NUMBER_OR_NULL, "description": "Seconds since the epoch."},
    error={"type": "string"},
    looked_at={**_NUMBER_OR_NULL, "description": "Seconds since the epoch."},
    searched={"type": "boolean"},
    left_out=_INT,
)


def _parameter(name: str, text: str, schema: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "name": name,
        "in": "query",
        "description": text,
        "schema": schema or {"type": "string"},
    }


def _get(summary: str, schema: dict[str, Any], *parameters: dict[str, Any]) -> dict[str, Any]:
    return {
        "get": {
            "summary": summary,
            "parameters": list(parameters),
            "security": [{}, {"token": []}],
            "responses": {
                "200": {
                    "description": "Found.",
                    "content": {"application/json": {"schema": schema}},
                },
                "400": _ERROR,
                "401": _ERROR,
                "503": _ERROR,
            },
        }
    }


def _post(summary: str) -> dict[str, Any]:
    outcome = {"application/json": {"schema": _ref("Outcome")}}
    return {
        "post": {
            "summary": summary,
            "security": [{"token": []}],
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": _ref("Operation")}},
            },
            "responses": {
                "200": {"description": "Done.", "content": outcome},
                "400": _ERROR,
                "401": _ERROR,
                "403": _ERROR,
                "404": {"description": "There was none any more.", "content": outcome},
                "503": _ERROR,
            },
        }
    }


@functools.cache
def _schemas() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, kind in _TYPES.items():
        schema = TypeAdapter[Any](kind).json_schema(
            ref_template=_REFERENCE,
            mode="validation" if name == "Operation" else "serialization",
        )
        found |= schema.pop("$defs", {})
        found[name] = schema
    return found
