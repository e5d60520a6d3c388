"""The arrows of ARCHITECTURE.md, held against the imports of the sources.

The block ``arrows`` of that file is the rule: for each place the foreign names that it may use,
and its rooms in levels from the bottom up. A room may use rooms of its own level and of those
below, never one above.
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path
from typing import Iterator, NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
ENGINE = ROOT / "crates/engine/src"
PYTHON = ROOT / "crates/python/src"
PACKAGE = ROOT / "python/oxloop"

# Where `unsafe` may stand, and why. Everywhere else the lint denies it.
UNSAFE = {
    ENGINE / "sys": "the raw system calls",
    ENGINE / "selector": "registers raw descriptors with the kernel and reads what it writes",
    ENGINE / "proactor": "lends memory to the kernel while its operations last",
    PYTHON / "ffi": "calls into the interpreter that PyO3 has no (fast) form for",
    PYTHON / "buffer.rs": "memory of the interpreter that the kernel reads and writes",
    PYTHON / "cell.rs": "interior mutability that one thread at a time can reach",
}

# Where the target may be asked for.
CFG = re.compile(r"cfg(?:_attr|!)?\s*\([^\]]*?\b(?:target_\w+|unix|windows|oxloop_\w+)\b")
CFG_ALLOWED = [
    ENGINE / room for room in ("sys", "selector", "proactor", "waker")
]  # in a mod.rs alone


class Place(NamedTuple):
    foreign: frozenset[str]
    level: dict[str, int]


def arrows() -> dict[str, Place]:
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    block = re.search(r"^```arrows\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    assert block is not None, "ARCHITECTURE.md has no block ```arrows"
    places: dict[str, Place] = {}
    level: dict[str, int] = {}
    for number, line in enumerate(block[1].splitlines()):
        if not line.startswith(" "):
            name, _, foreign = line.partition(":")
            level = {}
            places[name] = Place(frozenset(foreign.split()), level)
        else:
            level.update(dict.fromkeys(line.split(), number))
    return places


ARROWS = arrows()


def rust_files(place: Path) -> list[Path]:
    return sorted(place.rglob("*.rs"))


def code_of(path: Path) -> str:
    """Return the Rust source without comments, literals and its own tests."""
    text = path.read_text(encoding="utf-8")
    text = re.sub(r"\n#\[cfg\(test\)\]\nmod tests \{.*", "\n", text, flags=re.DOTALL)
    pattern = r'//[^\n]*|/\*.*?\*/|b?r#".*?"#|b?"(?:\\.|[^"\\])*"'
    return re.sub(
        pattern, lambda found: '""' if found[0].endswith(('"', "#")) else "", text, flags=re.DOTALL
    )


def room_of(path: Path, place: Path) -> str:
    first = path.relative_to(place).parts[0]
    return first.removesuffix(path.suffix)


def reexports(place: Path) -> dict[str, str]:
    """Return the room that each name in the root of the crate comes from."""
    found = {}
    code = code_of(place / "lib.rs")
    for room, names in re.findall(r"pub use (?:self::)?(\w+)::(\{[^}]*\}|\w+);", code):
        found.update(dict.fromkeys(re.findall(r"\w+", names), room))
    return found


def first_segments(group: str) -> Iterator[str]:
    """Yield the first names of the paths in ``a::b, c::{d, e}, f``."""
    depth = 0
    entry = ""
    for character in group + ",":
        if character == "," and depth == 0:
            found = re.match(r"\s*(\w+)", entry)
            if found:
                yield found[1]
            entry = ""
        else:
            depth += {"{": 1, "}": -1}.get(character, 0)
            entry += character


def braces(code: str, start: int) -> str:
    """Return what stands between the brace at *start* and its partner."""
    depth = 0
    for position in range(start, len(code)):
        depth += {"{": 1, "}": -1}.get(code[position], 0)
        if depth == 0:
            return code[start + 1 : position]
    raise AssertionError("unbalanced braces")


def rooms_used(path: Path, place: Path) -> set[str]:
    """Return the rooms of the crate that a file names, through ``crate::`` or ``super::``."""
    code = code_of(path)
    names: set[str] = set()
    # `super` is the root of the crate in the file of a room, and in the mod.rs of one.
    parts = path.relative_to(place).parts
    above = len(parts) - 1 if path.name == "mod.rs" else len(parts)
    root = r"(?<![\w:])(?:crate::|" + "super::" * above + r"(?!super))"
    for found in re.finditer(root, code):
        if code[found.end()] == "{":
            names.update(first_segments(braces(code, found.end())))
        else:
            names.update(re.findall(r"\w+", code[found.end() : found.end() + 80])[:1])
    exported = reexports(place)
    known = ARROWS[str(place.relative_to(ROOT))].level
    return {exported.get(name, name) for name in names} & set(known)


def foreign_crates() -> frozenset[str]:
    lock = (ROOT / "Cargo.lock").read_text(encoding="utf-8")
    names = re.findall(r'^name = "([^"]+)"', lock, re.MULTILINE)
    return frozenset(name.replace("-", "_") for name in names)


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


RUST = [
    pytest.param(path, place, id=relative(path))
    for place in (ENGINE, PYTHON)
    for path in rust_files(place)
]


def test_the_places_are_these() -> None:
    assert set(ARROWS) == {relative(place) for place in (ENGINE, PYTHON, PACKAGE)}


@pytest.mark.parametrize("place", [ENGINE, PYTHON, PACKAGE], ids=relative)
def test_every_room_is_on_the_map(place: Path) -> None:
    files = [*place.rglob("*.rs"), *place.rglob("*.py")]
    rooms = {room_of(path, place) for path in files}
    rooms |= {path.stem for path in place.glob("*.pyi")}
    assert rooms == set(ARROWS[relative(place)].level)


@pytest.mark.parametrize(("path", "place"), RUST)
def test_arrows_point_down(path: Path, place: Path) -> None:
    level = ARROWS[relative(place)].level
    room = room_of(path, place)
    upward = {used for used in rooms_used(path, place) if level[used] > level[room]}
    assert not upward, f"{room} stands below what it uses"


@pytest.mark.parametrize(("path", "place"), RUST)
def test_foreign_crates(path: Path, place: Path) -> None:
    names = set(re.findall(r"(?<![\w:])([a-z]\w*)::", code_of(path)))
    rooms = set(ARROWS[relative(place)].level)
    used = (names & foreign_crates()) - rooms
    assert used <= ARROWS[relative(place)].foreign


def test_engine_knows_no_interpreter() -> None:
    manifest = (ROOT / "crates/engine/Cargo.toml").read_text(encoding="utf-8")
    assert "pyo3" not in manifest
    for path in rust_files(ENGINE):
        assert not re.search(r"\b(pyo3|Py[A-Z]\w*|PyO3)\b", code_of(path)), relative(path)


def test_engine_has_no_threads_and_no_globals() -> None:
    hidden = r"\bthread::(?:spawn|Builder|scope)\b|\bthread_local!|\bstatic\s|\b(?:Once|Lazy)\w*::"
    for path in rust_files(ENGINE):
        found = re.search(hidden, code_of(path).replace("'static ", ""))
        assert found is None, f"{relative(path)}: {found and found[0]}"


@pytest.mark.parametrize(("path", "place"), RUST)
def test_unsafe_is_in_few_rooms(path: Path, place: Path) -> None:
    if re.search(r"\bunsafe\b", code_of(path)):
        allowed = {path, *path.parents} & set(UNSAFE)
        assert allowed, f"{relative(path)} may contain no unsafe code"


def test_unsafe_list_is_current() -> None:
    for allowed in UNSAFE:
        files = rust_files(allowed) if allowed.is_dir() else [allowed]
        assert any("unsafe" in code_of(path) for path in files), relative(allowed)


@pytest.mark.parametrize(("path", "place"), RUST)
def test_targets_are_asked_for_in_few_places(path: Path, place: Path) -> None:
    if CFG.search(code_of(path)):
        assert path.name == "mod.rs", relative(path)
        assert set(path.parents) & set(CFG_ALLOWED), relative(path)


# The Python package


MODULES = [pytest.param(path, id=path.name) for path in sorted(PACKAGE.glob("*.py"))]


def imports(path: Path) -> Iterator[tuple[str, str]]:
    """Yield (top-level package, module of oxloop or '') for each import that is carried out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for_types = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for statement in block.body
        for node in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: a relative import"
            # `from oxloop import x` names the module oxloop.x; asyncio's names are not modules.
            inside = node.module == "oxloop"
            names = [f"oxloop.{a.name}" for a in node.names] if inside else [node.module or ""]
        else:
            continue
        for name in names:
            top, _, rest = name.partition(".")
            yield top, (rest.partition(".")[0] or "__init__") if top == "oxloop" else ""


