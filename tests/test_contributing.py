"""The recipes of CONTRIBUTING.md are tried as they stand there."""

from __future__ import annotations

import re
from pathlib import Path
from textwrap import dedent
from types import SimpleNamespace

import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()


def recipe(containing: str) -> str:
    blocks = [
        dedent(block) for block in re.findall(r"^ *```python\n(.*?)^ *```", TEXT, re.DOTALL | re.MULTILINE)
    ]
    return next(block for block in blocks if containing in block)


@pytest.mark.compiled
def test_a_kernel_variant(monkeypatch, lens_rows):
    from arcforge.engine import render_batch, variants

    variant = eval(recipe("uniform3"), {"Variant": variants.Variant})
    monkeypatch.setattr(variants, "VARIANTS", (*variants.VARIANTS, variant))
    rows = lens_rows(src_x_arcsec=0.2)
    truth, coarse = (render_batch(rows, bands="r", variant=name) for name in ("auto", variant.name))
    error = np.abs(coarse - truth).max() / truth.max()
    assert 1e-5 < error < variant.tolerance


def test_a_source_bank(tmp_path, monkeypatch):
    from arcforge.engine import source_files
    from arcforge.engine.errors import SourceError

    names: dict[str, object] = {"np": np, "Template": source_files.Template}
    exec(recipe("from_npy"), names)
    monkeypatch.setattr(source_files, "_templates", names["from_npy"])
    y, x = np.mgrid[-20:21, -20:21]
    np.save(tmp_path / "bank.npy", np.stack([np.exp(-(x**2 + y**2) / (2.0 * s**2)) for s in (3, 4)]))
    assert len(source_files.open_bank(tmp_path / "bank.npy").templates) == 2
    (tmp_path / "bank.npy").write_bytes(b"nothing")
    with pytest.raises(SourceError, match=r"bank .*bank\.npy: damaged"):
        source_files.open_bank(tmp_path / "bank.npy")


def test_an_audit_check():
    from arcforge.engine.auditing import checks
    from arcforge.engine.auditing.resampling import HostBootstrap

    names: dict[str, object] = {"np": np, **vars(checks)}
    exec(recipe("check_faint"), names)
    added = np.zeros((40, 1, 4, 4), dtype=np.float32)
    bootstrap = HostBootstrap(np.arange(40), 200, np.random.default_rng(1))
    state = SimpleNamespace(added=added, bootstrap=bootstrap)
    assert checks.run_check(names["faint"], state).finding.status == checks.WARN
    added[:, 0, 1, 1] = 1.0
    assert checks.run_check(names["faint"], state).finding.status == checks.PASS
    assert checks.run_check(names["faint"], SimpleNamespace()).crashed


def test_files_and_names_that_are_pointed_to_are_there():
    for path in re.findall(r"`((?:engine|kernels|cli|bench|tests|docs)/[\w/.]+)`", TEXT):
        if "NAME" not in path:
            assert (ROOT / path).exists(), path
    known = {
        "cli/app.py": "COMMANDS",
        "engine/auditing/run.py": "CHECKS",
        "engine/layout.py": "_reach",
        "engine/lens_diagrams.py": "deflection_of",
        "engine/rays.py": "KINDS",
        "engine/source_files.py": "_templates",
        "engine/variants.py": "VARIANTS",
    }
    for path, name in known.items():
        assert name in TEXT
        assert name in (ROOT / path).read_text(), f"{name} in {path}"
