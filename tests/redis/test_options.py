"""What a URL or a client may say, and what is refused when the store is made."""

from __future__ import annotations

import re
import ssl
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio
import redis.sentinel

from limiter_core import ConfigurationError, Limiter, SyncLimiter
from limiter_redis import RedisStore

from ._tls import Authority

MISSPELT = [
    ("redis://h/0?namespce=shop", "namespce", "did you mean 'namespace'"),
    ("redis://h/0?Namespace=shop", "Namespace", "did you mean 'namespace'"),
    ("redis+cluster://h?min_replica=1", "min_replica", "did you mean 'min_replicas'"),
    ("redis+sentinel://h/m?sentinel_pasword=x", "sentinel_pasword", "sentinel_password"),
    ("unix:///s?sockettimeout=3", "sockettimeout", "did you mean 'socket_timeout'"),
    ("redis://h?sentinel_password=x", "sentinel_password", "there are: "),
    ("redis+cluster://h?db=3", "db", "there are: "),
    ("redis://h?retry=3", "retry", "there are: "),
    ("redis://h?ssl_ca_certs=/ca.pem", "ssl_ca_certs", "rediss://, not redis://"),
    ("redis+cluster://h?ssl_cert_reqs=none", "ssl_cert_reqs", r"rediss\+cluster://, not"),
]


@pytest.mark.parametrize(("url", "option", "said"), MISSPELT)
def test_an_option_that_there_is_not_is_refused(url: str, option: str, said: str) -> None:
    """With its name, and those that there are."""
    for make in (RedisStore, Limiter, SyncLimiter):
        with pytest.raises(ConfigurationError, match=f"{option!r}.*{said}"):
            make(url)


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("namespace=a&namespace=b", "'namespace' 2 times"),
        ("socket_timeout=soon", "'socket_timeout'.*seconds"),
        ("socket_timeout=0", "'socket_timeout'.*more than 0"),
        ("socket_timeout=nan", "'socket_timeout'"),
        ("socket_connect_timeout=-1", "'socket_connect_timeout'"),
        ("db=one", "'db'"),
        ("db=-1", "'db'"),
        ("min_replicas=many", "min_replicas"),
        ("namespace=", "namespace is 1 to"),
    ],
)
def test_a_value_that_cannot_be_is_refused(query: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        RedisStore(f"redis://h?{query}")


@pytest.mark.parametrize("path", ["abc", "1/2", "-1", "1x", "²"])
def test_a_path_that_is_no_database_is_refused(path: str) -> None:
    """It would be database 0, or 12: redis-py takes what it can."""
    with pytest.raises(ConfigurationError, match="number of a database"):
        RedisStore(f"redis://h/{path}")
    with pytest.raises(ConfigurationError, match="service and database cannot be read"):
        RedisStore(f"redis+sentinel://h/m/{path}")


def test_two_databases_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="two databases, 1 and 2"):
        RedisStore("redis://h/1?db=2")
    assert RedisStore("redis://h/2?db=2")._endpoint.database == 2


def test_what_redis_py_takes_is_taken() -> None:
    """Such URLs are shared with other code."""
    query = "decode_responses=true&max_connections=3&health_check_interval=5&client_name=me"
    for base in ("redis://h", "redis+cluster://h", "redis+sentinel://h/m", "unix:///s"):
        store = RedisStore(f"{base}?{query}&socket_timeout=2&namespace=shop")
        assert (store._endpoint.timeout, store.namespace) == (2.0, "shop")


def test_options_and_arguments_may_agree() -> None:
    url = "redis://h?namespace=shop&min_replicas=1&min_replicas_timeout=0.5"
    store = RedisStore(url, namespace="shop", min_replicas=(1, 0.5))
    assert (store.namespace, RedisStore(url).namespace) == ("shop", "shop")
    with pytest.raises(ConfigurationError, match="'other', and 'shop' in the URL"):
        RedisStore(url, namespace="other")
    with pytest.raises(ConfigurationError, match="min_replicas is given twice"):
        RedisStore(url, min_replicas=(2, 0.5))


