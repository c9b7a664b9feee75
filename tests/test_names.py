"""No two modules of messages_app and threadsvc define the same top-level name, so each name has one meaning."""

import ast
from collections import defaultdict
from collections.abc import Iterator

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.stateless

CONVENTIONAL = {
    # Django looks these up by name, so each module that has one must use this name.
    *("Command", "DatabaseFeatures", "DatabaseOperations", "DatabaseSchemaEditor", "DatabaseWrapper"),
    *("register", "urlpatterns"),
    # Python modules use this name by convention.
    "logger",
}
# messages_app and threadsvc do not import each other, so they cannot share these definitions. Both define them.
DEFINED_IN_BOTH = {"DEFAULT_TENANT", "MAX_TENANT_CHARACTERS", "EngineConnection", "EngineFeatures"}
# Several modules of the store define these functions. Callers write the module's name before the function's, such as
# `threads.delete` and `messages.delete`, so the meaning is clear.
VERBS = {"get", "page", "change_metadata", "delete"}


def names_in(module: ast.Module) -> Iterator[str]:
    for node in module.body:
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.Assign(targets=targets):
                yield from (target.id for target in targets if isinstance(target, ast.Name))
            case ast.AnnAssign(target=ast.Name(id=name)):
                yield name


def test_top_level_name_is_defined_in_one_module() -> None:
    files_of = defaultdict(set)
    for package in ("messages_app", "threadsvc"):
        for path in (ROOT / package).rglob("*.py"):
            if "migrations" not in path.parts:
                for name in names_in(ast.parse(path.read_text(encoding="utf-8"))):
                    files_of[name].add(str(path.relative_to(ROOT)))
    duplicates = {
        name: sorted(files)
        for name, files in files_of.items()
        if len(files) > 1
        and not name.startswith("_")
        and name not in CONVENTIONAL | DEFINED_IN_BOTH
        and (name not in VERBS or any("/store/" not in file for file in files))
    }
    assert duplicates == {}
