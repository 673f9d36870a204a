"""Matrix files: what is read, what is refused and in which words, and the command line over them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given, strategies as st

from epaxos.console import run_line
from epaxos.errors import ConfigError
from topology import Matrix, builtin_names, load
from topology.__main__ import topology
from topology.lab.lab import Lab
from topology.matrix import parse
from topology.options import choose

GOOD = """
description = "two"
sites = ["A", "B"]
rtt_ms = [[0, 10.5], [10.5, 0]]
"""


def refused(text: str) -> str:
    with pytest.raises(ConfigError) as error:
        parse(text.encode(), name="mine", where="mine.toml")
    assert str(error.value).startswith("mine.toml: ")
    return str(error.value).removeprefix("mine.toml: ")


def test_all_builtin_matrices_load() -> None:
    assert builtin_names() == ["epaxos5", "gcp13", "gcp5", "gryff5", "tempo5"]
    assert {name: len(load(name).sites) for name in builtin_names()} == {
        "epaxos5": 5,
        "gcp13": 13,
        "gcp5": 5,
        "gryff5": 5,
        "tempo5": 5,
    }
    assert all(load(name).description and load(name).source for name in builtin_names())


@pytest.mark.parametrize(
    ("name", "a", "b", "rtt_us"),
    [
        ("gryff5", "CA", "VA", 72_000),
        ("gryff5", "JP", "IR", 220_000),
        ("epaxos5", "EU", "JP", 204_400),
        ("gcp5", "VA", "OR", 62_000),
        ("tempo5", "AP", "SA", 321_100),
        ("gcp13", "IA", "DE", 105_300),
        ("gcp13", "SG", "NL", 285_300),
    ],
)
def test_round_trips_read_both_ways(name: str, a: str, b: str, rtt_us: int) -> None:
    matrix = load(name)
    assert matrix.between_us(a, b) == matrix.between_us(b, a) == rtt_us


def test_anyone_adds_a_matrix_by_path(tmp_path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(GOOD)
    rtt_us = ((0, 10_500), (10_500, 0))
    assert load(str(path)) == Matrix(name="mine", sites=("A", "B"), rtt_us=rtt_us, description="two")


def test_the_example_in_the_reference_is_a_matrix() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "topology.md").read_text()
    (example,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    matrix = parse(example.encode(), name="mine", where="topology.md")
    assert matrix.between_us("waw", "fra") == 22_400
    assert all(f"`{name}`" in page for name in builtin_names())


def test_a_missing_file_and_an_unknown_name_say_what_there_is(tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml: cannot be read: No such file"):
        load(str(tmp_path / "nowhere.toml"))
    with pytest.raises(ConfigError, match=r"no matrix 'grif5' \(did you mean 'gryff5'\?\); there are epaxos5, gcp13"):
        load("grif5")


@pytest.mark.parametrize(
    ("sites", "rows", "message"),
    [
        ('["A", "A"]', "[[0, 1], [1, 0]]", "sites: 'A' is there twice"),
        ('["A", "B c"]', "[[0, 1], [1, 0]]", "sites: 'B c' is not a name: 1 to 64 letters, digits, '-' or '_'"),
        ('["A", 2]', "[[0, 1], [1, 0]]", "sites: a list of names is wanted"),
        ("[]", "[]", "sites: 1 to 64 are wanted, not 0"),
        ('["A", "B"]', "[[0, 1]]", "rtt_ms: 1 rows for 2 sites"),
        ('["A", "B"]', "[[0, 1], [1]]", "rtt_ms: row B has 1 values for 2 sites"),
        ('["A", "B"]', "[[0, 1, 5], [1, 0]]", "rtt_ms: row A has 3 values for 2 sites"),
        ('["A", "B"]', "[[0, 1], [2, 0]]", "rtt_ms: not symmetric: A to B is 1 ms, B to A is 2 ms"),
        ('["A", "B"]', "[[0, -1], [-1, 0]]", "rtt_ms: row A, column B: -1 ms is negative"),
        ('["A", "B"]', "[[0, 1], [1, 3]]", "rtt_ms: row B, column B: a site is 0 ms from itself, not 3 ms"),
        ('["A", "B"]', "[[0, nan], [nan, 0]]", "rtt_ms: row A, column B: nan is not a number of milliseconds"),
        ('["A", "B"]', '[[0, "1"], [1, 0]]', "rtt_ms: row A, column B: '1' is not a number of milliseconds"),
        ('["A", "B"]', "[[0, true], [1, 0]]", "rtt_ms: row A, column B: True is not a number of milliseconds"),
        ('["A", "B"]', "[[0, 72000], [1, 0]]", "rtt_ms: row A, column B: 72000 ms is more than the 10000 ms allowed"),
        ('["A", "B"]', "7", "rtt_ms: a list of rows is wanted, one row a site"),
    ],
)
def test_a_wrong_matrix_is_refused_in_words_that_point_at_it(sites: str, rows: str, message: str) -> None:
    assert refused(f"sites = {sites}\nrtt_ms = {rows}\n") == message


def test_a_wrong_file_is_refused_too() -> None:
    assert refused(GOOD + "rtt = 1\n").startswith("unknown key 'rtt'")
    assert "did you mean 'sites'" in refused(GOOD.replace("sites", "site"))
    assert refused('sites = ["A"]\n') == "key 'rtt_ms' is missing"
    assert refused(GOOD.replace('"two"', "2")) == "description: 2 is not a string"
    assert re.search(r"line 2", refused("sites = [\n = 3"))
    with pytest.raises(ConfigError, match=r"^mine: not UTF-8 at byte 0$"):
        parse(b"\xff", name="mine", where="mine")
    with pytest.raises(ConfigError, match="longer than"):
        parse(b"#" * ((1 << 20) + 1), name="mine", where="mine")


def test_an_unknown_site_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"matrix gcp13 has no site 'SCA' \(did you mean 'SC'\?\); it has SG, NL"):
        load("gcp13").between_us("SG", "SCA")


def test_a_part_of_a_matrix_keeps_the_order_asked_for() -> None:
    part = load("gryff5").only(["JP", "CA"])
    assert part.sites == ("JP", "CA")
    assert part.rtt_us == ((0, 113_000), (113_000, 0))
    with pytest.raises(ConfigError, match="'CA' is there twice"):
        part.only(["CA", "CA"])


def test_neighbours_come_nearest_first_and_equals_in_the_matrix_order() -> None:
    assert load("gryff5").nearest("CA") == [(59_000, "OR"), (72_000, "VA"), (113_000, "JP"), (151_000, "IR")]
    flat = Matrix(name="flat", sites=("C", "B", "A"), rtt_us=((0, 5, 5), (5, 0, 5), (5, 5, 0)))
    assert flat.nearest("A") == [(5, "C"), (5, "B")]


@given(st.integers(0, 10_000_000))
def test_the_two_ways_of_a_link_make_the_round_trip_exactly(rtt_us: int) -> None:
    matrix = Matrix(name="pair", sites=("A", "B"), rtt_us=((0, rtt_us), (rtt_us, 0)))
    there, back = matrix.one_way_us("A", "B"), matrix.one_way_us("B", "A")
    assert there + back == rtt_us
    assert 0 <= there - back <= 1


def test_the_command_line_lists_and_shows() -> None:
    run = CliRunner().invoke
    listed = run(topology, ["list"])
    assert listed.exit_code == 0
    assert [line.split()[0] for line in listed.stdout.splitlines()[2:]] == builtin_names()
    shown = run(topology, ["show", "gryff5", "--sites", "CA,VA"])
    assert shown.stdout.splitlines()[-2:] == ["CA   0.0  72.0", "VA  72.0   0.0"]
    data = json.loads(run(topology, ["show", "gryff5", "--json"]).stdout)
    assert data["sites"] == ["CA", "VA", "IR", "OR", "JP"]
    assert data["rtt_us"][0] == [0, 72_000, 151_000, 59_000, 113_000]


def test_the_command_line_prints_bounds_with_the_best_and_the_worst_leader() -> None:
    run = CliRunner().invoke
    lines = run(topology, ["bounds", "gryff5"]).stdout.splitlines()
    assert "CA       72.0    72.0   144.0   72.0  296.0" in lines
    assert "mean    103.8   103.8   207.6  151.0  265.8" in lines
    assert lines[-1] == "Raft by leader, mean over sites: CA 151.0, VA 171.0, OR 176.6, JP 244.2, IR 265.8"
    data = json.loads(run(topology, ["bounds", "gryff5", "--json"]).stdout)
    assert data["bounds"]["epaxos fast"]["mean_us"] == 103_800
    assert data["raft_leaders"][0] == {"leader": "CA", "mean_us": 151_000}


def test_what_goes_wrong_is_told_as_by_the_other_command_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def topology_(*words: str) -> int:
        return run_line(topology, "python -m topology", words)

    assert topology_("show", "gryff") == 2
    assert capsys.readouterr().err.startswith("epaxos: there is no matrix 'gryff' (did you mean 'gryff5'?)")
    assert topology_("status", "--name", "nosuchlab", "--json") == 1
    said = json.loads(capsys.readouterr().out)
    assert "there is no lab nosuchlab" in said["error"] and said["exit"] == 1

    def find(name: str) -> Lab:
        raise FileNotFoundError(2, "No such file or directory", "ip")

    monkeypatch.setattr("topology.lab.lab.find", find)
    assert topology_("status") == 1
    assert capsys.readouterr().err == "epaxos: [Errno 2] No such file or directory: 'ip'\n"


def test_spaces_around_sites_do_not_matter() -> None:
    assert choose("gryff5", "CA, VA").sites == ("CA", "VA")
