"""The package's structure: imports point downwards, no circle among them, no file too long."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "rllib_odac"
MOST_LINES = 400

# From top to bottom. A module imports from its own layer and from those below it.
LAYERS = [
    {"cli"},
    {"experiments"},
    {"evaluation"},
    {"algorithm", "config"},
    {"runtime", "checkpoints", "data"},
    {"env_runner", "learner", "rl_module"},
    {"deploy"},
    {"agent"},
    {"replay"},
    {"envs"},
    {
        "maths",
        "metrics",
        "settings",
        "setting_groups",
        "declarations",
        "files",
        "storage",
        "lease",
        "tuned",
        "ray_compat",
    },
]
PAIR = {"algorithm", "config"}  # RLlib's idiom: each names the other
NO_RAY = {
    "deploy",
    "envs",
    "maths",
    "settings",
    "setting_groups",
    "declarations",
    "metrics",
    "agent",
    "replay",
}


def modules(package: Path = PACKAGE) -> dict[str, Path]:
    """Files by their dotted name below the package."""
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(source: str, is_package: str = "rllib_odac") -> Iterator[str]:
    """Dotted names that a source imports at run time, those inside functions included."""
    ignored: set[int] = set()
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            ignored |= {id(each) for part in node.body for each in ast.walk(part)}
        if id(node) in ignored:
            continue
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def graph(package: Path = PACKAGE) -> dict[str, set[str]]:
    """The modules of the package that each of them imports."""
    known = modules(package)
    result = {}
    for name, path in known.items():
        targets = set()
        for imported in imports(path.read_text()):
            parts = imported.split(".")
            if parts[0] != package.name:
                continue
            inside = [".".join(parts[1:end]) for end in range(len(parts), 0, -1)]
            targets.add(next(each for each in inside if each in known))
        result[name] = targets - {name}
    return result


def layer(module: str) -> int:
    return next(i for i, names in enumerate(LAYERS) if module.split(".", maxsplit=1)[0] in names)


def upward(edges: dict[str, set[str]]) -> list[str]:
    """Imports that point to a layer above, in words."""
    return [
        f"{name} imports {target}"
        for name, targets in edges.items()
        for target in sorted(targets)
        if name and target and layer(target) < layer(name)
    ]


def circle(edges: dict[str, set[str]]) -> list[str]:
    """Modules that import each other in a circle, the pair left aside; empty if there is none."""
    done: set[str] = set()

    def walk(name: str, path: list[str]) -> list[str]:
        if name in path:
            return path[path.index(name) :]
        if name in done:
            return []
        for target in sorted(edges.get(name, ())):
            if {name, target} != PAIR and (found := walk(target, [*path, name])):
                return found
        done.add(name)
        return []

    return next(filter(None, (walk(name, []) for name in edges)), [])


def test_imports_point_downwards():
    assert upward(graph()) == []


def test_no_modules_import_each_other():
    assert circle(graph()) == []


def test_no_file_is_too_long():
    lines = {name: len(path.read_text().splitlines()) for name, path in modules().items()}
    assert {name: count for name, count in lines.items() if count > MOST_LINES} == {}


@pytest.mark.parametrize("room", sorted(NO_RAY))
def test_what_a_robot_needs_imports_no_ray(room):
    named = {name: path for name, path in modules().items() if name.split(".")[0] == room}
    assert named
    for name, path in named.items():
        assert not [i for i in imports(path.read_text()) if i.split(".")[0] == "ray"], name


def test_private_parts_of_ray_are_touched_in_one_file():
    for name, path in modules().items():
        private = [i for i in imports(path.read_text()) if i.startswith("ray.") and "._" in i]
        assert name == "ray_compat" or not private, f"{name} imports {private}"


def test_a_violation_would_be_found(tmp_path):
    package = tmp_path / "rllib_odac"
    (package / "agent").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "learner.py").write_text("from rllib_odac.agent import update\n")
    (package / "agent" / "__init__.py").write_text("")
    (package / "agent" / "update.py").write_text(
        "def f():\n    from rllib_odac.learner import X\n    return X\n"
    )
    edges = graph(package)
    assert upward(edges) == ["agent.update imports learner"]
    assert set(circle(edges)) == {"learner", "agent.update"}
    (package / "agent" / "update.py").write_text(
        "if TYPE_CHECKING:\n    from rllib_odac.learner import X\n"
    )
    assert upward(graph(package)) == []
    assert circle(graph(package)) == []


def test_benchmarks_examples_and_configurations_import_what_there_is():
    """They are run by hand, so that nothing else would say that a name is gone."""
    root = PACKAGE.parent
    files = [
        p
        for folder in ("benchmarks", "examples", "tune_configs")
        for p in (root / folder).glob("*.py")
    ]
    assert len(files) > 20
    missing = []
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("rllib_odac"):
                module = importlib.import_module(node.module)
                for name in node.names:
                    if not hasattr(module, name.name) and not importlib.util.find_spec(
                        f"{node.module}.{name.name}"
                    ):
                        missing.append(f"{file.name}: {node.module}.{name.name}")
    assert not missing


def test_an_update_is_read_in_three_short_files():
    files = ["agent/update.py", "agent/objectives/odac.py", "learner.py"]
    assert sum(len((PACKAGE / file).read_text().splitlines()) for file in files) < 625
