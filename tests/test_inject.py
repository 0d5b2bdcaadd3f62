"""Injection: same bytes whatever the threads, partitions, kills; the catalogue records what was used."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from arcforge.engine import open_store, provenance, render_batch
from arcforge.engine.draws import assign_hosts
from arcforge.engine.errors import StoreError
from arcforge.engine.estimate import estimate
from arcforge.engine.inject import inject, prepare
from arcforge.engine.plan import parse_partition
from arcforge.engine.run_rows import count_host_rows
from arcforge.engine.verify import verify
from arcforge.engine.writer import finalise

N = 600  # three shards


@pytest.fixture(scope="module")
def injected(tmp_path_factory, small_config):
    return inject(tmp_path_factory.mktemp("inject") / "S.zarr", config=small_config, n=N, seed=7)


def rendered(store, rows):
    """The rows' arcs rendered again from the stored catalogue, as the public function does it."""
    controls = store.ctrls(rows)
    fresh = render_batch(
        store.catalog.take(np.arange(len(store))[rows]),
        stamp_size=store.stamp_size,
        pixscale_arcsec=store.pixscale_arcsec,
        bands=store.bands,
        **store.plan.render,
    )
    return (controls + fresh) - controls


def test_stamp_less_control_less_arc_is_zero_bit_for_bit(injected):
    everything = slice(None)
    rest = injected.stamps(everything) - injected.ctrls(everything) - injected.arcs(everything)
    assert not rest.view(np.uint32).any()
    assert (injected.arcs(everything).max(axis=(1, 2, 3)) > 0).all()


def test_the_catalogue_renders_to_the_stored_arcs_bit_for_bit(injected):
    rows = slice(3, N, 41)
    np.testing.assert_array_equal(rendered(injected, rows), injected.arcs(rows))
    found = verify(injected.path, level="deep")
    assert found.sound
    assert found.notes == []
    assert found.n_rendered == 64


def test_hosts_are_drawn_by_row_and_recorded(injected, small_config):
    catalog, hosts = injected.catalog, injected.hosts
    index = catalog.column("host_index").to_numpy()
    np.testing.assert_array_equal(index, assign_hosts(7, np.arange(N), small_config.synthetic_host_count))
    names = np.array(hosts.column("host_id").to_pylist())
    assert catalog.column("host_id").to_pylist() == names[index].tolist()
    np.testing.assert_array_equal(catalog.column("host_rows").to_numpy(), np.bincount(index)[index])
    np.testing.assert_array_equal(catalog.column("rng_row").to_numpy(), np.arange(N))
    assert set(catalog.column("rng_seed").to_pylist()) == {7}
    offset = (hosts.column("x_pix").to_numpy()[index] - 11.5) * injected.pixscale_arcsec
    np.testing.assert_array_equal(catalog.column("lens_x_arcsec").to_numpy(), offset)


def test_rows_of_a_host_are_counted_over_all_blocks(injected, small_config, monkeypatch):
    monkeypatch.setattr("arcforge.engine.run_rows.BLOCK_ROWS", 100)
    run = prepare(config=small_config, hosts=None, catalog=None, n=N, seed=7)
    drawn = np.bincount(injected.catalog.column("host_index").to_numpy(), minlength=12)
    np.testing.assert_array_equal(count_host_rows(run.rows, 12), drawn)


def test_einstein_radii_of_the_major_convention_are_converted_and_kept(tmp_path, small_config):
    config = replace(small_config, theta_e_convention="major")
    for rows in ({"n": 300}, {"catalog": catalog_of(300)}):
        store = inject(tmp_path / "S.zarr", config=config, seed=7, overwrite="catalog" in rows, **rows)
        catalog = {name: store.catalog.column(name).to_numpy() for name in store.catalog.column_names}
        q = (1 - catalog["lens_e"]) / (1 + catalog["lens_e"])
        used = np.where(catalog["lens_model"] == "SIE", catalog["theta_e_arcsec_given"] / np.sqrt(q), np.nan)
        np.testing.assert_allclose(catalog["theta_e_arcsec"], used, rtol=1e-14)
        assert (catalog["theta_e_arcsec"] > catalog["theta_e_arcsec_given"]).all()
        assert set(catalog["theta_e_convention"]) == {"intermediate"}
        np.testing.assert_array_equal(rendered(store, slice(0, 20)), store.arcs(slice(0, 20)))


