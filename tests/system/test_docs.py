"""Code blocks of the README and of the guides run, or at least say what there is.

A block with `<!-- not run: REASON -->` before it is not run: Python is compiled, and what it
imports and the settings that it names must exist; commands and options must be the real ones.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
import textwrap
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from rllib_odac.cli import app
from rllib_odac.settings import SETTINGS
from tests.conftest import small_config
from tests.system.test_own_robot import make_reacher

pytestmark = pytest.mark.system

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(
    r"(?:^ *<!-- not run: (?P<reason>.+?) -->\n)?"
    r"^(?P<indent> *)```(?P<language>\w*)[^\n]*\n(?P<code>.*?)^ *```$",
    re.MULTILINE | re.DOTALL,
)
OTHERS_COMMANDS = {"cd", "export", "git", "ray", "."}  # of which nothing here is known


@dataclass
class Block:
    """A code block: where it stands, its language, its text, and why it is not run, if so."""

    document: Path
    language: str
    code: str
    reason: str | None


def blocks(document):
    text = document.read_text()
    for match in BLOCK.finditer(text):
        code = textwrap.dedent(match["code"])
        yield Block(document, match["language"], code, match["reason"])


ALL = [block for document in DOCUMENTS for block in blocks(document)]
PYTHON = [block for block in ALL if block.language == "python"]
BASH = [block for block in ALL if block.language == "bash"]


def commands(block):
    """The commands of a bash block, split into words, without comments."""
    lines = block.code.replace("\\\n", " ").splitlines()
    split = [shlex.split(line, comments=True) for line in lines]
    return [words for words in split if words]


def name_of(block):
    first = next(iter(block.code.splitlines()), "")
    return f"{block.document.stem}: {first[:50]}"


def test_every_block_says_what_language_it_is():
    assert len(PYTHON) >= 10
    assert len(BASH) >= 6
    for block in ALL:
        assert block.language in {"python", "bash", "bibtex", ""}, name_of(block)
    fences = sum(d.read_text().count("```") for d in DOCUMENTS)
    assert fences == 2 * len(ALL)


@pytest.fixture(scope="module")
def runs_of_the_documents(tmp_path_factory):
    """A directory with the runs that the documents speak of, which have not learned anything."""
    directory = tmp_path_factory.mktemp("documents")
    for name, env in (("reach", "FetchReach-v4"), ("reacher", make_reacher)):
        algorithm = small_config().environment(env).build_algo()
        algorithm.save_to_path(str(directory / "runs" / name / "checkpoint_final"))
        algorithm.stop()
    return directory


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.stem)
def test_blocks_run_in_order(document, ray_cluster, request, monkeypatch):
    """Python in one namespace, as a reader would type it; `odac` as its own command does."""
    run = [b for b in ALL if b.document == document and b.reason is None]
    run = [block for block in run if block.language in {"python", "bash"}]
    if not run:
        return
    monkeypatch.chdir(request.getfixturevalue("runs_of_the_documents"))
    namespace = {"__name__": "__main__"}
    for block in run:
        if block.language == "python":
            exec(compile(block.code, name_of(block), "exec"), namespace)
            continue
        for words in commands(block):
            assert words[0] == "odac", f"{name_of(block)}: only `odac` is run here"
            result = CliRunner().invoke(app, words[1:])
            assert result.exit_code == 0, f"{words}: {result.output}"


@pytest.mark.parametrize("block", PYTHON, ids=name_of)
def test_python_names_what_there_is(block):
    for node in ast.walk(ast.parse(block.code)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("rllib_odac"):
            module = importlib.import_module(node.module or "")
            assert not [alias.name for alias in node.names if not hasattr(module, alias.name)]
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "training":
            assert not [k.arg for k in node.keywords if k.arg not in {*SETTINGS, "objective"}]


@pytest.mark.parametrize("block", BASH, ids=name_of)
def test_bash_names_commands_and_options_that_there_are(block):
    for words in commands(block):
        check_command(words)


def check_command(words):
    command, *arguments = words
    if command == "odac":
        check_odac(arguments)
    elif command == "make":
        targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert [a for a in arguments if "=" not in a and a not in targets] == []
    elif command == "python":
        assert (ROOT / arguments[0]).is_file(), words
    elif command == "pip":
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        for extra in re.findall(r"\[(\w+)\]", " ".join(arguments)):
            assert extra in extras["optional-dependencies"], words
    else:
        assert command in OTHERS_COMMANDS, words


def check_odac(arguments):
    group = typer.main.get_command(app)
    name, *rest = arguments
    context = group.make_context("odac", [name, "--help"], resilient_parsing=True)
    command = group.get_command(context, name)
    assert command is not None, f"there is no `odac {name}`"
    parsed = command.make_context(name, rest, parent=context).params  # refuses unknown options
    for setting in parsed.get("settings") or [] if name == "train" else []:
        assert setting.partition("=")[0] in SETTINGS, setting
    for key in ("config", "file"):
        if parsed.get(key) is not None:
            assert (ROOT / parsed[key]).is_file(), arguments


def test_a_wrong_option_or_command_would_be_found():
    with pytest.raises(Exception, match="No such option: --stepz"):
        check_command(shlex.split("odac train FetchReach-v4 --stepz 5"))
    for line in ("odac trane x", "odac train x --set tua=1", "make deploy", "pip install x[y]"):
        with pytest.raises(AssertionError):
            check_command(shlex.split(line))


def test_the_guide_tells_the_latencies_that_were_measured():
    measured = json.loads((ROOT / "benchmarks" / "results" / "latency.json").read_text())
    text = (ROOT / "docs" / "guides" / "deploy.md").read_text()
    rows = re.findall(r"^\| ([^|]+) \| (\d+) \| (\d+) \|$", text, re.M)
    names = {
        "`load_policy` of a checkpoint, deterministic": "checkpoint",
        "the same, sampled": "checkpoint, sampled",
    }
    told = {names.get(name, name): (int(us), int(slow)) for name, us, slow in rows}
    assert len(told) == 5
    for name, figures in told.items():
        wanted = measured["median_us"][name], measured["p99_us"][name]
        assert figures == pytest.approx(wanted, abs=0.51)


def test_the_readme_is_short():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) < 250


def test_links_lead_to_files_and_pictures_are_those_of_the_results():
    for document in DOCUMENTS:
        text = re.sub(r"```.*?```", "", document.read_text(), flags=re.DOTALL)
        for target in re.findall(r"\]\(([^)\s#]+)(?:#[^)]*)?\)", text):
            if not target.startswith(("http", "mailto:")):
                assert (document.parent / target).exists(), f"{document.name}: {target}"
    results = ROOT / "benchmarks" / "results"
    for copy, source in {
        "scaling.png": "scaling/scaling.png",
    }.items():
        assert (ROOT / "docs" / "images" / copy).read_bytes() == (results / source).read_bytes()


def test_files_named_in_the_documentation_are_there():
    for document in DOCUMENTS:
        text = re.sub(r"```.*?```", "", document.read_text(), flags=re.DOTALL)
        for path in re.findall(
            r"`((?:benchmarks|tune_configs|rllib_odac|examples)/[^`\s*]+)`", text
        ):
            assert (ROOT / path).exists(), f"{document.name}: {path}"


@pytest.mark.skipif(importlib.util.find_spec("mkdocs") is None, reason="needs the extra `docs`")
def test_the_site_is_built_without_a_warning(tmp_path):
    process = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    assert "WARNING" not in process.stderr
    page = (tmp_path / "site" / "api" / "index.html").read_text()
    for name in ("load_policy", "goal_env", "ODACConfig", "prior_discount"):
        assert name in page
