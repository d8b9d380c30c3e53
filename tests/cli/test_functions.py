"""`limiter functions`: the libraries that releases of this package have loaded into a server."""

import pytest

from limiter_core import ConcurrencyLimit, SyncLimiter
from limiter_redis import RedisStore
from limiter_redis.protocol.script import LIBRARY_PREFIX, RELEASE, SCRIPT
from tests.redis._servers import OneNode, Process, server_program

LIMIT = ConcurrencyLimit("key", max_concurrent=1)
OLD = f"{LIBRARY_PREFIX}0123456789abcdef"
OLD_LIBRARY = SCRIPT.library.replace(SCRIPT.function, OLD).replace(
    RELEASE, "concurrency-limits 0.0.1"
)
OTHERS = "#!lua name=others\nredis.register_function('others', function() return 1 end)"


@pytest.fixture(params=[Process, OneNode], ids=["server", "cluster"])
def server(request):
    server = request.param(server_program())
    yield server
    server.close()


def test_those_of_other_releases_are_listed_and_deleted(server, run):
    url = getattr(server, "cluster_url", server.url)

    def functions(*options):
        result = run("functions", *options, "--url", url)
        assert result.exit_code == 0, result.output
        return [line.split("  ") for line in result.output.splitlines()]

    [[said]] = functions()
    assert said.startswith("limiter: no library at ")
    for library in (OLD_LIBRARY, OTHERS):
        server.admin.function_load(library)
    with SyncLimiter(RedisStore(url)) as limiter:
        lease = limiter.acquire(LIMIT, {"key": 1})
        own = RedisStore(url).libraries()[-1].name
        assert functions() == [
            [OLD, "concurrency-limits 0.0.1"],
            [own, RELEASE, "this release"],
        ]
        assert functions("--prune")[0] == [OLD, "concurrency-limits 0.0.1", "deleted"]
        assert functions("--prune") == [[own, RELEASE, "this release"]]
        lease.release()
    assert server.admin.fcall("others", 0) == 1


def test_a_store_without_functions(run):
    result = run("functions", "--url", "memory://")
    assert result.exit_code == 2
