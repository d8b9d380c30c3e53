"""Wrong input is named: file, line, what is wrong and what is allowed."""

import pytest

from limiter_cli.demo.calls import load_calls
from limiter_cli.demo.inputs import InputError
from limiter_cli.demo.limits import load_limits

GOOD = '{"at": 0, "function": "bill", "duration": 1}'


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            '{"at": 0, "function": "bill", "duration": -1}',
            "duration must be a number of seconds, zero or more, got -1",
        ),
        (
            '{"at": "0", "function": "bill", "duration": 1}',
            "at must be a number of seconds, zero or more, got '0'",
        ),
        (
            '{"at": NaN, "function": "bill", "duration": 1}',
            "at must be a number of seconds, zero or more, got nan",
        ),
        (
            '{"at": true, "function": "bill", "duration": 1}',
            "at must be a number of seconds, zero or more, got True",
        ),
        ('{"at": 0, "duration": 1}', "function is missing"),
        (
            '{"at": 0, "function": "", "duration": 1}',
            "function must be the name of a function, got ''",
        ),
        (
            '{"at": 0, "function": "bill", "duration": 1, "arguments": [1]}',
            "arguments must be an object, from names to values, got [1]",
        ),
        (
            '{"at": 0, "function": "bill", "duration": 1, "priority": 1.5}',
            "priority must be a whole number within 2**31, got 1.5",
        ),
        (
            '{"at": 0, "function": "bill", "duration": 1, "who": 1}',
            "'who' is not known here; there are: at, function, arguments, duration, priority",
        ),
        ("[1]", "a call is an object"),
        ("{", "not valid JSON: Expecting property name"),
        ("[" * 100_000, "not usable JSON: it is nested too deeply"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, message):
    path = tmp_path / "calls.jsonl"
    path.write_text(f"{GOOD}\n\n{line}\n{GOOD}\n")

    with pytest.raises(InputError) as caught:
        load_calls(path)

    assert str(caught.value).startswith(f"{path}, line 3: {message}")


def test_all_bad_lines_are_named_up_to_ten(tmp_path):
    path = tmp_path / "calls.jsonl"
    path.write_text('{"at": -1, "function": "bill"}\n' * 7)

    with pytest.raises(InputError) as caught:
        load_calls(path)

    lines = str(caught.value).splitlines()
    assert lines[0].startswith(f"{path}, line 1: at must be")
    assert lines[1] == f"{path}, line 1: duration is missing"
    assert lines[10] == f"... and 4 more problems in {path}"


def test_bytes_that_are_no_text_and_an_empty_log(tmp_path):
    path = tmp_path / "calls.jsonl"
    path.write_bytes(GOOD.encode() + b"\n\xff\n")
    with pytest.raises(InputError, match="line 2: not UTF-8 text: invalid start byte at byte 1"):
        load_calls(path)

    path.write_text("\n")
    with pytest.raises(InputError, match="there are no calls in it"):
        load_calls(path)


