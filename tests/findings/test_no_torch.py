"""Reading a run needs no torch: not to import, not to show it, not to write its report."""

import subprocess
import sys

import pytest

CHECK = "import sys; heavy = {'torch', 'transformers', 'tokenizers'} & set(sys.modules); assert not heavy, heavy"


def python(code, *args):
    ended = subprocess.run([sys.executable, "-c", code, *map(str, args)], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_imports():
    python(f"import monadnock, monadnock.findings, monadnock.report, monadnock.cli, monadnock.sites; {CHECK}")


def test_the_check_itself_notices_torch():
    with pytest.raises(AssertionError, match="torch"):
        python(f"import monadnock; monadnock.load; {CHECK}")


@pytest.mark.parametrize("verb", ["show", "show heads", "show heads --csv", "report", "ls tables"])
def test_verbs(run, verb):
    name, *rest = verb.split()
    args = [name, *rest] if name == "ls" else [name, run.path, *rest]
    code = f"""
import sys
from monadnock.cli import main
try:
    main()
except SystemExit as end:
    assert not end.code
{CHECK}
"""
    assert python(code, *args).strip()
