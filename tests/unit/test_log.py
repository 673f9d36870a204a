"""The log: one line an event, for people or for programs, and never in anybody's way."""

from __future__ import annotations

import io
import json

import pytest

from epaxos.ids import InstanceId
from epaxos.observe.log import Form, Log
from epaxos.protocols.interface import Note

NAMES = ("CA", "VA", "IR")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Broken(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError


def log_to(out: io.StringIO, form: Form = "auto", *, trace: bool = False) -> Log:
    return Log("CA", NAMES, out=out, form=form, trace=trace, wall_s=lambda: 1_700_000_000.25)


def test_people_on_a_terminal_get_one_line() -> None:
    out = Terminal()
    log_to(out).event("peer_up", "VA answers", rtt_us=72_000)
    line = out.getvalue()
    assert line[8:] == ".250 CA peer_up VA answers rtt_us=72000\n"


def test_everybody_else_gets_json() -> None:
    out = io.StringIO()
    log_to(out).event("peer_up", "VA answers", rtt_us=72_000)
    assert json.loads(out.getvalue()) == {
        "time": "2023-11-14T22:13:20.250000Z",
        "replica": "CA",
        "event": "peer_up",
        "text": "VA answers",
        "rtt_us": 72_000,
    }


@pytest.mark.parametrize("form", ["text", "json"])
def test_an_event_stays_one_line_whatever_a_stranger_says(form: Form) -> None:
    out = io.StringIO()
    log_to(out, form).event("peer_refused", "evil\nline \x1b[31m", key="a\r\nb")
    assert out.getvalue().count("\n") == 1
    assert "\x1b" not in out.getvalue()


def test_notes_are_written_when_traced_with_the_instance_by_name() -> None:
    out = io.StringIO()
    note = Note(event="fast_commit", id=InstanceId(0, 118, 1), detail="3 commands")
    log_to(out, "text").note(note)
    assert out.getvalue() == ""
    log_to(out, "text", trace=True).note(note)
    log_to(out, "text", trace=True).note(Note(event="epoch", id=InstanceId(2, 5, 0)))
    assert [line.split(" ", 2)[2] for line in out.getvalue().splitlines()] == [
        "fast_commit VA.118 3 commands",
        "epoch CA.5@2",
    ]


@pytest.mark.parametrize("out", [Broken(), io.StringIO()])
def test_a_line_that_cannot_be_written_stops_nobody(out: io.StringIO) -> None:
    log = log_to(out, "json")
    out.close()
    log.event("peer_up")
