"""The demo's gene panel: real symbols, each of which follows one compartment of the phantom, or none.

Holds the compartment, rate and id of each gene. Drawing counts from them belongs in `spots`; the look of the compartments in
`layout` and `phantom`.
"""

from dataclasses import dataclass

COMPARTMENTS = ("epithelium", "stroma", "lymphocytes", "muscle", "fat")

_SYMBOLS: dict[str | None, str] = {
    "epithelium": """
        EPCAM ERBB2 KRT19 KRT8 KRT18 KRT7 CDH1 MUC1 ESR1 PGR GATA3 FOXA1 XBP1 TFF1 TFF3 AGR2 CLDN3 CLDN4 CLDN7 ELF3 GRB7
        SPDEF TACSTD2 KRT23 ERBB3 FASN GNAS MKI67 TOP2A CCND1 AZGP1 SCGB2A2 SCGB1D2 MGP ANKRD30A PIP AREG TRPS1 DSP JUP
        ST14 LCN2 SLPI CEACAM6 S100P MLPH STARD10 RAB25 CRABP2 S100A14""",
    "stroma": """
        VIM COL1A1 COL1A2 COL3A1 COL5A1 COL5A2 COL6A1 COL6A2 COL6A3 COL12A1 COL14A1 FN1 DCN LUM BGN SPARC POSTN FAP PDGFRA
        PDGFRB THY1 THBS1 THBS2 FBLN1 FBLN2 FBN1 ELN MFAP4 MFAP5 SFRP2 SFRP4 CTSK MMP2 MMP11 MMP14 TIMP1 TIMP3 LOX LOXL1
        CCDC80 AEBP1 ASPN OGN S100A4 CXCL12 IGFBP7 CD34 PECAM1 VWF""",
    "lymphocytes": """
        CD74 CD3D CD3E CD3G CD2 CD4 CD8A CD8B MS4A1 CD79A CD79B CD19 CD22 CD27 CD37 CD52 CD53 PTPRC LTB TRAC TRBC1 TRBC2
        IL7R CCR7 SELL CXCR4 CXCR5 CCL5 CCL19 CCL21 CXCL13 GZMA GZMB GZMK PRF1 NKG7 FOXP3 CTLA4 IKZF1 LCK CORO1A HLA-DRA
        CD68 BANK1 PAX5""",
    "muscle": """
        ACTA2 TAGLN MYH11 CNN1 DES MYL9 ACTG2 LMOD1 SYNPO2 SYNM CALD1 TPM2 TPM1 SMTN PLN SORBS1 MYOCD KCNMB1 PGM5
        CSRP1""",
    "fat": """
        ADIPOQ PLIN1 PLIN4 LEP CIDEC CIDEA FABP4 LPL LIPE PNPLA2 G0S2 CFD GPD1 AQP7 PPARG DGAT2""",
    None: """
        ACTB GAPDH B2M RPLP0 RPL13A RPS18 EEF1A1 PPIA TBP HPRT1 YWHAZ SDHA UBC PGK1 TUBA1B HMBS GUSB TFRC POLR2A ALAS1""",
}  # fmt: skip

_LOWEST_RATE, _RATE_SPAN, _GOLDEN = 6.0, 8.0, 0.6180339887


@dataclass(frozen=True)
class Gene:
    """One gene of the panel.

    `compartment` is the tissue that it follows, or None if its mean is the same everywhere. `rate` is its mean count in a spot of
    average depth that lies completely in its compartment, or in any spot if it has none.
    """

    symbol: str
    compartment: str | None
    rate: float


def _panel() -> tuple[Gene, ...]:
    pairs = [(s, c) for c, symbols in _SYMBOLS.items() for s in symbols.split()]
    # Multiples of the golden ratio spread evenly: neighbours in the list differ, without a random generator.
    return tuple(Gene(s, c, _LOWEST_RATE * _RATE_SPAN ** (k * _GOLDEN % 1)) for k, (s, c) in enumerate(pairs))


PANEL: tuple[Gene, ...] = _panel()


def vocabulary() -> dict[str, str]:
    """Return symbol → id for the whole panel. The ids are visibly artificial, so none can be mistaken for Ensembl's."""
    return {g.symbol: f"DEMOG{k:011d}" for k, g in enumerate(PANEL, start=1)}
