"""What paired sets can be wrong in: refused in one line that names file or row, and the way out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.io import fits

from arcforge.engine.errors import ConfigError, ImportSourceError, StoreError
from arcforge.engine.import_sources import Mapping
from arcforge.engine.imports import import_pairs, read_mapping

SIZE = 12
CUBE = np.random.default_rng(2).normal(0.0, 0.01, (2, SIZE, SIZE)).astype(np.float32)
WIDE = np.zeros((2, SIZE, SIZE + 1), np.float32)
SCALE = {"pixscale_arcsec": 0.262}
Make = Callable[[Path], Path]


def npz(*files: dict[str, Any]) -> Make:
    """A folder of npz files."""

    def make(folder: Path) -> Path:
        for k, arrays in enumerate(files):
            np.savez(folder / f"{k}.npz", **arrays)
        return folder

    return make


def good(**changes: Any) -> dict[str, Any]:
    return {"cutout": CUBE, "ctrl_cutout": CUBE, "bands": "gr"} | SCALE | changes


def fits_pair(header: dict[str, Any], **images: np.ndarray) -> Make:
    """A folder of one FITS file of pairs."""

    def make(folder: Path) -> Path:
        units: list[Any] = [fits.PrimaryHDU(header=fits.Header(header))]
        units += [fits.ImageHDU(image, name=name) for name, image in images.items()]
        fits.HDUList(units).writeto(folder / "a.fits")
        return folder

    return make


def npy(stamps: Any, controls: Any, **columns: Any) -> Make:
    """A folder of two arrays and their catalogue; an array may be bytes."""

    def make(folder: Path) -> Path:
        for name, array in (("stamps.npy", stamps), ("ctrls.npy", controls)):
            if isinstance(array, bytes):
                (folder / name).write_bytes(array)
            else:
                np.save(folder / name, array)
        if columns:
            pq.write_table(pa.table(columns), folder / "catalog.parquet")
        return folder

    return make


def parquet(**columns: Any) -> Make:
    """One parquet file; the first stamp is whole unless it is given."""

    def make(folder: Path) -> Path:
        np.savez(folder / "one.npz", image_g=CUBE[0], image_r=CUBE[1])
        blob = (folder / "one.npz").read_bytes()
        content = {"stamp_npz": [blob], "ctrl_stamp_npz": [blob]} | columns
        pq.write_table(pa.table(content), folder / "p.parquet")
        return folder / "p.parquet"

    return make


def damaged(folder: Path) -> Path:
    """A parquet file whose pages are overwritten, and whose footer is not."""
    path = parquet(**{key: [value] for key, value in SCALE.items()})(folder)
    content = bytearray(path.read_bytes())
    content[4:400] = bytes(396)
    path.write_bytes(content)
    return path


def no_parquet(folder: Path) -> Path:
    (folder / "a.parquet").write_bytes(b"PAR1")
    return folder


def catalog_without_files(folder: Path) -> Path:
    pq.write_table(pa.table({"row": [0]}), folder / "catalog.parquet")
    return npz(good())(folder)


def catalog_of_absent_files(folder: Path) -> Path:
    pq.write_table(pa.table({"file": ["b.npz"]}), folder / "catalog.parquet")
    return folder


ROW = np.stack([CUBE])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (npz({"cutout": CUBE}), "0.npz: it does not name its bands; add a key 'bands'"),
        (npz({"bands": "gr"}), "it has neither a key 'cutout' nor image_<band> for each band"),
        (npz({"image_g": CUBE[0], "image_r": CUBE[1, 1:]}), "image_<band> are not 2-D of one shape"),
        (npz(good(cutout=CUBE[0])), "images have three axes"),
        (npz(good(cutout=CUBE[:, :2, :2])), r"shape \(2, 2, 2\) does not tell its axis of 2 bands"),
        (npz(good(pixscale_arcsec="wide")), "its pixel scale is 'wide'; give pixscale_arcsec in --map"),
        (npz(good(cutout=WIDE, ctrl_cutout=WIDE)), r"it is \(12, 13\) pixels; stamps are square"),
        (npz(good(cutout=CUBE + 3e38, ctrl_cutout=CUBE - 3e38)), "stamp less control is not finite"),
        (npz(good(pixscale_arcsec=-1.0)), "its pixel scale is -1.0; give pixscale_arcsec in --map"),
        (fits_pair({"PIXSCALE": 0.262}, STAMP=CUBE), "its header does not name its bands; add BANDS"),
        (fits_pair({"BANDS": "gr"}), "a.fits: "),
        (catalog_without_files, "catalog.parquet: has no column file"),
        (catalog_of_absent_files, r"b.npz: cannot be read \(No such file or directory\)"),
        (npy(b"no array", ROW, bands=["gr"]), "stamps.npy or ctrls.npy: "),
        (npy(ROW, ROW), "catalog.parquet: cannot be read"),
        (npy(ROW, ROW[0], bands=["gr"]), "do not belong together; give"),
        (npy(ROW, ROW, bands=["gr", "gr"]), "and 2 catalogue rows do not belong together"),
        (npy(ROW, ROW, bands=["grz"]), "2 bands in stamps.npy, and the column 'bands' .* says 'grz'"),
        (npy(ROW[:0], ROW[:0], bands=pa.array([], pa.string())), "2 bands in stamps.npy"),
        (no_parquet, "is no readable parquet set"),
        (damaged, "p.parquet: is damaged"),
        (parquet(stamp_npz=[b"no archive"]), "no stamp can be read"),
        (parquet(**{key: ["wide"] for key in SCALE}), "its pixel scale is 'wide'"),
    ],
)
def test_sets(tmp_path: Path, make: Make, message: str) -> None:
    (tmp_path / "set").mkdir()
    with pytest.raises(ImportSourceError, match=message) as caught:
        import_pairs(make(tmp_path / "set"), tmp_path / "S.zarr")
    assert len(str(caught.value).splitlines()) == 1
    assert sorted(each.name for each in tmp_path.iterdir()) == ["set"]


def test_bands_that_the_map_orders_are_not_those_of_the_stamps(tmp_path: Path) -> None:
    source = parquet(**{key: [value] for key, value in SCALE.items()})(tmp_path)
    with pytest.raises(ImportSourceError, match="the first stamps have bands gr, not giz"):
        import_pairs(source, tmp_path / "S.zarr", mapping=Mapping(bands="giz"))


def test_rows_that_do_not_fit_the_first_are_listed(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    other_bands = good(bands="gz")
    large = {"cutout": np.zeros((2, 16, 16)), "ctrl_cutout": np.zeros((2, 16, 16))}
    mixed = good(ctrl_cutout=np.zeros((2, 16, 16)))
    source = npz(good(), other_bands, good(**large), mixed)(tmp_path / "set")
    store, refused = import_pairs(source, tmp_path / "S.zarr")
    assert len(store) == 1
    assert [(entry.row, entry.reason) for entry in refused] == [
        (1, "1.npz: bands gz where the set has gr"),
        (2, "it is (16, 16) pixels where the set has (12, 12)"),
        (3, "its stamp is (12, 12) pixels and its control (16, 16)"),
    ]


def test_a_row_that_changes_between_check_and_copy_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from arcforge.engine import imports

    (tmp_path / "set").mkdir()
    source = npz(good(), good())(tmp_path / "set")
    real = imports.scan_source

    def scan_and_damage(*arguments: Any) -> Any:
        found = real(*arguments)
        (source / "1.npz").write_bytes(b"gone")
        return found

    monkeypatch.setattr(imports, "scan_source", scan_and_damage)
    with pytest.raises(ImportSourceError, match=r"row 1 has changed since it was checked: .*import it anew"):
        import_pairs(source, tmp_path / "S.zarr")
    with pytest.raises(StoreError):
        import_pairs(source, tmp_path / "S.zarr")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bands = 3", "bands is 3; give"),
        ("pixscale_arcsec = true", "pixscale_arcsec is True; give"),
        ("pixscale_arcsec = 0", "pixscale_arcsec is 0; give arcsec, above 0"),
        ("pixscale_arcsec = inf", "pixscale_arcsec is inf; give arcsec, above 0"),
        ("[columns]\ntheta_e_arcsec = 3", r"columns.theta_e_arcsec is 3; \[columns\] holds names"),
        ("[values]\nseen = [1]", r"values.seen is \[1\]; \[values\] holds numbers or text"),
    ],
)
def test_maps(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "map.toml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_mapping(tmp_path / "map.toml")
