"""The picture of a learned cap: its curve begins where nothing is used, also when it falls only once."""

from __future__ import annotations

import numpy as np
import pytest
from simswitch.caps.picture import stairs


@pytest.mark.parametrize(("ends", "survival"), [([1.9], [0.0]), ([1.8, 1.9, np.inf], [0.5, 0.25, 0.0])])
def test_a_curve_begins_at_one_and_goes_on_to_the_end(ends: list[float], survival: list[float]) -> None:
    at, share = stairs(np.array(ends), np.array(survival), 2.5)
    assert (at[0], share[0]) == (0.0, 1.0)
    assert at[-1] == 2.5
    assert (np.diff(at) >= 0).all()
    finite = np.isfinite(ends)
    assert at[1:-1].tolist() == np.array(ends)[finite].tolist()
    assert share[1:].tolist() == [*np.array(survival)[finite].tolist(), np.array(survival)[finite][-1]]
