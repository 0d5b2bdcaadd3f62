"""The kinds of file that arcforge reads, for ``fuzz``: a valid one of each, and the reading of it."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from arcforge.engine.errors import ArcforgeError, StoreError

_SIZE = 24


@dataclass(frozen=True)
class Target:
    """A kind of file, and what reads it.

    Attributes
    ----------
    form
        Which mutations know it.
    make
        Writes a valid one to a path that it is given.
    read
        Reads it from its path, whole, as a command does.
    suffix
        Of the file's name.
    """

    form: str
    suffix: str
    make: Callable[[Path], None]
    read: Callable[[Path], Any]


def _config() -> Any:
    from arcforge.engine.config import default_config

    return replace(default_config(), stamp_size=_SIZE, variant="uniform1", synthetic_host_count=3)


def _cube(seed: int = 0, size: int = 31) -> np.ndarray[Any, Any]:
    y, x = np.mgrid[:size, :size] - size // 2
    blob = np.exp(-(x**2 + y**2) / 18.0) / 56.5
    noise = np.random.default_rng(seed).normal(0.0, 0.003, (3, size, size))
    cube = noise + np.array([3.0, 12.0, 25.0])[:, None, None] * blob
    return np.asarray(cube, dtype=np.float32)


def _make_host_npz(path: Path) -> None:
    rest: dict[str, Any] = {
        "bands": "grz",
        "pixscale_arcsec": 0.262,
        "ra": 10.0,
        "dec": -3.0,
        "meta_psfsize_g": 1.4,
    }
    layers: dict[str, Any] = {"invvar": np.full((3, 31, 31), 1e5, "f4"), "maskbits": np.zeros((31, 31), "i4")}
    np.savez_compressed(path, cutout=_cube(), psf=_psf(), axes="byx", **layers, **rest)


def _psf() -> np.ndarray[Any, Any]:
    y, x = np.mgrid[-7:8, -7:8]
    image = np.exp(-(x**2 + y**2) / 8.0)
    return np.stack([image / image.sum()] * 3).astype(np.float32)


def _make_host_fits(path: Path) -> None:
    from astropy.io import fits

    cards = {"BANDS": "grz", "BUNIT": "nanomaggy", "PIXSCALE": 0.262, "RA": 10.0, "DEC": -3.0}
    cards |= {"PSFSIZEG": 1.4, "PSFSIZER": 1.3, "PSFSIZEZ": 1.2}
    units = [fits.PrimaryHDU(_cube(), fits.Header(cards))]
    units += [
        fits.ImageHDU(np.full((3, 31, 31), 1e5, "f4"), name="INVVAR"),
        fits.ImageHDU(_psf(), name="PSF"),
    ]
    units += [fits.CompImageHDU(np.zeros((31, 31), "i4"), name="MASKBITS")]
    fits.HDUList(units).writeto(path, overwrite=True)


def _inject(**inputs: Any) -> None:
    """What ``arcforge inject`` does, but for writing."""
    from arcforge.engine.inject import check_rows, prepare

    given = {"config": _config(), "hosts": None, "catalog": None, "n": None, "seed": 1} | inputs
    run = prepare(**given)
    if run.plan.n_rows > 1000:
        return
    check_rows(run)
    run.hosts.pixels(np.arange(run.plan.n_hosts))
    run.render(run.used(0, run.plan.n_rows)[1], 1)


def _rows() -> Any:
    import pyarrow as pa

    base: dict[str, Any] = {"row_id": [1, 2, 3], "lens_model": ["SIE", "SIS", "CONTROL"]}
    numbers = {"theta_e_arcsec": 1.2, "lens_e": 0.1, "lens_phi_rad": 0.3, "src_x_arcsec": 0.1, "src_e": 0.2}
    numbers |= {"src_y_arcsec": 0.0, "src_reff_arcsec": 0.3, "src_phi_rad": 1.0, "src_n": 1.5, "shear": 0.01}
    numbers |= {"ra": 10.0, "dec": -3.0, "moffat_beta": 3.5, "shear_phi_rad": 0.1}
    for band in "grz":
        numbers |= {f"src_flux_nmgy_{band}": 1.5, f"psf_fwhm_arcsec_{band}": 1.4}
    text = {
        "psf_model": ["moffat"] * 3,
        "host_id": [f"synthetic-1-{k:06d}" for k in range(3)],
        "split": ["train", "train", "test"],
    }
    return pa.table(base | {name: [value] * 3 for name, value in numbers.items()} | text)


def _make_rows(path: Path) -> None:
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet as pq

    if path.suffix == ".parquet":
        pq.write_table(_rows(), path)
    elif path.suffix == ".csv":
        pa.csv.write_csv(_rows(), path)
    else:
        from astropy.table import Table

        form = "ascii.ecsv" if path.suffix == ".ecsv" else "fits"
        Table(_rows().to_pydict()).write(path, format=form, overwrite=True)


def _read_rows(path: Path) -> None:
    """As injections, then as a catalogue whose splits are audited."""
    from arcforge.engine.auditing.splits import audit_catalogue

    _inject(catalog=path)
    audit_catalogue(path)


def _make_pairs(path: Path) -> None:
    """Write six pairs as the user's parquet: 2 hosts, npz blobs."""
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq

    def blob(cube: np.ndarray[Any, Any]) -> bytes:
        stream = io.BytesIO()
        np.savez_compressed(stream, **{f"image_{band}": cube[k] for k, band in enumerate("grz")})
        return stream.getvalue()

    table = pa.concat_tables([_rows(), _rows()])
    cubes = [_cube(row % 2) for row in range(6)]
    table = table.append_column("pixscale_arcsec", pa.array([0.262] * 6))
    table = table.append_column("stamp_npz", pa.array([blob(cube + 0.01) for cube in cubes]))
    pq.write_table(table.append_column("ctrl_stamp_npz", pa.array([blob(cube) for cube in cubes])), path)


