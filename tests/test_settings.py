from pathlib import Path

import pytest

from adserve.settings import SettingsError, load


def test_the_environment_overrules_the_file_and_the_file_the_default(tmp_path: Path) -> None:
    file = tmp_path / "adserve.toml"
    file.write_text('port = 9000\nhost = "127.0.0.2"\n[surfaces.updates]\nmin_gap = 7\n')
    settings = load({"ADSERVE_CONFIG": str(file), "ADSERVE_PORT": "9001"})
    assert (settings.port, settings.host, settings.batch_rows_max) == (9001, "127.0.0.2", 1_000)
    assert {name: surface.min_gap for name, surface in settings.surfaces.items()} == {"updates": 7}


NO_URLS = ("", "notaurl", "ftp://x", "http://", "http://[::1", "http://x:99999")


NO_DATABASES = (
    "",
    "adserve",
    "mysql://u:hush@h/d",
    "postgresql://u:hu/sh@h/d",
    "postgresql://u:hu#sh@h/d",
    "postgresql://u:[@h/d",
)


@pytest.mark.parametrize(
    ("environment", "named"),
    [
        ({"ADSERVE_PORT": "many"}, "ADSERVE_PORT"),
        ({"ADSERVE_LOG_LEVEL": "loud"}, "ADSERVE_LOG_LEVEL"),
        ({"ADSERVE_ORIGINS_KEPT_DAYS": "13"}, "ADSERVE_ORIGINS_KEPT_DAYS"),
        ({"ADSERVE_PUBLIC_URL": "nonsense"}, "ADSERVE_PUBLIC_URL"),
        ({"ADSERVE_HOST": ""}, "ADSERVE_HOST"),
        ({"ADSERVE_DATA_HOME": ""}, "ADSERVE_DATA_HOME"),
        ({"ADSERVE_DATA_HOME": "~nobody-of-that-name/home"}, "ADSERVE_DATA_HOME"),
        ({"ADSERVE_CLICK_HOLD_FACTOR": "inf"}, "ADSERVE_CLICK_HOLD_FACTOR"),
        ({"ADSERVE_PARTITIONS_AHEAD_DAYS": "1000000"}, "ADSERVE_PARTITIONS_AHEAD_DAYS"),
        *(({f"ADSERVE_{kept}_KEPT_DAYS": "1000000"}, kept) for kept in ("EVENTS", "DECISIONS", "ORIGINS")),
        *(({"ADSERVE_DATABASE_URL": url}, "ADSERVE_DATABASE_URL") for url in NO_DATABASES),
        *(({"ADSERVE_UPSTREAM_URL": url}, "ADSERVE_UPSTREAM_URL") for url in NO_URLS),
        ({"ADSERVE_CONFIG": "/there/is/none.toml"}, "/there/is/none.toml"),
    ],
)
def test_a_value_that_cannot_be_is_refused_by_name(environment: dict[str, str], named: str) -> None:
    with pytest.raises(SettingsError, match=named) as refused:
        load(environment)
    assert "hu" not in str(refused.value)


@pytest.mark.parametrize(
    "url", ["postgresql://u:p%40@h:1,i:2/d?sslmode=require", "postgres:///d?host=/run/postgresql"]
)
def test_a_database_may_be_anywhere(url: str) -> None:
    assert load({"ADSERVE_DATABASE_URL": url}).database_url == url


def test_an_unknown_name_in_the_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "adserve.toml"
    for text, named in (
        ("prot = 9000\n", "`prot`"),
        ("surfaces = {}\n", "surfaces"),
        ("data_home = 3\n", "data_home"),
        ('port = "many"\n', r"`\$\.port`"),
    ):
        file.write_text(text)
        with pytest.raises(SettingsError, match=named):
            load({"ADSERVE_CONFIG": str(file)})
