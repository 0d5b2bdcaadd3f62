"""What is built holds what the folders hold, under the names that the code imports, and no other."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.compiled  # builds and installs; runs little of the code

ROOT = Path(__file__).parents[1]
FOLDERS = ("engine", "kernels", "cli", "bench")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def shipped_files(root: Path) -> set[str]:
    """Return the files that an installation must hold, as arcforge/<folder>/..., from a checkout."""
    return {
        f"arcforge/{path.relative_to(root).as_posix()}"
        for folder in FOLDERS
        for path in (root / folder).rglob("*")
        if path.is_file() and path.suffix not in (".pyc", ".png")  # pictures serve the README only
    }


def wheel_files(wheel: Path) -> set[str]:
    names = zipfile.ZipFile(wheel).namelist()
    return {name for name in names if ".dist-info/" not in name}


def build(kind: str, source: Path, out: Path) -> Path:
    """Call the build backend as pip does, with the setuptools at hand: no network."""
    out.mkdir(exist_ok=True)
    code = f"from setuptools import build_meta as b; print(b.build_{kind}({str(out)!r}))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=source, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return out / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A clean copy: building in the checkout would leave its files there, and take older ones from there."""
    copy = tmp_path_factory.mktemp("source")
    for folder in (*FOLDERS, "tests"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md"):
        shutil.copy(ROOT / name, copy / name)
    return copy


@pytest.fixture(scope="module")
def wheel(source, tmp_path_factory):
    return build("wheel", source, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def sdist(source, tmp_path_factory):
    return build("sdist", source, tmp_path_factory.mktemp("sdist"))


def test_wheel_holds_exactly_what_the_folders_hold(wheel, source):
    assert wheel_files(wheel) == shipped_files(source)


def test_wheel_built_from_the_sdist_is_the_same(sdist, wheel, tmp_path):
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (unpacked,) = tmp_path.iterdir()
    assert (unpacked / "LICENSE").is_file()
    assert wheel_files(build("wheel", unpacked, tmp_path / "again")) == wheel_files(wheel)


def test_a_folder_that_pyproject_forgets_is_noticed(source, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(source, copy)
    (copy / "engine" / "forgotten").mkdir()
    (copy / "engine" / "forgotten" / "__init__.py").touch()
    missing = shipped_files(copy) - wheel_files(build("wheel", copy, tmp_path / "out"))
    assert missing == {"arcforge/engine/forgotten/__init__.py"}


def test_every_package_is_listed_once_and_typed():
    found = {
        "arcforge." + init.parent.relative_to(ROOT).as_posix().replace("/", ".")
        for folder in FOLDERS
        for init in (ROOT / folder).rglob("__init__.py")
    }
    listed = PROJECT["tool"]["setuptools"]["packages"]
    assert sorted(listed) == sorted(found)
    folders = PROJECT["tool"]["setuptools"]["package-dir"]
    for package in listed:
        assert folders[package] == package.removeprefix("arcforge.").replace(".", "/")
        assert (ROOT / folders[package] / "py.typed").is_file(), package


def test_only_prefixed_names_are_imported():
    modules = [
        name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for name in sorted(shipped_files(ROOT))
        if name.endswith(".py") and "__main__" not in name
    ]
    code = (
        "import importlib, sys\n"
        f"for name in {modules!r}:\n    try:\n        importlib.import_module(name)\n"
        "    except ImportError as error:\n"
        '        if "pip install \'arcforge[" not in str(error):\n            raise\n'  # an absent extra
        f"print([m for m in sys.modules if m.partition('.')[0] in {FOLDERS!r}])"
    )
    # from the checkout, where a bare `import engine` would find a folder of that name
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert out.returncode == 0, out.stderr
    assert out.stdout.splitlines()[-1] == "[]"


def test_no_bare_module_in_this_session():
    assert [m for m in sys.modules if m.partition(".")[0] in FOLDERS] == []


def test_the_top_level_holds_the_agreed_folders_only():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if tracked.returncode != 0:
        pytest.skip("not a git checkout")
    folders = {name.partition("/")[0] for name in tracked.stdout.splitlines() if "/" in name}
    assert {f for f in folders if not f.startswith(".")} == {*FOLDERS, "tests"}


def test_changelog_speaks_of_this_version():
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None
    assert newest[1] == PROJECT["project"]["version"]


def test_python_files_stay_short():
    lengths = {
        path.relative_to(ROOT).as_posix(): len(path.read_text().splitlines())
        for folder in (*FOLDERS, "tests")
        for path in (ROOT / folder).rglob("*.py")
    }
    assert {name: n for name, n in lengths.items() if n > 400} == {}