def test_recorded_arc_measures_are_those_of_the_pixels(injected):
    rows = slice(0, N, 50)
    arcs = injected.arcs(rows).astype(np.float64)
    index = injected.catalog.column("host_index").to_numpy()[rows]
    for b, band in enumerate(injected.bands):
        sigma = injected.hosts.column(f"sky_sigma_nmgy_{band}").to_numpy()[index]
        for name, expected in [
            ("arc_flux_nmgy", arcs[:, b].sum(axis=(1, 2))),
            ("arc_snr", np.sqrt((arcs[:, b] ** 2).sum(axis=(1, 2))) / sigma),
            ("arc_snr_max", arcs[:, b].max(axis=(1, 2)) / sigma),
        ]:
            stored = injected.catalog.column(f"{name}_{band}").to_numpy()[rows]
            np.testing.assert_allclose(stored, expected, rtol=1e-5)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_do_not_change_a_byte(injected, tmp_path, small_config, tree_hashes, threads):
    other = inject(tmp_path / "other.zarr", config=small_config, n=N, seed=7, threads=threads)
    assert tree_hashes(other.path) == tree_hashes(injected.path)


@pytest.mark.parametrize(
    "division", [["0/2", "1/2"], ["3/3", "1/3", "2/3"], ["4/5", "3/5", "0/5", "2/5", "1/5"]]
)
def test_partitions_give_the_same_bytes(injected, tmp_path, small_config, tree_hashes, division):
    out = tmp_path / "parts.zarr"
    for text in division:
        with pytest.raises(StoreError, match=r"not committed|no such store"):
            finalise(out)
        inject(out, config=small_config, n=N, seed=7, partition=parse_partition(text))
    finalise(out)
    finalise(out)
    assert tree_hashes(out) == tree_hashes(injected.path)


def test_another_seed_gives_other_arcs_and_hosts(injected, tmp_path, small_config):
    other = inject(tmp_path / "other.zarr", config=small_config, n=40, seed=8)
    assert (other.arcs(slice(None)) != injected.arcs(slice(0, 40))).any(axis=(1, 2, 3)).all()


def test_a_longer_run_begins_with_the_rows_of_a_shorter_one(injected, tmp_path, small_config):
    short = inject(tmp_path / "short.zarr", config=small_config, n=40, seed=7)
    np.testing.assert_array_equal(short.stamps(slice(None)), injected.stamps(slice(0, 40)))


def test_a_stopped_run_keeps_its_shards_and_goes_on(injected, tmp_path, small_config, tree_hashes):
    out, options = tmp_path / "S.zarr", {"config": small_config, "n": N, "seed": 7}
    seen = []

    def stop_after_two(done, total):
        seen.append((done, total))
        if len(seen) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        inject(out, **options, progress=stop_after_two)
    kept = len(open_store(out, allow_partial=True))
    assert kept in (256, 512)  # the shard in hand is ended, the waiting one is dropped
    again = []
    inject(out, **options, resume=True, progress=lambda done, total: again.append(done))
    assert again == [done for done in (256, 512, 600) if done > kept]
    assert tree_hashes(out) == tree_hashes(injected.path)
    inject(out, **options, resume=True, progress=lambda done, total: pytest.fail("all was done"))
    assert tree_hashes(out) == tree_hashes(injected.path)


def test_resume_begins_a_run_that_was_never_begun(injected, tmp_path, small_config, tree_hashes):
    out = inject(tmp_path / "S.zarr", config=small_config, n=N, seed=7, resume=True).path
    assert tree_hashes(out) == tree_hashes(injected.path)


