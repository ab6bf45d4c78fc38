"""The main example as a user runs it: a file of requests, good and bad, on the command line."""

import random
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
GOOD = b'{"meeting_id": 1, "user_id": 7}\n'
JOINED = "user 7 joined meeting 1\n"


def run(*arguments: object, cwd: Path | None = None) -> "subprocess.CompletedProcess[str]":
    return execute(sys.executable, "-W", "error", EXAMPLES / "01_commands.py", *arguments, cwd=cwd)


def execute(*command: object, cwd: Path | None = None) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(list(map(str, command)), check=False, capture_output=True, text=True, timeout=60, cwd=cwd)


@pytest.fixture
def requests(tmp_path: Path) -> Path:
    return tmp_path / "requests.jsonl"


def test_the_file_that_comes_with_it_ends_with_0() -> None:
    done = run("meetings.jsonl", cwd=EXAMPLES)
    assert done.stdout.splitlines() == [
        "user 7 joined meeting 1",
        "user 8 joined meeting 1",
        "user 8 was warned for being late",
        "user 12 joined meeting 2",
    ]
    assert (done.returncode, done.stderr) == (0, "")


def test_the_file_with_bad_lines_is_done_except_for_these_and_ends_with_1() -> None:
    done = run("meetings-with-bad-lines.jsonl", cwd=EXAMPLES)
    assert done.stdout.splitlines() == [
        "user 7 joined meeting 1",
        "user 8 joined meeting 1",
        "user 8 was warned for being late",
        "user 12 joined meeting 2",
    ]
    assert done.stderr.splitlines() == [
        "meetings-with-bad-lines.jsonl:3: Expected `int`, got `str` - at `$.user_id`",
        "meetings-with-bad-lines.jsonl:4: Object missing required field `user_id`",
        "meetings-with-bad-lines.jsonl:5: Object contains unknown field `is_lat`",
        "meetings-with-bad-lines.jsonl:6: empty line",
        "meetings-with-bad-lines.jsonl:7: JSON is malformed: invalid character (byte 0)",
    ]
    assert done.returncode == 1


def test_a_file_without_bad_lines_ends_with_0(requests: Path) -> None:
    requests.write_bytes(GOOD * 3)
    done = run(requests)
    assert (done.returncode, done.stdout, done.stderr) == (0, JOINED * 3, "")


def test_an_empty_file_ends_with_0(requests: Path) -> None:
    requests.write_bytes(b"")
    done = run(requests)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_last_line_needs_no_end_and_lines_may_end_as_on_windows(requests: Path) -> None:
    requests.write_bytes(GOOD.replace(b"\n", b"\r\n") + GOOD.rstrip())
    done = run(requests)
    assert (done.returncode, done.stdout, done.stderr) == (0, JOINED * 2, "")


BAD = {
    b"{": "Input data was truncated",
    b"   ": "empty line",
    b"[1, 7]": "Expected `object`, got `array`",
    b"null": "Expected `object`, got `null`",
    b'{"user_id": 7}': "Object missing required field `meeting_id`",
    b'{"meeting_id": true, "user_id": 7}': "Expected `int`, got `bool` - at `$.meeting_id`",
    b'{"meeting_id": 1.5, "user_id": 7}': "Expected `int`, got `float` - at `$.meeting_id`",
    b'{"meeting_id": 1, "user_id": 7, "is_late": "yes"}': "Expected `bool`, got `str` - at `$.is_late`",
    b'{"meeting_id": 1, "user_id": ' + b"9" * 5_000 + b"}": "Integer value out of range - at `$.user_id`",
    b'{"meeting_id": 1, "user_id": 7} {}': "JSON is malformed: trailing characters (byte 33)",
    b"[" * 9_000: "Expected `object`, got `array`",
    b'{"meeting_id": 1, "\xff": 7}': "'utf-8' codec can't decode byte 0xff in position 0: invalid start byte",
    '{"meeting_id": 1}'.encode("utf-16"): "JSON is malformed: invalid character (byte 0)",
    b"\x00\x01\x02": "JSON is malformed: invalid character (byte 0)",
    b'{"meeting_id": 1, "user_id": 7' + b" " * 10_000 + b"}": "longer than 10000 bytes",
}


def test_each_kind_of_bad_line_is_reported_with_its_number_and_the_rest_is_done(requests: Path) -> None:
    requests.write_bytes(b"".join(line + b"\n" + GOOD for line in BAD))
    done = run(requests)
    assert done.stdout == JOINED * len(BAD)
    numbered = [f"{requests}:{2 * index + 1}: {reason}" for index, reason in enumerate(BAD.values())]
    assert done.stderr.splitlines() == numbered
    assert done.returncode == 1


def test_a_report_is_one_line_whatever_stood_in_the_bad_one(requests: Path) -> None:
    requests.write_bytes(rb'{"meeting_id": 1, "user_id": 7, "two\nlines\u001b[2J": true}')
    assert run(requests).stderr == rf"{requests}:1: Object contains unknown field `two\nlines\x1b[2J`" + "\n"


def test_every_line_of_garbage_is_either_done_or_reported(requests: Path) -> None:
    chance = random.Random(2)
    garbage = [bytearray(GOOD.strip()) for _ in range(2_000)]
    for line in garbage:
        for _ in range(chance.randint(0, 3)):
            line[chance.randrange(len(line))] = chance.choice([value for value in range(256) if value != ord("\n")])
    requests.write_bytes(b"\n".join(garbage))
    done = run(requests)
    reported = [int(line.removeprefix(f"{requests}:").split(":")[0]) for line in done.stderr.splitlines()]
    assert done.returncode == 1
    assert reported == sorted(set(reported))
    assert done.stdout.count(" joined meeting ") + len(reported) == len(garbage)
    assert 1_000 < len(reported) < 2_000


def test_a_line_that_is_larger_than_the_memory_is_skipped(requests: Path) -> None:
    with requests.open("wb") as file:
        file.seek(1 << 29)  # half a GiB of zeros, which take no room on the disk
        file.write(b"\n" + GOOD)
    limited = 'ulimit -v 500000; exec "$@"'
    done = execute("sh", "-c", limited, "sh", sys.executable, EXAMPLES / "01_commands.py", requests)
    assert (done.returncode, done.stdout) == (1, JOINED)
    assert done.stderr == f"{requests}:1: longer than 10000 bytes\n"


@pytest.mark.parametrize("arguments", [(), ("one.jsonl", "two.jsonl"), ("--fast", "one.jsonl")])
def test_wrong_usage_ends_with_2_and_says_what_is_right(arguments: tuple[str, ...]) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "usage: 01_commands.py [-h] file" in done.stderr


def test_a_file_that_cant_be_opened_ends_with_2_and_the_reason(tmp_path: Path) -> None:
    missing, folder = run(tmp_path / "no-such.jsonl"), run(tmp_path)
    assert (missing.returncode, missing.stdout) == (2, "")
    assert f"can't open {tmp_path / 'no-such.jsonl'}: No such file or directory" in missing.stderr
    assert (folder.returncode, folder.stdout) == (2, "")
    assert f"can't open {tmp_path}: Is a directory" in folder.stderr
