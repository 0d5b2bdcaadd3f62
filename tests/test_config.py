"""Configurations: defaults, round trips, and the file, line and allowed values of every fault."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import pytest

from arcforge.engine.config import Config, default_config, load_config, parse_config
from arcforge.engine.errors import ConfigError
from arcforge.engine.priors import Prior

FULL = """
bands = "gri"
stamp_size = 65
rtol = 1e-4
control_fraction = 0.25
theta_e_convention = "major"

[priors]
lens_model = { dist = "choice", values = ["SIE", "SIS"], weights = [3, 1] }
theta_e_arcsec = { dist = "loguniform", low = 0.3, high = 3.0 }
lens_e = { dist = "beta", a = 2.0, b = 5.0, high = 0.8 }
src_n = { dist = "choice", values = [0.5, 1.0, 4.0] }
src_dmag = { dist = "normal", mean = 2.5, sigma = 0.5 }
src_ri = { dist = "constant", value = 0.2 }
psf_fwhm_arcsec_i = 1.2
psf_model = "gaussian"

[splits]
train = 0.5
"hold out" = 0.5
"""


def test_defaults_are_the_ranges_of_the_task() -> None:
    config = default_config()
    assert config.bands == "grz"
    assert config.stamp_size == 64
    assert config.priors["theta_e_arcsec"].support == (0.5, 2.5)
    assert config.priors["src_reff_arcsec"].support == (0.2, 0.5)
    for axis in "xy":
        assert config.priors[f"src_{axis}_arcsec"].support == (-0.4, 0.4)
    assert config.priors["src_n"].support == (1.0,)
    assert config.control_fraction == 0.0


@pytest.mark.parametrize("text", ["", FULL], ids=["default", "full"])
def test_toml_round_trips(text: str) -> None:
    config = parse_config(text)
    again = parse_config(config.to_toml())
    assert again == config
    assert again.digest() == config.digest()
    assert again.to_toml() == config.to_toml()


def test_a_file_overrides_only_what_it_says() -> None:
    config = parse_config(FULL)
    assert config.stamp_size == 65
    assert config.theta_e_convention == "major"
    assert config.priors["lens_model"] == Prior.of("choice", values=["SIE", "SIS"], weights=[3.0, 1.0])
    assert config.priors["psf_fwhm_arcsec_i"] == Prior.of("constant", value=1.2)
    assert config.priors["shear"] == default_config().priors["shear"]
    assert "src_rz" not in config.priors
    assert "psf_fwhm_arcsec_z" not in config.priors
    assert dict(config.splits) == {"train": 0.5, "hold out": 0.5}


def test_the_digest_follows_values_not_text() -> None:
    base = default_config()
    assert parse_config("stamp_size = 64  # a comment\n").digest() == base.digest()
    for change in ("stamp_size = 65", "rtol = 2e-3", "[priors]\nsrc_n = 2", "[splits]\nall = 1.0"):
        assert parse_config(change).digest() != base.digest(), change


def test_a_configuration_pickles_copies_and_is_read_only() -> None:
    config = parse_config(FULL)
    assert pickle.loads(pickle.dumps(config)) == config
    assert copy.deepcopy(config) == config
    with pytest.raises(TypeError):
        config.priors["src_n"] = Prior.of("constant", value=1.0)  # type: ignore[index]


def test_without_a_psf_no_width_is_needed() -> None:
    config = parse_config('[priors]\npsf_model = "none"\n')
    assert not any(name.startswith("psf_fwhm") for name in config.priors)


def test_every_value_in_the_toml_has_a_comment() -> None:
    body = default_config().to_toml().split("[splits]")[0]
    for line in body.splitlines():
        if "=" in line and not line.startswith(("schema", "#")):
            assert "  # " in line, line


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("stamp_size = 3", 1, "stamp_size = 3, allowed: a whole number from 8 to 1024"),
        ("stamp_size = true", 1, "stamp_size = True"),
        ("\nrtol = 'fine'", 2, "rtol = 'fine', allowed: a number from 1e-5 to 0.1"),
        ("pixel_response = 'none'", 1, '"in_psf" or "box"'),
        ("variant = 'magic'", 1, "auto, uniform1"),
        ("bands = 'grg'", 1, "band letters, each once"),
        ("bands = 'gz'", 1, "reference_band = 'r', allowed: g, z"),
        ("bands = 'griz'", 1, "add the prior src_ir or src_ri"),
        ("control_fraction = 1.5", 1, "a number from 0 to 1"),
        ("stamp = 64", 1, 'did you mean "stamp_size"?'),
        ("schema = 'arcforge.config/9'", 1, "arcforge.config/1"),
        ("[priors]\n\nlens_e = { dist = 'uniform', low = 0, high = 1 }", 3, "allowed: 0 <= value < 1"),
        ("[priors]\ntheta_e_arcsec = 0", 2, "allowed: 0 < value"),
        ("[priors]\nsrc_n = 0.2", 2, "0.3 <= value <= 8"),
        ("[priors]\nshear = {dist = 'rayleigh', sigma = 0.05}", 2, "reaches from 0 to inf"),
        ("[priors]\nlens_model = 'NFW'", 2, "lens_model may be 'NFW', allowed: SIE, SIS"),
        ("[priors]\nsrc_e = 'round'", 2, "allowed: numbers"),
        (
            "[priors]\nsrc_e = {dist = 'flat', low = 0, high = 0.5}",
            2,
            '"flat" is unknown: use one of constant',
        ),
        ("[priors]\nsrc_e = {dist = 'uniform', low = 0}", 2, 'needs the parameter "high"'),
        ("[priors]\nsrc_e = {dist = 'uniform', low = 0, hi = 0.5, high = 1}", 2, 'has no parameter "hi"'),
        ("[priors]\nsrc_e = {dist = 'uniform', low = 0.5, high = 0.1}", 2, "low = 0.5 must be below"),
        ("[priors]\nsrc_e = {low = 0, high = 0.1}", 2, "needs dist"),
        ("[priors]\nsrc_e = [0, 0.1]", 2, "must be a number"),
        ("[priors]\ntheta_e = 1.0", 2, 'did you mean "theta_e_arcsec"?'),
        ("bands = 'gr'\n[priors]\nsrc_rz = 0.1", 3, 'not used with bands = "gr"'),
        ("[priors]\n[priors.src_e]\ndist = 'uniform'\nlow = -1\nhigh = 0.1", 2, "allowed: 0 <= value < 1"),
        ("priors = 3", 1, "write [priors]"),
        ("[splits]\ntrain = 0.5", 1, "add up to 0.5, allowed: 1"),
        ("[splits]\ntrain = 1.5\ntest = -0.5", 2, "a share from 0 to 1"),
        ("[splits]", 1, "a table of shares"),
    ],
)
def test_a_fault_is_named_with_its_line(text: str, line: int, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(text, name="run.toml")
    message = str(caught.value)
    assert message.startswith(f"run.toml line {line}: "), message
    assert words in message
    assert "\n" not in message


def test_broken_toml_is_placed() -> None:
    with pytest.raises(ConfigError, match=r"run.toml is not TOML: .*line 2, column"):
        parse_config("rtol = 1e-3\nbands = grz\n", name="run.toml")


def test_files_are_read_and_named(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text(FULL)
    assert isinstance(load_config(path), Config)
    path.write_text("rtol = 1")
    with pytest.raises(ConfigError, match=r"run\.toml line 1: rtol = 1,"):
        load_config(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path / "absent.toml")
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_config(path)
