"""The certificate passes on the code as it is, and each planted fault fails the check that should see it."""

import json
from dataclasses import replace

import numpy as np
import pytest
from typer import Typer
from typer.testing import CliRunner

from arcforge.cli.certify import certify
from arcforge.engine import certificate, layout, stamps


def failed(result):
    return {check["id"] for check in result["checks"] if not check["passed"]}


def failing(checks):
    return {check.id for check in (checks if isinstance(checks, list) else [checks]) if not check.passed}


@pytest.mark.compiled
def test_certificate_passes():
    seen = []
    result = certificate.certify(n_rows=3, progress=lambda done, total: seen.append((done, total)))
    assert failed(result) == set()
    assert result["passed"]
    assert result["schema"] == "arcforge.certificate/1"
    assert seen[-1][0] == seen[-1][1]
    json.dumps(result)


def scaled(name, factor):
    def fold(columns, pixscale_arcsec):
        return stamps_fold(replace(columns, **{name: getattr(columns, name) * factor}), pixscale_arcsec)

    return fold


stamps_fold = stamps.fold
gaussian_sigma, moffat_alpha = stamps.gaussian_sigma, stamps.moffat_alpha


@pytest.mark.compiled
@pytest.mark.parametrize(
    ("patch", "replacement", "check", "expected"),
    [
        ("fold", scaled("theta_e_arcsec", 1.01), certificate._check_magnification, "magnification"),
        ("fold", scaled("src_x_arcsec", 1.01), certificate._check_impulse, "centring"),
        ("gaussian_sigma", lambda fwhm: 1.01 * gaussian_sigma(fwhm), certificate._check_impulse, "psf"),
        ("moffat_alpha", lambda fwhm, b: 1.01 * moffat_alpha(fwhm, b), certificate._check_impulse, "psf"),
        ("cell_tolerance", lambda rtol: 1e3 * rtol, certificate._check_flux, "flux"),
    ],
)
def test_planted_fault_is_seen(monkeypatch, patch, replacement, check, expected):
    monkeypatch.setattr(stamps, patch, replacement)
    assert expected in failing(check())


def test_light_that_wraps_is_seen(monkeypatch):
    monkeypatch.setattr(layout, "reach", lambda model, fwhm, *rest: np.zeros(len(fwhm)))
    assert failing(certificate._check_wrap()) == {"wrap"}


def test_command_fails_where_the_certificate_does(tmp_path, monkeypatch):
    app = Typer()
    app.command()(certify)
    broken = {
        "id": "x",
        "title": "x",
        "against": "y",
        "measured": 1.0,
        "bound": 0.0,
        "unit": "pix",
        "passed": False,
    }
    monkeypatch.setattr(
        certificate, "certify", lambda n_rows, progress: {"passed": False, "checks": [broken]}
    )
    target = tmp_path / "certificate.json"
    assert CliRunner().invoke(app, ["--rows", "1", "--json", str(target)]).exit_code == 1
    assert not json.loads(target.read_text())["passed"]


@pytest.mark.compiled
def test_quick_certificate_is_made_once_for_each_code_and_kept(tmp_path, monkeypatch):
    made = []
    real = certificate.certify

    def counted(**options):
        made.append(options)
        return real(**options)

    monkeypatch.setattr(certificate, "certify", counted)
    monkeypatch.setattr("arcforge.kernels._jit.cache_folder", lambda: tmp_path)
    first = certificate.quick_certificate.__wrapped__()
    assert first["passed"]
    assert made == [{"n_rows": 0}]
    assert certificate.quick_certificate.__wrapped__() == first
    assert len(made) == 1
    (kept,) = tmp_path.glob("certificate-*.json")
    kept.write_text("{not json")
    assert certificate.quick_certificate.__wrapped__() == first
    assert len(made) == 2
    monkeypatch.setattr("arcforge.engine.provenance.code_sha256", lambda: "other sources")
    certificate.quick_certificate.__wrapped__()
    assert len(made) == 3
