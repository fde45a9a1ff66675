"""Settings: which source wins, and that nothing misspelt or out of range passes in silence."""

import os
from pathlib import Path

import pytest

from stpath_assets.errors import SettingsError
from stpath_assets.settings import Settings, load_settings, split_genes


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


def write(home: Path, text: str) -> None:
    (home / "settings.toml").write_text(text)


def test_what_holds_where_nothing_is_said(home: Path) -> None:
    settings = load_settings(home)
    assert settings.home == home
    assert (settings.encoder, settings.genes, settings.batch_size, settings.min_tissue) == (
        "gigapath",
        "all",
        None,
        0.25,
    )
    assert settings.weights is settings.vocabulary is settings.gigapath_weights is None


def test_the_data_root_is_the_argument_then_the_environment(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings().home == Path(os.environ["STPATH_HOME"])
    assert load_settings(home).home == home
    monkeypatch.delenv("STPATH_HOME")
    assert load_settings().home == Path("~/.local/share/stpath-assets").expanduser()
    assert load_settings("~/lab").home == Path("~/lab").expanduser()


def test_a_relative_data_root_becomes_absolute(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    assert load_settings("here").home == home / "here"


def test_arguments_win_over_the_environment_and_that_over_the_file(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(home, 'batch_size = 2\nmin_tissue = 0.5\nencoder = "demo"')
    assert load_settings(home).batch_size == 2
    monkeypatch.setenv("STPATH_BATCH_SIZE", "3")
    assert load_settings(home).batch_size == 3
    assert load_settings(home, batch_size=4).batch_size == 4
    assert load_settings(home, batch_size=None).batch_size == 3
    assert load_settings(home, batch_size=4).min_tissue == 0.5
    assert load_settings(home).encoder == "demo"


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_every_setting_is_described(name: str) -> None:
    assert Settings.model_fields[name].description


def test_a_misspelt_key_in_the_file_is_an_error(home: Path) -> None:
    write(home, "batchsize = 2")
    with pytest.raises(
        SettingsError, match=r"settings\.toml: unknown setting batchsize; known: allow_same_patient, batch_size"
    ):
        load_settings(home)


def test_a_misspelt_variable_is_an_error(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STPATH_BATCHSIZE", "2")
    with pytest.raises(SettingsError, match="unknown setting STPATH_BATCHSIZE"):
        load_settings(home)


def test_an_unknown_argument_is_an_error(home: Path) -> None:
    with pytest.raises(SettingsError, match="batchsize"):
        load_settings(home, batchsize=2)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("batch_size", "0"),
        ("batch_size", "many"),
        ("min_tissue", "1.5"),
        ("min_tissue", "-0.1"),
        ("min_tissue", "nan"),
        ("encoder", "gigpath"),
    ],
)
def test_a_wrong_value_is_named_in_one_line(home: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"STPATH_{name.upper()}", value)
    with pytest.raises(SettingsError, match=f"setting {name}: .*{value}") as error:
        load_settings(home)
    assert "\n" not in str(error.value)


def test_a_file_that_is_no_toml_is_named(home: Path) -> None:
    write(home, "batch_size: 2")
    with pytest.raises(SettingsError, match=r"settings\.toml: is not TOML"):
        load_settings(home)
    (home / "settings.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match=r"settings\.toml: is not TOML"):
        load_settings(home)


def test_files_named_in_the_settings_lie_beside_them(home: Path) -> None:
    write(home, 'weights = "stfm.pth"\nvocabulary = "/data/v.json"\ngigapath_weights = "~/g.bin"')
    settings = load_settings(home)
    assert settings.weights == home / "stfm.pth"
    assert settings.vocabulary == Path("/data/v.json")
    assert settings.gigapath_weights == Path("~/g.bin").expanduser()


def test_settings_do_not_change(home: Path) -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_settings(home).batch_size = 4


@pytest.mark.parametrize(("text", "genes"), [("EPCAM", ["EPCAM"]), (" EPCAM, ERBB2,", ["EPCAM", "ERBB2"])])
def test_genes_are_separated_by_commas(text: str, genes: list[str]) -> None:
    assert split_genes(text) == genes


def test_a_panel_without_a_gene_is_an_error() -> None:
    with pytest.raises(SettingsError, match="no gene in ' , '"):
        split_genes(" , ")


def test_a_notebook_can_see_what_holds_and_where_it_comes_from(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import stpath_assets

    write(home, 'device = "cpu"\nmin_tissue = 0.5')
    monkeypatch.setenv("STPATH_HOME", str(home))
    monkeypatch.setenv("STPATH_MIN_TISSUE", "0.4")
    monkeypatch.setenv("STPATH_ENCODER_TOKEN", "0123456789abcdefghij")
    monkeypatch.setenv("STPATH_LAKE", "postgres://me:secret@host/db")
    shown = stpath_assets.settings()
    assert shown == load_settings()
    assert [shown.origins[k] for k in ("home", "device", "min_tissue", "stride")] == [
        "STPATH_HOME", str(home / "settings.toml"), "STPATH_MIN_TISSUE", "default",
    ]  # fmt: skip
    lines = {line.split()[0]: line.split()[1:] for line in str(shown).splitlines()}
    assert set(lines) == set(Settings.model_fields)
    assert lines["device"] == ["cpu", str(home / "settings.toml")]
    assert lines["min_tissue"] == ["0.4", "STPATH_MIN_TISSUE"]
    assert "secret" not in str(shown)
    assert "0123" not in str(shown)
    assert load_settings(home, device="cuda").origins["device"] == "argument"
    assert stpath_assets.settings(home / "other").origins["home"] == "argument"
