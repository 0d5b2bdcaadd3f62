"""Fixtures that several test files share."""

from __future__ import annotations

import os

# Before NumPy is there: its BLAS starts a thread a core for matrices of a few hundred numbers, which then
# wait for work by spinning. Audits limit it themselves; tests that call a check alone took six times as long.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import atexit
import hashlib
import platform
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numba
import numpy as np
import pytest

TEXT = np.dtypes.StringDType()

# With NUMBA_DISABLE_JIT=1 every line of a kernel is Python's, which a debugger steps through and a coverage
# tool counts; a stamp then takes a second. These files test the kernels on little of everything. The others
# get their arcs from tests/plain_render.py in such a run, or wait for compiled kernels (marker ``compiled``).
OF_KERNELS = (
    *("math32", "transfer", "separable", "lenses", "deflection", "render_kernels", "draws", "pairing"),
    *("reference", "layout", "render_unconvolved", "catalog", "image_kernels", "math64"),
    "low_rank",
    "sampling",
)


def pytest_sessionstart() -> None:
    """Where kernels are not compiled, keep a certificate: theirs, which every store holds, takes minutes."""
    if not numba.config.DISABLE_JIT:
        return
    import plain_render

    os.environ["ARCFORGE_CACHE_DIR"] = tempfile.mkdtemp(prefix="arcforge-plain-")
    atexit.register(shutil.rmtree, os.environ["ARCFORGE_CACHE_DIR"], ignore_errors=True)
    plain_render.keep_certificate()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs compiled kernels where numba is told not to compile."""
    if not numba.config.DISABLE_JIT:
        return
    for item in items:
        if item.get_closest_marker("compiled"):
            item.add_marker(pytest.mark.skip(reason="takes minutes with kernels that are not compiled"))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Where kernels are not compiled, let tests of anything else render without them; before fixtures do."""
    if not numba.config.DISABLE_JIT:
        return
    import plain_render

    from arcforge.engine import stamps

    by_kernels = item.path.stem.removeprefix("test_") in OF_KERNELS
    stamps.render = plain_render.BY_KERNELS if by_kernels else plain_render.render


class GeneratedHosts:
    """Hosts that are arrays, in the form that the writer takes."""

    layers = ()

    def __init__(self, pixels: np.ndarray) -> None:
        self.pixels = pixels
        self.sources: dict[str, Any] = {}
        self.refused: dict[str, Any] = {"counts": {}, "first": []}

    @property
    def columns(self) -> dict[str, Any]:
        n = len(self.pixels)
        return {"host_id": np.array([f"host-{i}" for i in range(n)], dtype=TEXT), "x_pix": np.arange(n) + 0.5}

    notes: ClassVar[dict[str, bytes]] = {}

    def blocks(self, n: int) -> Iterator[np.ndarray]:
        for first in range(0, len(self.pixels), n):
            yield self.pixels[first : first + n]


@dataclass
class GeneratedStore:
    """A store of generated arrays, and what it must give back."""

    root: Path
    plan: Any
    hosts: GeneratedHosts
    host_index: np.ndarray
    arcs: np.ndarray

    def table(self, shard: int) -> Any:
        import pyarrow as pa

        rows = np.arange(*self.plan.rows_of(shard))
        return pa.table(
            {
                "row_id": rows,
                "host_index": self.host_index[rows],
                "lens_model": ["SIE" if row % 3 else "CONTROL" for row in rows],
                "theta_e_arcsec": np.where(rows % 3, 0.5 + rows / 1000, np.nan),
                "seen": rows % 2 == 0,
                "note/ü": pa.array([None if row % 5 else f"note {row}" for row in rows]),
            }
        )

    def begin(self) -> None:
        from arcforge.engine.writer import begin

        begin(self.root, self.plan, self.hosts)

    def write(self, shards: list[int] | None = None) -> None:
        from arcforge.engine.writer import ShardWriter

        with ShardWriter(self.root, self.plan) as writer:
            for shard in range(self.plan.n_shards) if shards is None else shards:
                first, stop = self.plan.rows_of(shard)
                writer.put(shard, self.arcs[first:stop], self.table(shard))

    def finish(self) -> None:
        from arcforge.engine.writer import finalise

        finalise(self.root)


def generate(root: Path, *, n_rows: int = 600, size: int = 8, n_hosts: int = 5) -> GeneratedStore:
    from arcforge.engine.pairing import pair_exactly
    from arcforge.engine.plan import Plan

    rng = np.random.default_rng(20)
    pixels = rng.normal(0.0, 0.01, (n_hosts, 2, size, size)).astype(np.float32)
    host_index = rng.integers(0, n_hosts, n_rows)
    arcs = rng.exponential(0.1, (n_rows, 2, size, size)).astype(np.float32)
    pair_exactly(arcs, pixels, host_index)
    plan = Plan(
        n_rows=n_rows,
        bands="gr",
        stamp_size=size,
        pixscale_arcsec=0.25,
        chunk_rows=16,
        shard_rows=256,
        seed=3,
        config="rtol = 0.001\n",
        config_sha256="0" * 64,
        catalog="drawn",
        hosts="sha256:0",
        n_hosts=n_hosts,
        render={"rtol": 1e-3, "variant": "auto", "pixel_response": "in_psf"},
        code_sha256="1" * 64,
        software={"python": "3"},
    )
    return GeneratedStore(root, plan, GeneratedHosts(pixels), host_index, arcs)


