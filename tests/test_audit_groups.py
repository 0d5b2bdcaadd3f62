"""One galaxy, one group: however the set says so, and whole groups in every fold."""

from __future__ import annotations

import numpy as np
import pytest

from arcforge.engine.auditing.groups import deal_folds, join_groups, number_known, same_sky


def test_any_shared_key_links_rows_and_links_chain():
    host = np.array([0, 0, 1, 2, -1, -1])
    source = np.array([-1, 5, 5, 6, -1, -1])
    groups = join_groups(6, [host, source])
    np.testing.assert_array_equal(groups, [0, 0, 0, 1, 2, 3])


def test_unknown_values_link_nothing():
    np.testing.assert_array_equal(number_known(["a", None, "b", "", "a", None]), [0, -1, 2, -1, 0, -1])
    groups = join_groups(4, [number_known([None, None, "x", "x"])])
    assert len(set(groups.tolist())) == 3


def test_positions_within_the_radius_are_one_object_also_across_zero_and_at_the_pole():
    arcsec = 1 / 3600
    ra = np.array(
        [10.0, 10.0 + 0.9 * arcsec, 10.0 + 3 * arcsec, 0.0, 360.0 - 0.5 * arcsec, 20.0, 200.0, np.nan]
    )
    dec = np.array([0.0, 0.0, 0.0, 5.0, 5.0, 90 - 0.2 * arcsec, 90 - 0.2 * arcsec, 1.0])
    objects = same_sky(ra, dec, 1.0)
    assert objects[0] == objects[1] != objects[2]
    assert objects[3] == objects[4]
    assert objects[5] == objects[6]
    assert objects[7] == -1


def test_folds_hold_whole_groups_and_similar_numbers_of_rows():
    rng = np.random.default_rng(3)
    groups = rng.integers(40, size=400)
    groups = np.unique(groups, return_inverse=True)[1]
    folds = deal_folds(groups, 5, rng)
    for group in range(groups.max() + 1):
        assert len(set(folds[groups == group].tolist())) == 1
    sizes = np.bincount(folds)
    assert sizes.max() - sizes.min() <= np.bincount(groups).max()


def test_fewer_hosts_than_folds_is_an_error():
    with pytest.raises(ValueError, match="3 hosts cannot fill 5 folds"):
        deal_folds(np.array([0, 1, 2]), 5, np.random.default_rng(0))
