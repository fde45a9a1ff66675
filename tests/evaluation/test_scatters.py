"""Scatters of measured and predicted expression: what they show, and what those made with demo weights say."""

import numpy as np
from matplotlib.figure import Figure

from stpath_assets.evaluation import scatters


def scatter(demo: bool = False, r: float | None = 0.5) -> Figure:
    x = np.linspace(0, 3, 20)
    return scatters.scatter(x, x * 0.5, title="C2: EPCAM", pearson_r=r, demo=demo)


def test_a_scatter_says_r_and_n() -> None:
    assert "C2: EPCAM: r = 0.500, n = 20" in scatter().axes[0].get_title()
    assert "r undefined" in scatter(r=None).axes[0].get_title()
    offsets = scatter().axes[0].collections[0].get_offsets()
    np.testing.assert_allclose(offsets[:, 1], offsets[:, 0] * 0.5)


def test_what_demo_weights_made_says_so() -> None:
    assert "demo weights, not biology" in scatter(demo=True).axes[0].get_title()
    assert "demo" not in scatter(demo=False).axes[0].get_title()