def _read_pairs(path: Path) -> None:
    """As an audit reads pairs, as an import does, and as hosts."""
    from arcforge.engine.auditing.sources import open_pairs

    outcomes = []
    for read in (lambda: _all_batches(open_pairs(path, 1 << 26)), lambda: _import(path),
                 lambda: _inject(hosts=path, n=2)):  # fmt: skip
        try:
            read()
        except ArcforgeError as error:
            outcomes.append(error)
    if len(outcomes) == 3:
        raise outcomes[0]


def _all_batches(source: Any) -> None:
    for _ in source.batches(np.arange(source.table.num_rows), 4):
        pass


def _import(path: Path) -> None:
    from arcforge.engine.imports import import_pairs

    out = path.parent / "imported.zarr"
    store, _ = import_pairs(path, out, overwrite=True)
    store.stamps(slice(None))
    shutil.rmtree(out)


def _make_pair_npz(path: Path) -> None:
    cube = _cube().transpose(1, 2, 0)
    meta: dict[str, Any] = {"meta_theta_e_arcsec": 1.2, "meta_lens_model": "SIE", "meta_pixel_scale": 0.262}
    np.savez_compressed(path, cutout=cube + 0.01, ctrl_cutout=cube, bands="grz", **meta)


def _read_cutout(path: Path) -> None:
    """As a host, then as a cutout to import."""
    refused = None
    for read in (lambda: _inject(hosts=path, n=2), lambda: _import(path)):
        try:
            read()
        except ArcforgeError as error:
            refused = error
    if refused is not None:
        raise refused


def _make_bank_npz(path: Path) -> None:
    images = np.stack([_cube(k)[1] for k in range(3)])
    rest: dict[str, Any] = {
        "ids": np.array(["a", "b", "c"]),
        "noise_variance": 1e-5,
        "mag_r": np.array([21.0, 22.0, 23.0]),
    }
    np.savez(path, images=images, pixscale_arcsec=0.1, psf=_psf()[0], **rest)


def _make_bank_fits(path: Path) -> None:
    from astropy.io import fits

    fits.PrimaryHDU(np.stack([_cube(k)[1] for k in range(3)]), fits.Header({"PIXSCALE": 0.1})).writeto(
        path, overwrite=True
    )


def _read_bank(path: Path) -> None:
    images = {"variant": "auto", "source_bank": str(path), "source_image_fraction": 1.0}
    _inject(config=replace(_config(), **images), n=2)


def _make_psf_table(path: Path) -> None:
    path.write_text(
        "brickname,ra,dec,psfsize_g,psfsize_r,psfsize_z\n0001m002,10.1,-3.0,1.4,1.3,1.2\nx,11,-3,1,1,1\n"
    )


def _read_psf_table(path: Path) -> None:
    """As widths of hosts by place, and as known lenses to be left out."""
    host = path.parent / "host_npz.npz"
    _inject(hosts=host, n=2, config=replace(_config(), psf_table=str(path)))
    _inject(hosts=host, n=2, config=replace(_config(), exclude_catalogs=(str(path),)))


def _make_positions(path: Path) -> None:
    path.write_text("host_id,x_pix,y_pix\na,15,15\nb,16.2,14.7\n")


def _read_positions(path: Path) -> None:
    _inject(hosts=path.parent / "host_fits.fits", positions=path, n=2)


def _make_config(path: Path) -> None:
    path.write_text(_config().to_toml())


