"""Counter-based draws: published vectors, independence, catalogues that do not depend on how they are cut."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from arcforge.engine.catalog import render_columns
from arcforge.engine.config import default_config, parse_config
from arcforge.engine.config_schema import PRIORS
from arcforge.engine.draws import assign_hosts, assign_splits, draw_catalog, purpose_key, uniform
from arcforge.engine.errors import ConfigError, HostError
from arcforge.engine.host_table import HostTable
from arcforge.kernels.philox import philox_words

ROWS = np.arange(20_000)


class Hosts:
    """A host set without pixels."""

    def __init__(self, n: int = 40, bands: str = "grz", has_psf: bool = False) -> None:
        rng = np.random.default_rng(1)
        self.bands = bands
        self.stamp_size = 64
        self.pixscale_arcsec = 0.262
        self.table = HostTable(
            host_id=np.array([f"h{i}" for i in range(n)]),
            path=np.array([f"h{i}.fits" for i in range(n)]),
            sha256=np.array([f"{value:016x}".ljust(64, "0") for value in rng.integers(2**62, size=n)]),
            x_pix=32 + rng.uniform(-0.5, 0.5, n),
            y_pix=32 + rng.uniform(-0.5, 0.5, n),
            mag=rng.uniform(18.0, 21.0, (n, len(bands))),
            sky_sigma_nmgy=np.full((n, len(bands)), 0.003),
            psf_fwhm_arcsec=np.full((n, len(bands)), 1.11 if has_psf else np.nan),
            psf_model=np.full(n, ""),
            moffat_beta=np.full(n, np.nan),
        )


def test_philox_gives_the_published_words() -> None:
    # known-answer file of the Random123 distribution, philox4x32 with 10 rounds: counter, key, result
    published = """
    00000000 00000000 00000000 00000000 00000000 00000000 6627e8d5 e169c58d bc57ac4c 9b00dbd8
    ffffffff ffffffff ffffffff ffffffff ffffffff ffffffff 408f276d 41c83b0e a20bc7c6 6d5451fd
    243f6a88 85a308d3 13198a2e 03707344 a4093822 299f31d0 d16cfe09 94fdcceb 5001e420 24126ea1
    """
    words = np.array(
        [[int(word, 16) for word in line.split()] for line in published.split("\n") if line.strip()]
    )
    words = words.astype(np.uint64)
    out = np.zeros((3, 4), dtype=np.uint64)
    philox_words(np.ascontiguousarray(words[:, :4]), np.ascontiguousarray(words[:, 4:6]), out)
    np.testing.assert_array_equal(out, words[:, 6:])


def test_uniforms_are_made_of_the_words_as_documented() -> None:
    seed, row, index = 0x299F31D0A4093822, 0x05A308D3_243F6A88, 77
    counter = np.array([[row & 0xFFFFFFFF, row >> 32, purpose_key("x"), index]], dtype=np.uint64)
    key = np.array([[seed & 0xFFFFFFFF, seed >> 32]], dtype=np.uint64)
    out = np.zeros((1, 4), dtype=np.uint64)
    philox_words(counter, key, out)
    bits = ((int(out[0, 1]) << 32) | int(out[0, 0])) >> 12
    assert uniform(seed, [row], "x", index)[0] == (bits + 0.5) / 2**52


def test_any_subset_in_any_order_gives_the_same_numbers() -> None:
    whole = uniform(7, ROWS, "theta_e_arcsec")
    some = np.random.default_rng(0).permutation(ROWS)[:500]
    np.testing.assert_array_equal(uniform(7, some, "theta_e_arcsec"), whole[some])
    np.testing.assert_array_equal(uniform(7, 123, "theta_e_arcsec"), whole[123:124])


def test_numbers_are_uniform_and_streams_are_independent() -> None:
    streams = [
        uniform(7, ROWS, "a"),
        uniform(8, ROWS, "a"),
        uniform(7, ROWS, "b"),
        uniform(7, ROWS, "a", 1),
        uniform(7, ROWS + 2**32, "a"),
        uniform(7 + 2**32, ROWS, "a"),
        uniform(7, ROWS + 1, "a"),
    ]
    for stream in streams:
        assert stats.kstest(stream, "uniform").pvalue > 1e-3
        assert stream.min() > 0.0
        assert stream.max() < 1.0
    correlation = np.corrcoef(streams) - np.eye(len(streams))
    assert np.abs(correlation).max() < 4 / np.sqrt(ROWS.size)


def test_every_purpose_in_use_has_its_own_key() -> None:
    names = [*PRIORS, "host_index", "control", "split", "synthetic.noise", "synthetic.x", "synthetic.y"]
    assert len({purpose_key(name) for name in names}) == len(names)


@pytest.mark.parametrize("seed", [-1, 2**64, 1.5, "7"])
def test_a_seed_out_of_range_is_refused(seed: object) -> None:
    with pytest.raises(ConfigError, match="whole number from 0 to"):
        uniform(seed, [0], "a")  # type: ignore[arg-type]


def test_negative_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="negative"):
        uniform(1, [-1], "a")


def test_hosts_are_drawn_evenly() -> None:
    numbers = assign_hosts(3, ROWS, 40)
    assert numbers.dtype == np.int64
    counts = np.bincount(numbers, minlength=40)
    assert counts.size == 40
    assert stats.chisquare(counts).pvalue > 1e-3


def test_a_catalogue_does_not_depend_on_how_it_is_cut() -> None:
    config = parse_config("control_fraction = 0.2\n")
    hosts = Hosts()
    whole = draw_catalog(config, hosts, 11, np.arange(300))
    rows = np.array([299, 3, 3, 150])
    assert draw_catalog(config, hosts, 11, rows).equals(whole.take(rows))
    parts = [draw_catalog(config, hosts, 11, np.arange(i, i + 100)) for i in (0, 100, 200)]
    for name in whole.column_names:
        joined = np.concatenate([part[name].to_numpy() for part in parts])
        np.testing.assert_array_equal(joined, whole[name].to_numpy(), err_msg=name)
    assert not draw_catalog(config, hosts, 12, np.arange(300)).equals(whole)


def test_drawn_rows_render_and_follow_their_priors() -> None:
    config = default_config()
    hosts = Hosts()
    table = draw_catalog(config, hosts, 5, ROWS)
    columns = render_columns(table, "grz")
    assert len(columns) == ROWS.size
    for name in ("theta_e_arcsec", "src_x_arcsec", "src_reff_arcsec", "lens_phi_rad", "src_dmag"):
        low, high = config.priors[name].support
        assert stats.kstest(table[name].to_numpy(), stats.uniform(low, high - low).cdf).pvalue > 1e-3, name
    assert 0.045 < columns.shear.mean() < 0.055
    assert columns.lens_e.max() <= 0.45
    pairs = np.corrcoef(
        [table[name].to_numpy() for name in ("theta_e_arcsec", "lens_e", "src_x_arcsec", "src_e")]
    )
    assert np.abs(pairs - np.eye(4)).max() < 4 / np.sqrt(ROWS.size)


def test_lenses_sit_on_their_hosts_and_fluxes_follow_their_magnitudes() -> None:
    hosts = Hosts()
    table = draw_catalog(default_config(), hosts, 5, np.arange(200))
    host = table["host_index"].to_numpy()
    np.testing.assert_array_equal(table["host_id"].to_numpy(), hosts.table.host_id[host])
    np.testing.assert_allclose(
        table["lens_x_arcsec"].to_numpy(), (hosts.table.x_pix[host] - 31.5) * 0.262, rtol=0, atol=1e-14
    )
    np.testing.assert_allclose(
        table["lens_y_arcsec"].to_numpy(), (hosts.table.y_pix[host] - 31.5) * 0.262, rtol=0, atol=1e-14
    )
    mag = {band: 22.5 - 2.5 * np.log10(table[f"src_flux_nmgy_{band}"].to_numpy()) for band in "grz"}
    np.testing.assert_allclose(mag["r"], hosts.table.mag[host, 1] + table["src_dmag"].to_numpy())
    np.testing.assert_allclose(mag["g"] - mag["r"], table["src_gr"].to_numpy())
    np.testing.assert_allclose(mag["r"] - mag["z"], table["src_rz"].to_numpy())


def test_a_psf_belongs_to_the_host() -> None:
    table = draw_catalog(default_config(), Hosts(), 5, np.arange(500))
    assert all(table["psf_drawn"].to_pylist())
    widths = dict(zip(table["host_index"].to_pylist(), table["psf_fwhm_arcsec_r"].to_pylist(), strict=True))
    assert len(set(widths.values())) == len(widths) == 40
    assert widths == dict(
        zip(table["host_index"].to_pylist()[::-1], table["psf_fwhm_arcsec_r"].to_pylist()[::-1], strict=True)
    )
    known = draw_catalog(default_config(), Hosts(has_psf=True), 5, np.arange(50))
    assert set(known["psf_fwhm_arcsec_g"].to_pylist()) == {1.11}
    assert not any(known["psf_drawn"].to_pylist())


def test_a_host_and_its_copy_are_in_one_split_whatever_the_set() -> None:
    hosts = Hosts(400)
    hosts.table.sha256[7] = hosts.table.sha256[3]
    config = default_config()
    splits = assign_splits(config, 5, hosts.table)
    assert splits[7] == splits[3]
    assert 0.7 < (splits == "train").mean() < 0.9
    fewer = Hosts(400)
    fewer.table.sha256[:] = hosts.table.sha256[::-1]
    np.testing.assert_array_equal(assign_splits(config, 5, fewer.table), splits[::-1])
    table = draw_catalog(config, hosts, 5, np.arange(2000))
    pairs = set(zip(table["host_index"].to_pylist(), table["split"].to_pylist(), strict=True))
    assert len(pairs) == len({host for host, _ in pairs})


def test_controls_have_no_lens_and_no_source() -> None:
    table = draw_catalog(parse_config("control_fraction = 0.3\n"), Hosts(), 5, ROWS)
    model = table["lens_model"].to_numpy()
    control = model == "CONTROL"
    assert abs(control.mean() - 0.3) < 4 * np.sqrt(0.21 / ROWS.size)
    assert (table["theta_e_arcsec"].to_numpy()[control] == 0).all()
    assert (table["src_flux_nmgy_r"].to_numpy()[control] == 0).all()
    assert np.isnan(table["src_mag_r"].to_numpy()[control]).all()
    assert (table["src_flux_nmgy_r"].to_numpy()[~control] > 0).all()
    assert (table["psf_fwhm_arcsec_r"].to_numpy() > 0).all()
    columns = render_columns(table, "grz")
    np.testing.assert_array_equal(columns.lens_model == 0, control)


def test_lens_models_colours_and_no_psf_follow_the_configuration() -> None:
    config = parse_config("""
        bands = "gi"
        reference_band = "i"
        theta_e_convention = "major"
        [priors]
        lens_model = { dist = "choice", values = ["SIE", "SIS"] }
        src_gi = 0.7
        psf_model = "none"
    """)
    hosts = Hosts(bands="gi")
    table = draw_catalog(config, hosts, 5, np.arange(400))
    sis = table["lens_model"].to_numpy() == "SIS"
    assert 100 < sis.sum() < 300
    assert (table["lens_e"].to_numpy()[sis] == 0).all()
    np.testing.assert_allclose(table["src_mag_g"].to_numpy() - table["src_mag_i"].to_numpy(), 0.7)
    columns = render_columns(table, "gi")
    assert (columns.psf_model == 0).all()
    ratio = columns.theta_e_arcsec / table["theta_e_arcsec"].to_numpy()
    assert (ratio[sis] == 1).all()
    assert (ratio[~sis] >= 1).all()
    assert ratio[~sis].max() > 1.01


def test_hosts_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match="hosts have bands gr at 64 px"):
        draw_catalog(default_config(), Hosts(bands="gr"), 1, [0])
    with pytest.raises(ConfigError, match="at 32 px"):
        draw_catalog(parse_config("stamp_size = 32"), Hosts(), 1, [0])
    hosts = Hosts(1)
    hosts.table.mag[0, 1] = np.nan
    with pytest.raises(HostError, match=r"host h0\.fits: no positive r flux"):
        draw_catalog(default_config(), hosts, 1, [0])
