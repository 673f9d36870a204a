"""A comparison in virtual time: what must hold on any machine, since nothing of it is measured on one."""

from __future__ import annotations

import json

from click.testing import CliRunner

from bench.__main__ import bench
from bench.compare import CompareOptions, run_compare
from bench.comparison import as_table


def test_without_conflicts_epaxos_is_near_the_optimum_and_raft_near_its_bound() -> None:
    options = CompareOptions(backend="virtual", conflicts=(0.0,), leaders=("best", "worst"), seconds=4.0)
    result = run_compare(options, lambda words: None)
    epaxos, best, worst = result.cells
    assert [cell.label for cell in result.cells] == ["epaxos", "raft, leader CA", "raft, leader IR"]
    for cell in result.cells:
        for site in cell.sites.values():
            median = site.execute_us["p50"]
            assert median is not None and site.bound_us <= median <= site.bound_us * 1.03 + 3_000
            assert (site.answered, site.failed) == (100, 0)
    assert epaxos.mean_p50_us is not None and best.mean_p50_us is not None and worst.mean_p50_us is not None
    assert 1.4 * epaxos.mean_p50_us < best.mean_p50_us < worst.mean_p50_us
    assert epaxos.mean_fast_share == 1.0 and best.mean_fast_share is None
    assert "best Raft" in as_table(result)


def test_the_same_seed_gives_the_same_figures() -> None:
    words = ["compare", "--backend", "virtual", "--conflicts", "25", "--leaders", "none", "--seconds", "3", "--json"]
    first, second = (json.loads(CliRunner().invoke(bench, words).output) for _ in range(2))
    assert first["cells"] == second["cells"]
    assert first["format"] == 2 and first["backend"] == "virtual"
    (cell,) = first["cells"]
    assert cell["groups"]["p50"] == 1 and cell["groups"]["max"] > 1, "commands on the hot key wait for one another"
    assert cell["sites"]["CA"]["answered"] == 80 and 0 < cell["mean_fast_share"] < 1


def test_a_site_that_is_not_there_cannot_lead() -> None:
    done = CliRunner().invoke(bench, ["compare", "--backend", "virtual", "--leaders", "XX"])
    assert done.exit_code != 0 and "XX" in str(done.exception)


def test_keys_by_zipf_are_a_cell_beside_the_shares_of_one_hot_key() -> None:
    words = ["--backend", "virtual", "--conflicts", "none", "--leaders", "none", "--seconds", "3"]
    done = CliRunner().invoke(bench, ["compare", *words, "--zipf", "0.99", "--zipf-keys", "20", "--json"])
    (cell,) = json.loads(done.output)["cells"]
    assert cell["workload"] == "Zipf 0.99" and cell["mean_fast_share"] < 1
    assert CliRunner().invoke(bench, ["compare", *words, "--zipf", "much"]).exit_code == 2
