"""The small published-layout weights with their golden outputs, and inputs that each test changes in one way."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from stpath_assets.prediction import Context, STPath

GOLDEN = Path(__file__).parent / "golden"
WEIGHTS, VOCABULARY = GOLDEN / "stfm.pth", GOLDEN / "symbol2ensembl.json"


@dataclass(frozen=True)
class Golden:
    """Inputs and outputs of the upstream code on these weights."""

    features: npt.NDArray[np.float32]
    coords: npt.NDArray[np.float32]
    organ: str | None
    tech: str | None
    genes: list[str]
    expected: npt.NDArray[np.float32]
    context: Context | None

    @classmethod
    def read(cls, path: Path) -> "Golden":
        z = np.load(path)
        context = None
        if "context_ids" in z:
            context = Context(z["context_ids"], z["context_gene_exps"], z["context_gene_names"].tolist())
        return cls(
            z["features"], z["coords"], str(z["organ"]) or None, str(z["tech"]) or None, z["genes"].tolist(),
            z["expected"], context,
        )  # fmt: skip

    def predict(self, model: STPath) -> npt.NDArray[np.float32]:
        return model.predict(self.features, self.coords, self.organ, self.tech, self.genes, self.context)


@pytest.fixture(scope="session")
def model() -> STPath:
    return STPath.load(WEIGHTS, VOCABULARY)


@pytest.fixture(scope="session", params=["breast_visium", "breast_visium_context"])
def golden(request: pytest.FixtureRequest) -> Golden:
    return Golden.read(GOLDEN / f"{request.param}.npz")


@pytest.fixture(scope="session")
def in_context() -> Golden:
    """The case with measured spots."""
    return Golden.read(GOLDEN / "breast_visium_context.npz")


def inputs(n: int, seed: int = 0) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]]:
    """Features (n, 1536) and coords (n, 2) of tiles strewn over a slide."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, 1536), dtype=np.float32), rng.uniform(0, 20_000, (n, 2))