@pytest.mark.parametrize(
    "url",
    [
        "redis://me:hu/sh@h/0",
        "redis://me:hu?sh@h/0",
        "redis://me:hu?sh=1@h/0",
        "redis://me:hu#sh@h/0",
        "redis://me:[hush@h/0",
        "redis+sentinel://me:hu?sh@h/m/0",
        "redis+cluster://me:hu/sh@h",
        "redis://me:hush@h:port/0",
        "redis://me:hush@h/0?socket_timeout=hush",
        "redis://h/0?password=a&hush",
        "redis://h/0&password=hush",
        "redis://h/0;password=hush",
        "redis://h/0#hush",
        "redis+cluster://h/0&password=hush",
        "redis+sentinel://h/m&password=hush",
        "redis+sentinel://h/m/0&password=hush",
        "redis://h/0?min_replicas=hush",
        "rediss://h/0?ssl_cert_reqs=hush",
        "rediss://h/0?ssl_certfile=-----BEGIN+CERTIFICATE-----hush",
        "rediss://h/0?ssl_certfile=/x&ssl_keyfile=hush%0A",
        "rediss://h/0?ssl_ca_path=hush%00",
    ],
)
def test_no_error_tells_a_part_of_a_password(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        RedisStore(url)
    assert not re.search(r"\bhu|sh\b|hush", str(caught.value))
    assert caught.value.__cause__ is None


LONG = "hush" + "x" * 5000
REFUSED = [
    *(f"rediss://h/0?{name}={LONG}" for name in ("namespace", "min_replicas", "socket_timeout")),
    *(f"rediss://h/0?ssl_{name}={LONG}" for name in ("cert_reqs", "min_version", "ciphers")),
    *(f"rediss://h/0?ssl_{name}={LONG}" for name in ("certfile", "ca_certs", "ca_path", "ca_data")),
    *(f"redis{kind}://h/{LONG}" for kind in ("", "+cluster")),
    f"redis://h/{'9' * 5000}",
    f"redis://h/0?{LONG}=1",
    f"nowhere{LONG}://h",
    f"me:{LONG}@h",
    f"nowhere://me:{LONG}@h",
]


@pytest.mark.parametrize("number", range(len(REFUSED)))
def test_no_error_repeats_all_that_was_given(number: int) -> None:
    """No refusal is longer than a reader reads, and none is of another class."""
    url = REFUSED[number]
    with pytest.raises(ConfigurationError) as caught:
        Limiter(url)
    assert len(str(caught.value)) < 1500
    assert "@" not in url or "hush" not in str(caught.value)


@pytest.mark.parametrize("name", ["ssl_keyfile", "ssl_certfile", "ssl_ca_certs", "ssl_ca_path"])
@pytest.mark.parametrize("length", [1, 5000])
def test_the_text_of_a_key_in_place_of_its_path_is_shown_to_nobody(name: str, length: int) -> None:
    key = f"-----BEGIN PRIVATE KEY-----\n{'hush' * length}\n-----END PRIVATE KEY-----\n"
    new: Any = redis.Redis
    client = new(ssl=True, **{name: key})
    with pytest.raises(ConfigurationError, match=f"{name} is no .*it takes a path") as caught:
        RedisStore(client=client)
    assert "hush" not in str(caught.value)


# -- TLS -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that is there, and has nothing in it that TLS could use."""
    file = tmp_path_factory.mktemp("pem") / "text.pem"
    file.write_text("hello\n")
    return file


WRONG = [
    ("ssl_ca_certs=/nowhere/ca.pem", "ssl_ca_certs is no file: '/nowhere/ca.pem'"),
    ("ssl_certfile=/nowhere/c.pem&ssl_keyfile=/nowhere/k.pem", "ssl_certfile is no file"),
    ("ssl_ca_path=/nowhere", "ssl_ca_path is no folder"),
    ("ssl_keyfile={text}", "give ssl_certfile, too"),
    ("ssl_ca_certs={text}", "ssl_ca_certs, ssl_ca_path, ssl_ca_data cannot be used"),
    ("ssl_certfile={text}", "ssl_certfile, ssl_keyfile cannot be used"),
    ("ssl_ca_data=hello", "ssl_ca_data cannot be used"),
    ("ssl_cert_reqs=maybe", "ssl_cert_reqs .* required, optional, none$"),
    ("ssl_cert_reqs=none&ssl_check_hostname=true", "contradicts ssl_cert_reqs"),
    ("ssl_ciphers=none-of-these", "ssl_ciphers cannot be used"),
    ("ssl_min_version=7", "ssl_min_version cannot be used"),
    ("ssl_validate_ocsp=1&ssl_validate_ocsp_stapled=1", "only one can be asked for"),
]


@pytest.mark.parametrize("scheme", ["rediss://h", "rediss+cluster://h", "rediss+sentinel://h/m"])
@pytest.mark.parametrize(("query", "said"), WRONG)
def test_tls_that_cannot_be_is_refused_at_once(
    scheme: str, query: str, said: str, pem: Path
) -> None:
    """And not at each call, as an outage."""
    with pytest.raises(ConfigurationError, match=said):
        RedisStore(f"{scheme}?{query.format(text=pem)}")


@pytest.mark.parametrize("module", [redis, redis.asyncio])
def test_tls_of_a_client_that_cannot_be_is_refused_at_once(module: Any) -> None:
    client = module.Redis(ssl=True, ssl_ca_certs="/nowhere/ca.pem")
    with pytest.raises(ConfigurationError, match="ssl_ca_certs is no file"):
        RedisStore(client=client)


@pytest.mark.parametrize("module", [redis, redis.asyncio])
@pytest.mark.parametrize("given", [{"db": "orders"}, {"port": "http"}, {"db": -1}])
def test_a_number_of_a_client_that_is_none_is_refused_at_once(module: Any, given: Any) -> None:
    with pytest.raises(ConfigurationError, match="is a whole number"):
        RedisStore(client=module.Redis(**given))


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        *(("CERT_NONE", "none"), ("CERT_OPTIONAL", "optional"), ("CERT_REQUIRED", "required")),
        *(("none", "none"), ("required", "required"), ("None", "none")),
    ],
)
def test_what_is_required_of_a_certificate_as_celery_writes_it(said: str, meant: str) -> None:
    for base in ("rediss://h/0", "rediss+cluster://h", "rediss+sentinel://h/m/0"):
        store = RedisStore(f"{base}?ssl_cert_reqs={said}")
        address: Any = store._endpoint._address  # type: ignore[attr-defined]
        assert address["ssl_cert_reqs"] == meant