@pytest.mark.parametrize(
    "key",
    [
        "arcs/c/1/0/0/0",
        "arcs/zarr.json",
        "catalog/part-00000.parquet",
        "columns/shear/c/0",
        "commits/hosts.json",
        "commits/shard-00002.json",
        "hosts/file/c/0",
        "hosts/pixels/c/0/0/0/0",
        "manifest.json",
        "zarr.json",
    ],
)
def test_resume_repairs_what_was_lost_from_a_complete_store(
    injected, tmp_path, small_config, tree_hashes, key
):
    out = tmp_path / "S.zarr"
    shutil.copytree(injected.path, out)
    (out / key).unlink()
    inject(out, config=small_config, n=N, seed=7, resume=True)
    assert tree_hashes(out) == tree_hashes(injected.path)


def test_a_store_under_repair_does_not_pass_for_complete(injected, tmp_path, small_config):
    out = tmp_path / "S.zarr"
    shutil.copytree(injected.path, out)
    for shard in (0, 1):
        (out / f"arcs/c/{shard}/0/0/0").unlink()

    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        inject(out, config=small_config, n=N, seed=7, resume=True, progress=stop)
    with pytest.raises(StoreError, match="incomplete"):
        open_store(out)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 8}, "seed = 7, not 8"),
        ({"n": 601}, "n_rows = 600, not 601"),
        ({"rtol": 1e-2}, "config = 'rtol = 0.001"),
    ],
)
def test_a_changed_run_is_refused_and_leaves_the_store(injected, small_config, tree_hashes, change, message):
    before = tree_hashes(injected.path)
    config = replace(small_config, rtol=change.pop("rtol", small_config.rtol))
    for how in ({"resume": True}, {"partition": (0, 2)}):
        with pytest.raises(StoreError, match=message):
            inject(injected.path, **{"config": config, "n": N, "seed": 7} | change | how)
    assert tree_hashes(injected.path) == before


def test_changed_sources_are_refused(injected, small_config, monkeypatch):
    monkeypatch.setattr("arcforge.engine.provenance.code_sha256", lambda: "f" * 64)
    with pytest.raises(StoreError, match="code_sha256"):
        inject(injected.path, config=small_config, n=N, seed=7, resume=True)


def test_overwrite_replaces_a_store_only_when_the_new_one_can_be_made(tmp_path, small_config, tree_hashes):
    out = inject(tmp_path / "S.zarr", config=small_config, n=20, seed=1).path
    before = tree_hashes(out)
    with pytest.raises(StoreError, match=r"exists; go on with it by --resume, replace it by --overwrite"):
        inject(out, config=small_config, n=20, seed=2)
    with pytest.raises(ValueError, match="the catalogue has no rows"):
        inject(
            out,
            config=small_config,
            catalog=pa.table({"lens_model": pa.array([], pa.string())}),
            overwrite=True,
        )
    assert tree_hashes(out) == before
    assert inject(out, config=small_config, n=30, seed=2, overwrite=True).attrs["seed"] == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["S.zarr"]


def test_what_is_no_store_is_never_overwritten(tmp_path, small_config):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("work")
    (tmp_path / "file.zarr").write_text("work")
    for name in ("thesis", "file.zarr"):
        with pytest.raises(StoreError, match="is no arcforge store"):
            inject(tmp_path / name, config=small_config, n=20, overwrite=True)
    assert (tmp_path / "thesis" / "chapter1.tex").read_text() == "work"