def _read_config(path: Path) -> None:
    from arcforge.engine.config import load_config

    config = load_config(path)
    if config.stamp_size <= 128 and config.synthetic_host_count <= 1000 and config.variant != "reference":
        _inject(config=replace(config, source_bank="", rtol=max(config.rtol, 1e-3)), n=2)


def _make_map(path: Path) -> None:
    path.write_text(
        'pixscale_arcsec = 0.262\nbands = "grz"\nstamp_column = "stamp_npz"\ncontrol_column = '
        '"ctrl_stamp_npz"\n[columns]\ntheta_e_arcsec = "theta_e_arcsec"\n[values]\nlens_model = "SIE"\n'
    )


def _read_map(path: Path) -> None:
    """As the map of an import, and as that of an audit."""
    from arcforge.engine.auditing.mapping import read_mapping as read_names
    from arcforge.engine.auditing.sources import open_pairs
    from arcforge.engine.imports import import_pairs, read_mapping

    pairs, out = path.parent / "pairs.parquet", path.parent / "mapped.zarr"
    with contextlib.suppress(ArcforgeError):
        open_pairs(pairs, 1 << 26, read_names(path))
    import_pairs(pairs, out, mapping=read_mapping(path), overwrite=True)
    shutil.rmtree(out)


def _make_thresholds(path: Path) -> None:
    path.write_text('[gate]\nmax_core_auc = 0.6\nbox_pix = { value = 10, why = "as theirs" }\n')


def _read_thresholds(path: Path) -> None:
    from arcforge.engine.auditing.thresholds import Thresholds

    limits = Thresholds(path)
    for name in limits:
        limits.count(name)


def _make_tables(path: Path) -> None:
    from importlib.resources import files

    path.write_text((files("arcforge.bench") / "core_leakage.toml").read_text())


def _read_tables(path: Path) -> None:
    from arcforge.engine.auditing.tables import read_tables

    read_tables(path).profile  # noqa: B018


PARTS = "store file"


def _make_store(path: Path) -> None:
    from arcforge.engine.inject import inject

    inject(path, config=_config(), n=6, seed=1, threads=1, overwrite=True)
    store = _contents(path)
    np.savez(path.parent / "committed.npz", *store)


def _contents(path: Path) -> tuple[np.ndarray[Any, Any], ...]:
    from arcforge.engine import open_store

    store = open_store(path)
    table = json.dumps(store.catalog.to_pylist(), default=str) + str(store.hosts.to_pylist())
    return store.stamps(slice(None)), store.ctrls([0, 3]), store.arcs(1), np.array(table)


def _read_store(path: Path) -> None:
    """Read all of a store; then verify it. What is read is what was committed."""
    from arcforge.engine.verify import verify

    refused: Exception | None = None
    try:
        found = _contents(path)
        with np.load(path.parent / "committed.npz", allow_pickle=False) as committed:
            if not all(np.array_equal(a, committed[f"arr_{k}"]) for k, a in enumerate(found)):
                raise AssertionError("the store gave other contents than were committed, and said nothing")
    except ArcforgeError as error:
        refused = error
    report = verify(path, level="deep", rendered_rows=1, threads=1)
    if refused is not None and report.sound and report.complete:
        raise AssertionError(f"verify calls a store sound that cannot be read: {refused}")
    if refused is not None:
        raise refused
    if not report.sound:
        raise StoreError(report.faults[0])


TARGETS: dict[str, Target] = {
    "host_npz": Target("npz", ".npz", _make_host_npz, _read_cutout),
    "host_fits": Target("fits", ".fits", _make_host_fits, _read_cutout),
    "pairs": Target("parquet", ".parquet", _make_pairs, _read_pairs),
    "pair_npz": Target("npz", ".npz", _make_pair_npz, _read_cutout),
    "rows_parquet": Target("parquet", ".parquet", _make_rows, _read_rows),
    "rows_csv": Target("text", ".csv", _make_rows, _read_rows),
    "rows_ecsv": Target("text", ".ecsv", _make_rows, _read_rows),
    "rows_fits": Target("fits", ".fits", _make_rows, _read_rows),
    "bank_npz": Target("npz", ".npz", _make_bank_npz, _read_bank),
    "bank_fits": Target("fits", ".fits", _make_bank_fits, _read_bank),
    "psf_table": Target("text", ".csv", _make_psf_table, _read_psf_table),
    "positions": Target("text", ".csv", _make_positions, _read_positions),
    "config": Target("text", ".toml", _make_config, _read_config),
    "map": Target("text", ".toml", _make_map, _read_map),
    "thresholds": Target("text", ".toml", _make_thresholds, _read_thresholds),
    "tables": Target("text", ".toml", _make_tables, _read_tables),
    "store": Target(PARTS, ".zarr", _make_store, _read_store),
}