@pytest.mark.parametrize("given", [ssl.CERT_NONE, "none", None])
@pytest.mark.parametrize("module", [redis, redis.asyncio])
def test_clients_that_check_nothing(module: Any, given: Any) -> None:
    """For both worlds, whatever redis-py's default for the host's name is."""
    store = RedisStore(client=module.Redis(ssl=True, ssl_cert_reqs=given))
    store.sync_face()
    store.async_face()
    address: Any = store._endpoint._address  # type: ignore[attr-defined]
    assert (address["ssl_cert_reqs"], address["ssl_check_hostname"]) == ("none", False)


def test_a_check_that_event_loops_cannot_make_is_refused_there() -> None:
    """redis-py asks for the state of a certificate (OCSP) in threads only."""
    store = RedisStore("rediss://h?ssl_validate_ocsp=1")
    SyncLimiter(store)
    with pytest.raises(ConfigurationError, match=r"ssl_validate_ocsp.*event loops"):
        Limiter(store)


def test_nobody_is_asked_for_a_password_at_a_terminal(tmp_path: Path) -> None:
    """A key that is encrypted, without its password, and with another."""
    certificate, key = Authority(tmp_path).issue("client", password=b"open")
    url = f"rediss://h?ssl_certfile={certificate}&ssl_keyfile={key}"
    for wrong in (url, f"{url}&ssl_password=no"):
        with pytest.raises(ConfigurationError, match="ssl_password has to open the key"):
            RedisStore(wrong)
    RedisStore(f"{url}&ssl_password=open").sync_face()
