"""What notebooks show of a store and of a report: HTML that stands alone, with every name escaped."""

from __future__ import annotations

from arcforge.engine import open_store
from arcforge.engine.inject import inject
from arcforge.engine.notebook import Report


def test_reports_escape_what_others_wrote():
    check = {"id": "D0", "status": "PASS", "title": "<b>", "message": "<script>x</script>"}
    cause = {"name": "psf_width", "message": "2.355 < 3"}
    report = {
        "verdict": "NO-GO",
        "reason": "BUG",
        "because": "<i>",
        "causes": [cause],
        "next_step": "&",
        "checks": [check],
    }
    html = Report(report)._repr_html_()
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    assert "NO-GO BUG" in html
    assert "2.355 &lt; 3" in html


def test_a_store_shows_what_it_is_with_some_of_its_stamps(tmp_path, small_config):
    store = inject(tmp_path / "<S>.zarr", config=small_config, n=20, seed=3)
    html = store._repr_html_()
    assert "20 of 20" in html
    assert "&lt;S&gt;.zarr" in html
    assert "data:image/png;base64," in html
    assert "http" not in html
    assert repr(store) == f"<Store {store.path}: 20 rows, bands grz, 24 pix>"


def test_a_store_without_rows_shows_no_pixels(generated):
    generated.begin()
    html = open_store(generated.root, allow_partial=True)._repr_html_()
    assert "0 of 600" in html
    assert "<img" not in html
