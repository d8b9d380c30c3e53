"""Bytes on the command line that are no UTF-8: handled as a value, or refused in one line.

Python has a lone surrogate for each of them.
"""

import pytest

ODD = "caf\udce9"


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["ls", ODD], 0, "no key that matches 'caf?' is in use"),
        (["set", "k", ODD], 2, "a whole number of 0 or more"),
        (["pause", "--name", ODD], 2, "name must be printable text"),
        (["evict", ODD], 1, "there is no lease or ticket caf?"),
        (["evict", "--all-of", ODD], 0, ""),
        (["run", ODD, "--", "no-such-command"], 127, "command not found"),
        (["serve", "--root-path", f"/{ODD}"], 2, "--root-path is a path such as /limits"),
        (["serve", "--root-path", "/caf\u00e9"], 2, "--root-path is a path such as /limits"),
        (["serve", "--token", ODD], 2, "bytes that are no UTF-8"),
        (["top", "--by", ODD], 2, "needs a terminal"),
    ],
)
def test_they_are_handled_or_refused(run, url, arguments, status, message):
    result = run(*arguments, LIMITER_URL=url)

    assert result.exit_code == status
    assert message in result.output


def test_they_name_a_key_of_its_own(run, url, limiter):
    run("set", ODD, "3", LIMITER_URL=url)

    assert "0 of 3" in run("show", ODD, LIMITER_URL=url).output
    limiter.reset_limit("caf%ED%B3%A9")
    assert "0 of ?" in run("show", ODD, LIMITER_URL=url).output
