"""What strategies see of a request, and what the errors say where they see nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.authentication import (
    AuthCredentials,
    AuthenticationBackend,
    BaseUser,
    SimpleUser,
    UnauthenticatedUser,
)
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route

from limiter_asgi import LimitMiddleware
from limiter_asgi._view import RequestView
from limiter_core import (
    LIMIT_BY,
    ArgumentView,
    ConcurrencyLimit,
    ConfigurationError,
    KeyDerivationError,
    Limiter,
)
from limiter_memory import MemoryStore

from ._server import Server, until

Serve = Callable[..., Server]

SCOPE: dict[str, Any] = {
    "type": "http",
    "method": "POST",
    "path": "/customers/42",
    "client": ("10.0.0.7", 50123),
    "headers": [(b"x-api-key", b"k1"), (b"host", b"shop")],
    "query_string": b"region=eu&page=2",
}
OUTSIDE = "client, headers, method, path, query_params"

NEEDED = [
    ("method", "POST"),
    ("path", "/customers/42"),
    ("client", "10.0.0.7"),
    ("headers.x-api-key", "k1"),
    ("headers.X-API-Key", "k1"),
    ("query_params.region", "eu"),
]


@pytest.mark.parametrize(("name", "value"), NEEDED)
def test_what_a_request_has(name: str, value: str) -> None:
    assert RequestView(SCOPE)[name] == value


def test_nothing_is_parsed_that_nobody_asks_for() -> None:
    class Scope(dict[str, Any]):
        def __init__(self, given: Mapping[str, Any]) -> None:
            super().__init__(given)
            self.asked: list[str] = []

        def __getitem__(self, name: str) -> Any:
            self.asked.append(name)
            return super().__getitem__(name)

    scope = Scope(SCOPE)
    assert RequestView(scope)["path"] == "/customers/42"
    assert scope.asked == ["path"]


def test_the_names_are_listed() -> None:
    assert sorted(RequestView(SCOPE)) == OUTSIDE.split(", ")
    with pytest.raises(KeyDerivationError, match=f"no argument 'tenant'; there are: {OUTSIDE}"):
        RequestView(SCOPE)["tenant"]
    assert "route" not in RequestView(SCOPE)
    assert RequestView(SCOPE).get("route") is None


@pytest.mark.parametrize("name", ["route", "path_params", "path_params.customer_id"])
def test_before_routing_no_route_is_known(name: str) -> None:
    with pytest.raises(KeyDerivationError, match="known only after routing") as error:
        RequestView(SCOPE)[name]
    assert str(error.value).endswith(f"there are: {OUTSIDE}")
    assert "Depends(limit(...))" in str(error.value)


def test_without_authentication_there_is_no_user() -> None:
    with pytest.raises(KeyDerivationError, match="no authentication middleware runs outside"):
        RequestView(SCOPE)["user"]


def test_a_server_on_a_unix_socket_has_no_client() -> None:
    with pytest.raises(KeyDerivationError, match="the server gives no address of the client"):
        RequestView({**SCOPE, "client": None})["client"]


async def test_given_arguments_go_first(limiter: Limiter) -> None:
    view = RequestView(SCOPE, {"tenant": "t1", "path": "mine"})
    assert (view["tenant"], view["path"], view["method"]) == ("t1", "mine", "POST")
    assert await limiter.key_for(ConcurrencyLimit("tenant"), view) == "tenant=t1"


class Users(AuthenticationBackend):
    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, BaseUser] | None:
        name = conn.headers.get("x-user")
        return None if name is None else (AuthCredentials(), SimpleUser(name))


class User(SimpleUser):
    @property
    def identity(self) -> str:
        return f"id of {self.username}"


class Nameless(SimpleUser):
    @property
    def identity(self) -> str:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("user", "key"),
    [(User("ann"), "user=id%20of%20ann"), (UnauthenticatedUser(), "user=")],
    ids=["authenticated", "not authenticated"],
)
async def test_a_user_goes_by_its_identity(limiter: Limiter, user: BaseUser, key: str) -> None:
    view = RequestView({**SCOPE, "user": user})
    assert await limiter.key_for(ConcurrencyLimit("user"), view) == key


async def test_a_user_without_identity_is_named_by_an_attribute(limiter: Limiter) -> None:
    view = RequestView({**SCOPE, "user": Nameless("ann")})
    with pytest.raises(KeyDerivationError, match="Nameless has no `identity`, so"):
        await limiter.key_for(ConcurrencyLimit("user"), view)
    assert await limiter.key_for(ConcurrencyLimit("user.username"), view) == "user.username=ann"


class Recording:
    """A limit that notes what it sees, as the middleware has it."""

    def __init__(self, *names: str) -> None:
        self.names = names
        self.seen: list[Any] = []

    def look(self, call: ArgumentView) -> str:
        self.seen.append(tuple(call[name] for name in self.names))
        return "all"

    @property
    def limit(self) -> ConcurrencyLimit:
        return ConcurrencyLimit(LIMIT_BY.fn(self.look), max_concurrent=5)


async def hello(request: Request) -> Response:
    return PlainTextResponse("hello")


def test_middleware_of_a_route_knows_it(limiter: Limiter, serve: Serve) -> None:
    seen = Recording("path_params.customer_id", "customer_id", "path")
    around = [
        Middleware(LimitMiddleware, limiter=limiter, limits=seen.limit),
        Middleware(LimitMiddleware, limiter=limiter, limits=ConcurrencyLimit(max_concurrent=2)),
    ]
    route = Route("/customers/{customer_id:int}", hello, middleware=around)
    server = serve(Starlette(routes=[Mount("/api", routes=[route]), route]))
    assert httpx.get(f"{server.url}/api/customers/42").text == "hello"
    assert httpx.get(f"{server.url}/customers/43").text == "hello"
    assert seen.seen == [
        (42, 42, "/api/customers/42"),
        (43, 43, "/customers/43"),
    ]


def test_the_route_has_the_prefix_of_its_mount(limiter: Limiter, serve: Serve) -> None:
    seen, known = Recording("route"), []

    async def probe(request: Request) -> Response:
        known.append("route" in request.scope)
        return await hello(request)

    around = [Middleware(LimitMiddleware, limiter=limiter, limits=seen.limit)]
    route = Route("/customers/{customer_id:int}", hello, middleware=around)
    server = serve(Starlette(routes=[Mount("/api", routes=[route]), Route("/", probe)]))
    assert httpx.get(server.url).text == "hello"
    response = httpx.get(f"{server.url}/api/customers/42")
    # Not all releases of Starlette that are allowed put a route of its own into the scope.
    assert response.status_code == (200 if known == [True] else 500)
    assert seen.seen == [("/api/customers/{customer_id:int}",)] * known.count(True)


def test_middleware_of_an_app_that_is_mounted_knows_no_route(
    limiter: Limiter, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    around = [
        Middleware(LimitMiddleware, limiter=limiter, limits=ConcurrencyLimit("route", 1)),
    ]
    inner = Starlette(routes=[Route("/hello", hello)], middleware=around)
    server = serve(Starlette(routes=[Mount("/api", inner)]))
    assert httpx.get(f"{server.url}/api/hello").status_code == 500
    until(lambda: "a request has no argument 'route' here" in caplog.text, "the server logs why")


def test_one_limit_per_user_with_the_authentication_outside(
    limiter: Limiter, serve: Serve, store: MemoryStore
) -> None:
    seen = Recording("user.display_name")
    app = Starlette(
        routes=[Route("/", hello)],
        middleware=[
            Middleware(AuthenticationMiddleware, backend=Users()),
            Middleware(LimitMiddleware, limiter=limiter, limits=seen.limit),
        ],
    )
    server = serve(app)
    httpx.get(server.url, headers={"x-user": "ann"})
    httpx.get(server.url)
    assert seen.seen == [("ann",), ("",)]


@pytest.mark.parametrize("is_async", [True, False], ids=["async", "not async"])
def test_arguments_are_a_function_of_the_connection(
    limiter: Limiter, serve: Serve, is_async: bool
) -> None:
    def tenant(connection: HTTPConnection) -> dict[str, Any]:
        return {"tenant": connection.headers["x-tenant"]}

    async def tenant_later(connection: HTTPConnection) -> dict[str, Any]:
        return tenant(connection)

    seen = Recording("tenant", "path")
    app = LimitMiddleware(
        Starlette(routes=[Route("/", hello)]),
        limiter,
        seen.limit,
        arguments=tenant_later if is_async else tenant,
    )
    httpx.get(serve(app).url, headers={"x-tenant": "t1"})
    assert seen.seen == [("t1", "/")]


async def test_arguments_that_are_none_are_refused(limiter: Limiter) -> None:
    app: Any = LimitMiddleware(
        Starlette(), limiter, ConcurrencyLimit("a", 1), arguments=lambda _: ["a"]
    )
    with pytest.raises(ConfigurationError, match=r"returns arguments by name, got a list"):
        await app(SCOPE, None, None)


def test_a_strategy_that_raises_is_an_error_of_the_server(
    limiter: Limiter, serve: Serve, store: MemoryStore, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(call: ArgumentView) -> str:
        raise LookupError("no such tenant")

    limit = ConcurrencyLimit(LIMIT_BY.fn(broken), max_concurrent=1)
    server = serve(LimitMiddleware(Starlette(routes=[Route("/", hello)]), limiter, limit))
    assert httpx.get(server.url).status_code == 500
    until(lambda: "no such tenant" in caplog.text, "the server logs why")
    assert list(store.keys()) == []
