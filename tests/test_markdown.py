"""Summaries in Markdown: what names hold is shown and not acted on."""

from __future__ import annotations

import shutil
from pathlib import Path

from milan_onnx.markdown import safe, table
from tests.conftest import Command
from tests.toy import FLOAT, Graph


def test_a_text_is_shown_as_it_is() -> None:
    assert safe("a|b") == "a\\|b"
    assert safe("<img src=x>") == "\\<img src=x\\>"
    assert safe("[x](y) `z` *w* ![i](j)") == "\\[x\\](y) \\`z\\` \\*w\\* \\!\\[i\\](j)"
    assert "\n" not in safe("one\n# two") and "\x1b" not in safe("\x1b[2J")
    assert table(("a", "b"), [(1, safe("x|y"))]) == ["| a | b |", "| --- | --- |", "| 1 | x\\|y |"]


def test_a_run_in_markdown(milan: Command, bundle_path: Path, tmp_path: Path) -> None:
    g = Graph(0)
    name = "a|b\n<script>"
    g.op("Conv", "input", g.weight(4, 3, 3, 3), name=name)
    g.save(tmp_path / "m.onnx", [("input", FLOAT, ["N", 3, 32, 32])], [(name, FLOAT, [])])
    shutil.move(tmp_path / "m.onnx", tmp_path / "m|x.onnx")
    line = ("describe", "m|x.onnx", "-l", "@0", "--bundle", bundle_path, "--synthetic", 20)
    done = milan(*line, "--no-report", "-o", "run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    page = milan("summary", "run", cwd=tmp_path).stdout
    assert page.startswith("## Labels of m\\|x.onnx\n\n| layer | units |")
    (row,) = [text for text in page.splitlines() if text.startswith("| a")]
    assert row.startswith("| a\\|b\\\\n\\<script\\> | 4 | 4 | ")
    assert "too narrow to trust" in page
    none = milan("summary", tmp_path / "none")
    assert (none.returncode, "is not a run" in none.stderr) == (5, True)
