from pathlib import Path

import pytest

from ragsvc.config import Settings
from ragsvc.core.errors import ConfigurationError


def test_defaults_need_nothing() -> None:
    settings = Settings.from_env({"HOME": "/root"})
    assert (settings.host, settings.port, settings.data_dir) == ("127.0.0.1", 8080, Path("indexes"))


def test_the_environment_wins_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "ragsvc.toml"
    file.write_text('port = 9000\nhost = "0.0.0.0"\nrag_top_k = 3\n')
    settings = Settings.from_env({"RAGSVC_CONFIG": str(file), "RAGSVC_PORT": "9001", "RAGSVC_DATA_DIR": "/data"})
    assert settings.data_dir == Path("/data")
    assert (settings.port, settings.host, settings.rag_top_k) == (9001, "0.0.0.0", 3)  # noqa: S104 - not bound here


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    file = tmp_path / "ragsvc.toml"
    file.write_text('colour = "red"\nrag_top_k = 0\n')
    environ = {"RAGSVC_CONFIG": str(file), "RAGSVC_PORT": "many", "RAGSVC_PROT": "1", "RAGSVC_PROVIDERS": "x"}
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_env(environ)
    text = "\n".join(caught.value.problems)
    for name in ("colour", "rag_top_k", "RAGSVC_PORT", "RAGSVC_PROT", "RAGSVC_PROVIDERS"):
        assert name in text


def test_providers_take_plain_model_names_and_keys_from_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "ragsvc.toml"
    file.write_text(
        '[[providers]]\nname = "up"\nbase_url = "http://127.0.0.1:1/v1"\napi_key_env = "UP_KEY"\n'
        'models = ["m1", {id = "m2", context_tokens = 1000}]\n'
    )
    settings = Settings.from_env({"RAGSVC_CONFIG": str(file), "UP_KEY": "sk-secret"})
    (provider,) = settings.providers
    assert (provider.api_key, [one.id for one in provider.models]) == ("sk-secret", ["m1", "m2"])
    assert "sk-secret" not in repr(settings)
    with pytest.raises(ConfigurationError, match="UP_KEY"):
        Settings.from_env({"RAGSVC_CONFIG": str(file)})


def test_a_provider_of_the_file_cannot_split_requests(tmp_path: Path) -> None:
    file = tmp_path / "ragsvc.toml"
    file.write_text(
        '[[providers]]\nname = "up"\nbase_url = "http://127.0.0.1:1/v1"\napi_key_env = "UP_KEY"\n'
        'headers = { "X-Team" = "blue\\r\\nX-Evil: 1" }\n'
    )
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_env({"RAGSVC_CONFIG": str(file), "UP_KEY": "sk-secret\n"})
    assert caught.value.problems == [
        "providers: 'up': api_key: Expected printable ASCII characters",
        "providers: 'up': headers.X-Team: Expected printable ASCII characters",
    ]


def test_a_file_that_is_missing_or_not_toml_is_named(tmp_path: Path) -> None:
    bad = tmp_path / "bad.toml"
    bad.write_text("port = = 1")
    for name in (str(bad), str(tmp_path / "none.toml")):
        with pytest.raises(ConfigurationError, match="RAGSVC_CONFIG"):
            Settings.from_env({"RAGSVC_CONFIG": name})


@pytest.mark.parametrize("url", ["mysql://db/ragsvc", "db.example.com", "postgresql://a b"])
def test_a_database_url_of_another_kind_is_refused_without_being_quoted(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_env({"RAGSVC_DATABASE_URL": url})
    assert "database_url: expected a URL such as postgresql://" in caught.value.message
    assert url not in caught.value.message


def test_a_database_url_is_shown_without_its_secrets() -> None:
    url = "postgresql://user:zq9@db1,db2:5433/ragsvc?sslpassword=zq9"
    settings = Settings.from_env({"RAGSVC_DATABASE_URL": url})
    assert settings.database_url == url
    assert settings.redacted()["database_url"] == "postgresql://db1,db2:5433/ragsvc"
    assert "zq9" not in repr(settings)
    assert Settings.from_env({}).database_url is None