@pytest.fixture
def generated(tmp_path: Path) -> GeneratedStore:
    """A store of generated arrays that is not begun yet: 600 rows in 3 shards, 5 hosts."""
    return generate(tmp_path / "generated.zarr")


@pytest.fixture(scope="session")
def complete_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = generate(tmp_path_factory.mktemp("store") / "generated.zarr")
    store.begin()
    store.write()
    store.finish()
    return store.root


@pytest.fixture
def written(generated: GeneratedStore, complete_store: Path) -> GeneratedStore:
    """The same, complete: a copy that a test may damage."""
    shutil.copytree(complete_store, generated.root)
    return generated


@pytest.fixture(scope="session")
def tree_hashes() -> Callable[[Path], dict[str, str]]:
    """Hash every file below a folder, by relative path."""

    def hashes(root: Path) -> dict[str, str]:
        return {
            path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(root.rglob("*"))
            if path.is_file()
        }

    return hashes


@pytest.fixture(scope="session")
def lens_rows() -> Callable[..., dict[str, np.ndarray]]:
    """Make a catalogue of n equal rows: a round lens and source in band r, with some columns replaced."""

    def make(n: int = 1, **columns: Any) -> dict[str, np.ndarray]:
        base: dict[str, Any] = {"lens_model": "SIE", "theta_e_arcsec": 1.0, "src_reff_arcsec": 0.3}
        base |= {"src_flux_nmgy_r": 1.0, "psf_fwhm_arcsec_r": 1.3}
        zero = ("lens_e", "lens_phi_rad", "src_x_arcsec", "src_y_arcsec", "src_e", "src_phi_rad")
        base |= dict.fromkeys(zero, 0.0)
        return {name: np.broadcast_to(value, (n,)).copy() for name, value in (base | columns).items()}

    return make


@pytest.fixture(scope="session")
def small_config() -> Any:
    """A configuration whose stamps are small and quick to render."""
    from arcforge.engine.config import default_config

    return replace(default_config(), stamp_size=24, variant="uniform1", synthetic_host_count=12)


@pytest.fixture(scope="session")
def survey_data() -> Path:
    """The folder of real survey data beside the project, where there is one."""
    folder = Path(__file__).resolve().parents[1].parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no survey data at ../shared/data")
    return folder


@pytest.fixture(scope="session")
def cosmos_bank(survey_data: Path) -> Any:
    """A hundred galaxies of COSMOS less those that are refused, without noise and their telescope's PSF."""
    from arcforge.engine.source_files import open_bank

    return open_bank(survey_data / "sources" / "cosmos_btk100", clean=True)


_ARITHMETIC = r"(?:f?n?m(?:add|sub)\d*|mul|add|sub|div|sqrt)"


def _forms(machine: str, double: bool) -> tuple[str, str] | None:
    """(packed, scalar) arithmetic of float32, or float64; 256 or 512 bits on x86, 128 on aarch64."""
    kind, lanes = ("d", "2d") if double else ("s", "4s")
    return {
        "x86_64": (rf"\tv{_ARITHMETIC}p{kind}\s[^\n]*%[yz]mm", rf"\tv{_ARITHMETIC}s{kind}\s"),
        "aarch64": (
            rf"\tf(?:mla|mls|mul|add|sub|div|sqrt)(?:\.{lanes}|\s+v\d+\.{lanes})",
            rf"\tfn?m?(?:add|sub|ul|div|sqrt)\s+{kind}\d+",
        ),
    }.get(machine)


_LIBRARY_CALL = re.compile(r"(?:[$:]|\bcall\w*\s+_?|\bbl\s+_?)(expf?|logf?|log1pf?|atanf?|atanhf?|powf?)\b")


def _require_vector_code(loop: Any, least: int, *, double: bool = False) -> None:
    code = "\n".join(loop.inspect_asm().values())
    machine = platform.machine().replace("arm64", "aarch64")
    forms = _forms(machine, double)
    if forms is None:
        pytest.skip(f"no patterns for the machine code of {machine}")
    if machine == "x86_64":
        from llvmlite import binding

        if not binding.get_host_cpu_features().get("avx2"):
            pytest.skip("this CPU has no AVX2: there are no 256-bit vectors to look for")
    packed, scalar = (len(re.findall(form, code)) for form in forms)
    assert packed >= least, f"{packed} packed and {scalar} scalar operations"
    # a vectorised loop keeps a scalar copy for its remainder, unrolled or not
    assert 4 * packed >= scalar, f"{packed} packed and {scalar} scalar operations"
    assert not _LIBRARY_CALL.search(code), f"calls {_LIBRARY_CALL.findall(code)}"


@pytest.fixture(scope="session")
def require_vector_code() -> Callable[..., None]:
    """``check(loop, least, double=False)``: a compiled loop has packed arithmetic in bulk (float32, or
    float64), and calls no scalar library function.
    """
    return _require_vector_code