def catalog_of(n, **columns):
    base = {
        "task_id": [f"task-{i}" for i in range(n)],
        "lens_model": ["SIE"] * n,
        "theta_e_arcsec": np.linspace(0.8, 1.6, n),
        "lens_e": np.full(n, 0.2),
        "lens_phi_rad": np.full(n, 0.3),
        "src_x_arcsec": np.full(n, 0.1),
        "src_y_arcsec": np.full(n, -0.1),
        "src_reff_arcsec": np.full(n, 0.3),
        "src_e": np.full(n, 0.1),
        "src_phi_rad": np.full(n, 1.0),
        "src_flux_nmgy_g": np.full(n, 1.0),
        "src_flux_nmgy_r": np.full(n, 2.0),
        "src_flux_nmgy_z": np.full(n, 3.0),
        "psf_fwhm_used_g": np.full(n, 1.4),
        "psf_fwhm_used_r": np.full(n, 1.3),
        "psf_fwhm_used_z": np.full(n, 1.2),
        "brickname": [f"0001p{i:03d}" for i in range(n)],
    }
    return pa.table(base | columns)


def test_a_given_catalogue_is_recorded_as_used(tmp_path, small_config):
    n = 300
    models = ["CONTROL" if i % 10 == 0 else "SIE" for i in range(n)]
    theta = pa.array([None if i % 10 == 0 else 1.0 for i in range(n)])
    given = catalog_of(n, lens_model=models, theta_e_arcsec=theta, theta_e_convention=["major"] * n)
    pq.write_table(given, tmp_path / "catalog.parquet")
    store = inject(tmp_path / "S.zarr", config=small_config, catalog=tmp_path / "catalog.parquet", seed=5)
    catalog = store.catalog
    lens = np.array(models) == "SIE"
    q = 0.8 / 1.2
    np.testing.assert_allclose(catalog.column("theta_e_arcsec").to_numpy()[lens], 1 / np.sqrt(q), rtol=1e-15)
    assert np.isnan(catalog.column("theta_e_arcsec").to_numpy()[~lens]).all()
    assert (catalog.column("theta_e_arcsec_given").to_numpy()[lens] == 1.0).all()
    assert set(catalog.column("theta_e_convention").to_pylist()) == {"intermediate"}
    assert catalog.column("row_id").to_pylist() == given.column("task_id").to_pylist()
    assert catalog.column("brickname").to_pylist() == given.column("brickname").to_pylist()
    assert set(catalog.column("src_n").to_pylist()) == {1.0}  # a default that was used
    assert set(catalog.column("psf_fwhm_arcsec_r").to_pylist()) == {1.3}
    assert not store.arcs(~lens).any()
    np.testing.assert_array_equal(store.stamps(~lens), store.ctrls(~lens))
    np.testing.assert_array_equal(rendered(store, slice(None)), store.arcs(slice(None)))
    assert verify(store.path, level="deep").sound


def test_a_catalogue_names_its_hosts(tmp_path, small_config):
    run = prepare(config=small_config, hosts=None, catalog=None, n=1, seed=5)
    names = run.hosts.table.host_id
    wanted = [str(names[i % 3]) for i in range(20)]
    store = inject(tmp_path / "S.zarr", config=small_config, catalog=catalog_of(20, host_id=wanted), seed=5)
    assert store.catalog.column("host_id").to_pylist() == wanted
    np.testing.assert_array_equal(store.ctrls(1), run.hosts[1].pixels[None])
    with pytest.raises(
        ValueError, match=r"catalogue row 4: host_id is 'nobody', which is none of the 12 hosts"
    ):
        inject(tmp_path / "T.zarr", config=small_config, seed=5,
               catalog=catalog_of(20, host_id=[*wanted[:4], "nobody", *wanted[5:]]))  # fmt: skip
    assert not (tmp_path / "T.zarr").exists()


def test_a_stored_catalogue_injected_again_gives_the_same_pixels(injected, tmp_path, small_config):
    again = inject(tmp_path / "S.zarr", config=small_config, catalog=injected.catalog, seed=7)
    np.testing.assert_array_equal(again.stamps(slice(None)), injected.stamps(slice(None)))
    assert set(again.catalog.column_names) == set(injected.catalog.column_names)