@pytest.mark.parametrize("path", MODULES)
def test_package_arrows_point_down(path: Path) -> None:
    level = ARROWS[relative(PACKAGE)].level
    used = {module for _, module in imports(path) if module}
    upward = {module for module in used if level[module] > level[path.stem]}
    assert not upward, f"{path.stem} stands below what it uses"


@pytest.mark.parametrize("path", MODULES)
@pytest.mark.skipif(sys.version_info < (3, 10), reason="needs sys.stdlib_module_names")
def test_package_needs_nothing_else(path: Path) -> None:
    tops = {top for top, _ in imports(path)} - ARROWS[relative(PACKAGE)].foreign
    assert tops <= set(sys.stdlib_module_names) | {"oxloop", "__future__"}


@pytest.mark.parametrize("path", MODULES)
def test_versions_are_asked_for_in_one_module(path: Path) -> None:
    names = {
        node.attr if isinstance(node, ast.Attribute) else node.id
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, (ast.Attribute, ast.Name))
    }
    if path.stem != "_compat":
        assert not names & {"version_info", "hexversion", "python_version_tuple"}


# The instruments above, held against sources whose answer is known


class TestInstruments:
    @pytest.fixture
    def tree(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setitem(globals(), "ROOT", tmp_path)
        place = Place(frozenset(), {"low": 0, "middle": 1, "high": 2})
        monkeypatch.setitem(ARROWS, "src", place)
        src = tmp_path / "src"
        (src / "high").mkdir(parents=True)
        (src / "lib.rs").write_text("pub use high::{High, Other};\npub use low::Low;\n")
        return src

    @pytest.mark.parametrize(
        ("name", "code", "expected"),
        [
            ("low.rs", "use crate::middle::Thing;", {"middle"}),
            (
                "low.rs",
                "use crate::{Low, middle::{a, b}, Other as Mine};",
                {"low", "middle", "high"},
            ),
            ("low.rs", "fn f() { crate::high::f() }", {"high"}),
            ("low.rs", "macro_rules! m { () => { $crate::high::f() } }", {"high"}),
            ("low.rs", "use super::high;", {"high"}),
            ("low.rs", '// crate::high\n/* crate::high */ let s = "crate::high";', set()),
            ("low.rs", "fn f() {}\n#[cfg(test)]\nmod tests {\n    use crate::high;\n}\n", set()),
            ("high/mod.rs", "use super::low;", {"low"}),
            ("high/part.rs", "use super::low;", set()),
            ("high/part.rs", "use super::super::low;", {"low"}),
        ],
    )
    def test_rooms_used(self, tree: Path, name: str, code: str, expected: set[str]) -> None:
        (tree / name).write_text(code)
        assert rooms_used(tree / name, tree) == expected

    def test_cfg(self) -> None:
        assert CFG.search('#[cfg(any(target_os = "linux", test))]')
        assert CFG.search("if cfg!(windows) {")
        assert CFG.search('#[cfg_attr(unix, path = "")]')
        assert CFG.search("#[cfg(oxloop_libkqueue)]")
        assert not CFG.search("#[cfg(test)]")
        assert not CFG.search("#[cfg(Py_3_11)]")

    def test_imports(self, tmp_path: Path) -> None:
        path = tmp_path / "module.py"
        path.write_text(
            "import os.path\nimport oxloop\nfrom oxloop import _a\nfrom oxloop._b import c\n"
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import foreign\n"
        )
        assert set(imports(path)) == {
            ("os", ""),
            ("oxloop", "__init__"),
            ("oxloop", "_a"),
            ("oxloop", "_b"),
            ("typing", ""),
        }