def test_a_log_is_sorted_and_keeps_its_line_numbers(tmp_path):
    path = tmp_path / "calls.jsonl"
    late = GOOD.replace('"at": 0', '"at": 9')
    # U+2028 ends a line for `str.splitlines`, not for JSON lines; editors may leave a BOM.
    odd = '{"at": 1, "function": "bill", "duration": 1, "arguments": {"name": "a\u2028b"}}'
    path.write_text(f"\ufeff{late}\r\n{odd}\n{GOOD}", encoding="utf-8")

    calls = load_calls(path)

    assert [(line, call.at) for line, call in calls] == [(3, 0), (2, 1), (1, 9)]
    assert calls[1][1].arguments == {"name": "a\u2028b"}


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("[bill\n", 1, "not valid TOML: Expected ']'"),
        ('[bill]\nby = "tenant', 2, "not valid TOML: "),
        ("timeout = 3\n", 1, "timeout must be a table of options, such as [timeout], got 3"),
        (
            "[bill]\nmax = 3\n",
            2,
            "[bill] 'max' is not known here; there are: by, constant, max_concurrent",
        ),
        (
            '[bill]\nmax_concurrent = "3"\n',
            2,
            "[bill] max_concurrent must be a whole number of slots, got '3'",
        ),
        ("[bill]\nmax_concurrent = -1\n", 2, "[bill] max_concurrent must be at least 0, got -1"),
        (
            '[bill]\n\non_conflict = "wait"\n',
            3,
            '[bill] on_conflict must be "queue", "priority", "cancel", "cancel_running" or ',
        ),
        (
            '# one\n[a]\n\n[bill]\nby = "x"\ntimeout = -2\n',
            6,
            "[bill] timeout must be zero or more and finite, got -2",
        ),
        ("[bill]\nlease = 0\n", 2, "[bill] lease must be more than zero and finite, got 0"),
        (
            '[[bill]]\nby = "a"\n[[bill]]\nby = [\n  "b",\n  1,\n]\n',
            4,
            "[bill] by must be an argument's name, or a list of names, got ['b', 1]",
        ),
        ("[bill]\ncost = 2\n", 2, "[bill] cost 2 is above the limit of 1"),
        (
            '[bill]\nby = "a"\nconstant = "b"\n',
            3,
            "[bill] constant stands in place of by: leave one of them out",
        ),
        ("[bill]\n[bill.per_value]\na = 1\n", 2, "[bill] per_value needs one argument's name"),
        (
            '[bill]\nby = "a"\nper_value = {a = -1}\n',
            3,
            "[bill] per_value must be zero or more, got {'a': -1}",
        ),
        (
            "[bill]\npriority = 3\n",
            2,
            '[bill] priority has no effect without on_conflict = "priority"',
        ),
        ('bill.by = "a"\nbill.cost = 0\n', 2, "[bill] cost must be at least 1, got 0"),
        ('[bill]\nname = " "\n', 2, "[bill] name must be printable text, and not blank"),
        ('[bill]\nby = "a..b"\n', 1, "[bill] 'a..b' is not a path"),
        ("bill = [1]\n", 1, "bill must be a table of options"),
    ],
)
def test_a_bad_table_is_named(tmp_path, text, line, message):
    path = tmp_path / "limits.toml"
    path.write_text(text)

    with pytest.raises(InputError) as caught:
        load_limits(path)

    assert str(caught.value).startswith(f"{path}, line {line}: {message}")


def test_a_table_may_name_its_limit(tmp_path):
    path = tmp_path / "limits.toml"
    path.write_text('[bill]\nname = "billing"\n[sync]\nconstant = "crm"\n')

    limits = load_limits(path)

    assert [limits[each][0].name for each in ("bill", "sync")] == ["billing", None]


def test_every_bad_option_is_named_in_the_order_of_the_file(tmp_path):
    path = tmp_path / "limits.toml"
    path.write_text("[b]\ntimeout = -1\n[a]\nlease = 0\nmax_hold = 0\n")

    with pytest.raises(InputError) as caught:
        load_limits(path)

    lines = [line.split(":")[0].rpartition(" ")[2] for line in str(caught.value).splitlines()]
    assert lines == ["2", "4", "5"]


def test_limits_that_are_no_text(tmp_path):
    path = tmp_path / "limits.toml"
    path.write_bytes(b"[a]\n[b]\n# \xff\n")

    with pytest.raises(InputError, match="line 3: not UTF-8 text"):
        load_limits(path)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ('[bill]\nby = "tenant"\n', "bill has no argument 'tenant'; there are: customer, slots"),
        ('[bill]\ncost = "slots"\n', "cost 7 is above the limit of 1"),
        ('[bill]\ncost = "customer"\n', "what cost returned for 'bill()' must be a whole number"),
        ('[bill]\nfair_by = "tenant"\n', "bill has no argument 'tenant'"),
        ("[[bill]]\n[[bill]]\n", "the limits of one function need a key each"),
    ],
)
def test_a_call_that_does_not_fit_its_limits_is_named(demo, call, limits, message):
    demo.declare(limits)
    demo.log(call(0, function="other"), call(0, customer="x", slots=7))

    result = demo.run()

    assert result.exit_code == 2
    assert result.output.startswith(f"{demo.calls}, line 2: {message}")