def test_the_first_n_rows_of_a_catalogue(tmp_path, small_config):
    assert len(inject(tmp_path / "S.zarr", config=small_config, catalog=catalog_of(20), n=5)) == 5
    with pytest.raises(ValueError, match="the catalogue has 20 rows, 21 were asked for"):
        inject(tmp_path / "T.zarr", config=small_config, catalog=catalog_of(20), n=21)


def test_many_hosts_go_through_a_scratch_file(injected, tmp_path, small_config, tree_hashes, monkeypatch):
    monkeypatch.setattr("arcforge.engine.host_source._IN_MEMORY_BYTES", 0)
    other = inject(tmp_path / "S.zarr", config=small_config, n=N, seed=7)
    assert tree_hashes(other.path) == tree_hashes(injected.path)
    assert [path.name for path in tmp_path.iterdir()] == ["S.zarr"]


def test_an_estimate_writes_nothing_and_is_near(injected, tmp_path, small_config):
    run = prepare(config=small_config, hosts=None, catalog=None, n=N, seed=7)
    found = estimate(run, tmp_path / "S.zarr")
    assert not list(tmp_path.iterdir())
    assert (found.n_rows, found.n_shards, found.n_hosts) == (N, 3, 12)
    size = sum(record.size for record in injected.files.values())
    assert 0.7 * size < found.disk_bytes < 1.4 * size
    assert found.seconds > 0
    half = estimate(run, tmp_path / "S.zarr", partition=(1, 2))
    assert half.n_rows == 256


@pytest.mark.compiled
def test_a_run_killed_at_random_resumes_to_the_same_bytes(injected, tmp_path, small_config, tree_hashes):
    """Processes of their own, killed with SIGKILL at moments spread over the run."""
    out = tmp_path / "S.zarr"
    script = (
        "import sys; from dataclasses import replace; from arcforge.engine.config import default_config\n"
        "from arcforge.engine import provenance; from arcforge.engine.inject import inject\n"
        # of the store to compare with, whatever was edited since
        f"provenance.code_sha256 = lambda: {provenance.code_sha256()!r}\n"
        "config = replace(default_config(), stamp_size=24, variant='uniform1', synthetic_host_count=12)\n"
        "print('ready', flush=True)\n"
        f"inject(sys.argv[1], config=config, n={N}, seed=7, resume=True)\n"
    )
    rng, killed = random.Random(5), 0
    for _ in range(2):
        child = subprocess.Popen([sys.executable, "-c", script, out], stdout=subprocess.PIPE)
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(rng.uniform(0.0, 0.6))
        child.send_signal(signal.SIGKILL)
        killed += child.wait() == -signal.SIGKILL
        child.stdout.close()
    assert killed >= 1
    subprocess.run([sys.executable, "-c", script, out], check=True, stdout=subprocess.DEVNULL)
    assert tree_hashes(out) == tree_hashes(injected.path)
    assert [path.name for path in tmp_path.iterdir()] == ["S.zarr"]


def test_real_hosts(tmp_path, small_config, survey_data):
    hosts = survey_data / "hosts" / "des46"
    store = inject(
        tmp_path / "S.zarr", config=replace(small_config, stamp_size=64), hosts=hosts, n=100, seed=7
    )
    assert store.pixscale_arcsec == pytest.approx(0.263)
    assert store.plan.n_hosts == 46
    rest = store.stamps(slice(None)) - store.ctrls(slice(None)) - store.arcs(slice(None))
    assert not rest.view(np.uint32).any()
    assert verify(store.path, level="deep").sound
    assert store.hosts.column("file").to_pylist()[0] == "des46_00.fits"
    relative = Path(os.path.relpath(hosts))
    other = inject(
        tmp_path / "T.zarr", config=replace(small_config, stamp_size=64), hosts=relative, n=100, seed=7
    )
    assert (other.path / "manifest.json").read_bytes() == (store.path / "manifest.json").read_bytes()
