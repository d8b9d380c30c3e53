"""From the URL, or the client, that a user gives to the place where the store lives."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

import redis
import redis.asyncio

from limiter_core.errors import ConfigurationError
from limiter_redis.connection.endpoints import ClusterEndpoint, SentinelEndpoint, ServerEndpoint
from limiter_redis.connection.nodes import Endpoint, Node
from limiter_redis.connection.settings import (
    PLAIN_CONNECTIONS,
    SCHEMES,
    address_of_connections,
    address_of_pool,
    address_of_url,
    is_number,
    not_a_url,
)
from limiter_redis.connection.url_options import OF_SENTINELS, check_options, knows_all

_SENTINEL_PORT, _PORT = 26379, 6379
_SEVERAL = ("", "cluster", "sentinel")
_KINDS_OF = {"redis": _SEVERAL, "rediss": _SEVERAL, "unix": ("",)}

_SERVICE = re.compile(r"[\w.%-]+", re.ASCII)
"""What a Sentinel takes for a name; percent-encoded, it may be anything."""

SENTINEL_URL = "redis+sentinel://host:26379,host:26379/service/0"
CLUSTER_URL = "redis+cluster://host:6379,host:6379"


def checked_url(url: object) -> str:
    """Return a URL with options that there are, each once.

    Raises:
        ConfigurationError: it is not one. (The message keeps its password to itself.)
    """
    if not isinstance(url, str):
        raise ConfigurationError(f"the URL of a store is text, got a {type(url).__name__}")
    scheme, _, rest = url.partition("://")
    base, _, kind = scheme.partition("+")
    head, _, query = rest.partition("?")
    if base not in SCHEMES or kind not in _KINDS_OF[base]:
        raise not_a_url(url)
    if base != "unix" and "@" in head.partition("/")[2]:
        raise not_a_url(url)  # what we would quote is a part of a password
    if "@" in query and not knows_all(base, kind, query):
        raise not_a_url(url)
    check_options(base, kind, query)
    return url


def endpoint_of_url(url: str) -> Endpoint:
    """Return where the store of a URL lives.

    Raises:
        ConfigurationError: it cannot be read. (The message keeps its password to itself.)
    """
    scheme, _, rest = url.partition("://")
    base, _, kind = scheme.partition("+")
    head, _, query = rest.partition("?")
    if kind == "cluster":
        return _cluster_of_url(base, rest)
    if kind == "sentinel":
        return _sentinel_of_url(base, rest)
    if base != "unix":
        _check_database(head, query)
    return ServerEndpoint(address_of_url(url))


def _check_database(head: str, query: str) -> None:
    """Refuse a path that is no database: redis-py takes what it can of it, and is silent."""
    path = head.partition("/")[2].removesuffix("/")
    if path and not is_number(path):
        raise ConfigurationError(
            'behind host and port stands the number of a database, "/0", and options begin with "?"'
        )
    option = dict(parse_qsl(query)).get("db")
    if path and option is not None and int(option) != int(path):
        raise ConfigurationError(f"the URL names two databases, {path} and {option}")


def take_options(url: str, *names: str) -> tuple[str, dict[str, str]]:
    """Return a URL without some options of its query, and these."""
    head, _, rest = url.partition("?")
    query, hash_mark, fragment = rest.partition("#")
    options = parse_qsl(query, keep_blank_values=True)
    taken = {name: value for name, value in options if name in names}
    if not taken:
        return url, taken
    left = urlencode([(name, value) for name, value in options if name not in names])
    return f"{head}{'?' if left else ''}{left}{hash_mark}{fragment}", taken


def _split(rest: str, port: int, example: str) -> tuple[list[Node], str, str, str]:
    """Return hosts, "user:password@", path and query of a URL behind its scheme."""
    head, _, query = rest.partition("?")
    authority, _, path = head.partition("/")
    user, at, hosts = authority.rpartition("@")
    try:
        parts = [urlsplit(f"//{host}") for host in hosts.split(",")]
        nodes = [Node(part.hostname or "", part.port or port) for part in parts]
    except ValueError:
        nodes = []
    if not nodes or not all(node.host for node in nodes):
        raise ConfigurationError(f"hosts and ports cannot be read; expected {example}")
    return nodes, user + at, path.strip("/"), query


def _address(base: str, node: Node, user: str, path: str, query: str) -> dict[str, Any]:
    host = f"[{node.host}]" if ":" in node.host else node.host
    return address_of_url(f"{base}://{user}{host}:{node.port}/{path}{'?' if query else ''}{query}")


def _cluster_of_url(base: str, rest: str) -> ClusterEndpoint:
    nodes, user, path, query = _split(rest, _PORT, CLUSTER_URL)
    if path not in ("", "0"):
        raise ConfigurationError(
            'a cluster has one database: behind hosts and ports stands "/0" or nothing, and '
            'options begin with "?"'
        )
    return ClusterEndpoint(nodes, _address(base, nodes[0], user, "", query))


def _sentinel_of_url(base: str, rest: str) -> SentinelEndpoint:
    rest, asking = take_options(rest, *OF_SENTINELS)
    nodes, user, path, query = _split(rest, _SENTINEL_PORT, SENTINEL_URL)
    service, _, database = path.partition("/")
    if not service:
        raise ConfigurationError(f"the service is missing; expected {SENTINEL_URL}")
    # Not with what stands there: an option behind a wrong sign may be a password.
    if not _SERVICE.fullmatch(service) or (database and not is_number(database)):
        raise ConfigurationError(f"service and database cannot be read; expected {SENTINEL_URL}")
    address = _address(base, nodes[0], user, database, query)
    common = {name: value for name, value in address.items() if name.startswith("ssl")}
    common |= {name.removeprefix("sentinel_"): value for name, value in asking.items()}
    sentinels = [{**common, **node._asdict()} for node in nodes]
    return SentinelEndpoint(unquote(service), sentinels, address)


Client = redis.Redis | redis.asyncio.Redis | redis.RedisCluster | redis.asyncio.RedisCluster
"""The clients of redis-py that a store may be made of."""


def endpoint_of_client(client: object) -> Endpoint:
    """Return where the server of a user's client lives.

    Raises:
        ConfigurationError: it is no client, or its connections are not made by their settings.
    """
    if isinstance(client, redis.RedisCluster | redis.asyncio.RedisCluster):
        return _cluster_of_client(client)
    if not isinstance(client, redis.Redis | redis.asyncio.Redis):
        name = f"{type(client).__module__}.{type(client).__name__}"
        raise ConfigurationError(
            f"client must be a Redis or RedisCluster of redis-py, sync or async, got a {name}"
        )
    pool: Any = client.connection_pool
    if hasattr(pool, "sentinel_manager"):
        return _sentinel_of_pool(pool)
    if pool.connection_class not in PLAIN_CONNECTIONS:
        raise ConfigurationError(
            "client must be one whose settings say where it connects to, but its connections are "
            f"of the class {pool.connection_class.__name__}: the store knows TCP, TLS and Unix "
            "sockets, Sentinel and Cluster, no classes of users"
        )
    return ServerEndpoint(address_of_pool(pool))


def _sentinel_of_pool(pool: Any) -> SentinelEndpoint:
    if not pool.is_master:
        raise ConfigurationError(
            "client must be one of the master, made by Sentinel.master_for: a replica takes no "
            "writes"
        )
    sentinels: list[dict[str, Any]] = [
        address_of_pool(sentinel.connection_pool) for sentinel in pool.sentinel_manager.sentinels
    ]
    return SentinelEndpoint(pool.service_name, sentinels, address_of_pool(pool))


def _cluster_of_client(client: Any) -> ClusterEndpoint:
    manager = client.nodes_manager
    settings: dict[str, Any] = manager.connection_kwargs
    kind = settings.get("connection_class")
    tls = bool(settings.get("ssl")) or (kind is not None and "SSL" in kind.__name__)
    nodes = [*manager.startup_nodes.values(), *manager.nodes_cache.values()]
    seeds = list(dict.fromkeys(Node(str(node.host), int(node.port)) for node in nodes))
    address = address_of_connections(settings, tls=tls)
    return ClusterEndpoint(seeds, address, getattr(manager, "address_remap", None))
