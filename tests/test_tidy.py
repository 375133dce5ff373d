"""What no other tool checks: sizes, where SQL lives, that every statement is used and every setting documented."""

import ast
import re
from pathlib import Path

import pytest

from adserve.domain.surfaces import Surface
from adserve.settings import Settings

ROOT = Path(__file__).parents[1]
CODE = sorted(
    path
    for folder in ("adserve", "models", "loadtest", "migrations")
    for path in (ROOT / folder).rglob("*.py")
)
TESTS = sorted((ROOT / "tests").rglob("*.py"))
STATEMENT_FILES = sorted((ROOT / "adserve").glob("*/sql/*.sql"))

FUNCTION_LINES_MAX = 70
FILE_LINES_MAX = 400
SQL_TEXT = re.compile(
    r"\b(SELECT\s.+\sFROM|INSERT\s+INTO|UPDATE\s.+\sSET|DELETE\s+FROM|CREATE\s+TABLE)\b", re.DOTALL
)


def too_long_functions(source: str) -> list[str]:
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return [
        node.name
        for node in ast.walk(ast.parse(source))
        if isinstance(node, functions) and (node.end_lineno or 0) - node.lineno >= FUNCTION_LINES_MAX
    ]


def sql_literals(source: str) -> list[str]:
    return [
        node.value
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and SQL_TEXT.search(node.value)
    ]


def test_files_and_functions_fit_on_a_few_screens() -> None:
    sources = {path: path.read_text() for path in [*CODE, *TESTS]}
    assert {
        path: lines for path, source in sources.items() if (lines := source.count("\n")) > FILE_LINES_MAX
    } == {}
    assert {path: long for path, source in sources.items() if (long := too_long_functions(source))} == {}


def test_modules_of_tests_have_names_of_their_own() -> None:
    """pytest imports them by their bare names."""
    names = [path.name for path in TESTS if path.name != "conftest.py"]
    assert sorted(names) == sorted(set(names))


def test_sql_lives_in_sql_files() -> None:
    assert {path: found for path in CODE if (found := sql_literals(path.read_text()))} == {}


@pytest.mark.parametrize("path", STATEMENT_FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_statement_files_say_what_a_row_is_and_every_statement_is_used(path: Path) -> None:
    text = path.read_text()
    assert re.match(r"-- (?!name:)\S", text), "the first line says what a row is"
    room = "\n".join(module.read_text() for module in path.parents[1].glob("*.py"))
    names = re.findall(r"^-- name: (\w+)", text, re.MULTILINE)
    unused = [name for name in names if not re.search(rf"(SQL|_sql)\.{name}\b", room)]
    assert names
    assert unused == []


def test_every_setting_is_documented() -> None:
    documented = (ROOT / "docs" / "settings.md").read_text()
    names = [*Settings.__struct_fields__, *Surface.__struct_fields__]
    assert [name for name in names if f"`{name}`" not in documented] == []


def test_the_package_root_imports_nothing() -> None:
    assert (ROOT / "adserve" / "__init__.py").read_text() == ""


def test_control_the_checks_can_fail() -> None:
    assert too_long_functions("def long():\n" + "    pass\n" * FUNCTION_LINES_MAX) == ["long"]
    assert sql_literals("query = 'SELECT id FROM ads'") == ["SELECT id FROM ads"]
