"""What carries every protocol knows none of them: no module of the shared rooms asks which protocol it runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

import epaxos

ROOT: Final = Path(epaxos.__file__).parent
SHARED: Final = (
    *(ROOT / name for name in ("engine.py", "admission.py", "applier.py", "gate.py", "replica.py")),
    *(path for room in ("storage", "net", "gateway", "client") for path in sorted((ROOT / room).glob("*.py"))),
)
BRANCH: Final = re.compile(r"""\bprotocol\b\s*(?:==|!=|\bin\b|\bnot in\b|\bis\b)\s*["'([{]""")
NAMED: Final = re.compile(r"""["']raft["']|epaxos\.protocols\.(?:epaxos|raft)|execution\.(?:graph|total)""")


@pytest.mark.parametrize("path", SHARED, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_shared_module_branches_on_no_protocol_and_names_none(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if BRANCH.search(line) or NAMED.search(line)] == []


def test_the_test_would_notice() -> None:
    assert BRANCH.search('        if config.protocol == "x":')
    assert NAMED.search('build("raft", config)') and NAMED.search("from epaxos.execution.graph import GraphExecutor")
