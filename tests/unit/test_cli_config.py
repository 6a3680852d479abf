"""Settings: where they come from, and what is said of wrong ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from grampus.config import Config, Listen, explain, load_config
from grampus.errors import InvalidInput


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return {"HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path / "etc")}


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def sources(config: Config) -> dict[str, tuple[object, str]]:
    return {row.name: (row.value, row.source) for row in explain(config)}


def test_without_anything_the_folders_are_those_of_the_user(tmp_path: Path) -> None:
    config = load_config(environ={"HOME": str(tmp_path)})
    assert config.data == tmp_path / ".local/share/grampus"
    assert config.state == tmp_path / ".local/state/grampus"
    assert (config.listen, config.listen.node_port) == (Listen("127.0.0.1", 8470), 8471)
    assert config.retention == 30 * 24 * 3600 * 1000
    assert config.kill_grace == 10_000
    assert config.slots >= 1


def test_xdg_folders_win_over_home(tmp_path: Path) -> None:
    env = {
        "HOME": "/nowhere",
        "XDG_DATA_HOME": str(tmp_path / "d"),
        "XDG_STATE_HOME": str(tmp_path / "s"),
    }
    config = load_config(environ=env)
    assert (config.data, config.state) == (tmp_path / "d/grampus", tmp_path / "s/grampus")


def test_each_layer_wins_over_the_one_before_and_says_so(
    tmp_path: Path, env: dict[str, str]
) -> None:
    user = write(tmp_path / "etc/grampus/grampus.toml", 'slots = 1\ngroup = "u"\nname = "u"\n')
    data = write(
        tmp_path / "data/grampus.toml", '# mine\nname = "d"\nretention = "2d"\nslots = 2\n'
    )
    env |= {"GRAMPUS_DATA": str(tmp_path / "data"), "GRAMPUS_SLOTS": "3", "GRAMPUS_LISTEN": "h:1"}
    found = sources(load_config({"listen": "127.0.0.1:9000", "name": None}, env))
    assert found["group"] == ("u", f"{user}:2")
    assert found["name"] == ("d", f"{data}:2")
    assert found["retention"] == ("2d", f"{data}:3")
    assert found["slots"] == (3, "environment GRAMPUS_SLOTS")
    assert found["listen"] == ("127.0.0.1:9000", "option --listen")
    assert found["kill_grace"] == ("10s", "default")


def test_all_wrong_settings_are_told_at_once_with_line_and_nearest_name(
    tmp_path: Path, env: dict[str, str]
) -> None:
    path = write(
        tmp_path / "etc/grampus/grampus.toml",
        'slots = 0\n\nretenton = "3d"\n[cluster]\nservers = []\n',
    )
    with pytest.raises(InvalidInput) as caught:
        load_config({"listen": "localhost"}, env | {"GRAMPUS_RETENTION": "soon"})
    told = [(p.file, p.line, p.field) for p in caught.value.problems]
    assert told == [
        (str(path), 3, None),
        (str(path), 1, "slots"),
        (str(path), 5, "cluster.servers"),
        (None, None, "--listen"),
        (None, None, "GRAMPUS_RETENTION"),
    ]
    assert "did you mean `retention`?" in str(caught.value)


@pytest.mark.parametrize(
    "text", ['[cluster]\nservers = ["a:1", "b:2"]', '\ncluster.servers = ["a:1", "b:2"]']
)
def test_the_servers_of_a_cluster_are_a_list(
    tmp_path: Path, env: dict[str, str], text: str
) -> None:
    path = write(tmp_path / "etc/grampus/grampus.toml", text)
    config = load_config(environ=env)
    assert config.cluster_servers == (Listen("a", 1), Listen("b", 2))
    assert sources(config)["cluster.servers"] == (["a:1", "b:2"], f"{path}:2")
    write(path, '[cluster]\nserver = ["a:1"]')
    with pytest.raises(InvalidInput, match=r"did you mean `cluster\.servers`"):
        load_config(environ=env)


def test_a_file_that_is_no_toml_names_the_line(tmp_path: Path, env: dict[str, str]) -> None:
    path = write(tmp_path / "etc/grampus/grampus.toml", "slots = 2\nslots 3\n")
    with pytest.raises(InvalidInput) as caught:
        load_config(environ=env)
    assert (caught.value.problems[0].file, caught.value.problems[0].line) == (str(path), 2)


def test_a_file_in_the_data_folder_cannot_move_the_data_folder(
    tmp_path: Path, env: dict[str, str]
) -> None:
    write(tmp_path / "data/grampus.toml", 'data = "/elsewhere"\n')
    with pytest.raises(InvalidInput, match="in the data folder itself"):
        load_config({"data": tmp_path / "data"}, env)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("listen", "127.0.0.1"),
        ("listen", "127.0.0.1:65535"),
        ("listen", "a b:80"),
        ("listen", 8470),
        ("slots", "1.5"),
        ("slots", "\N{SUPERSCRIPT TWO}"),
        ("slots", True),
        ("slots", "10001"),
        ("retention", "30"),
        ("retention", -1),
        ("retention", "1y"),
        ("name", "-n"),
        ("name", "a/b"),
        ("name", "x" * 64),
        ("server", "127.0.0.1:8470"),
        ("server", "ftp://h"),
        ("server", "http://h:99999"),
        ("server", "http://user@h"),
        ("server", []),
        ("server", "http://h/?q"),
        ("data", ""),
        ("data", "a\0b"),
    ],
)
def test_what_a_setting_cannot_be_is_refused(env: dict[str, str], name: str, value: object) -> None:
    with pytest.raises(InvalidInput) as caught:
        load_config({name: value}, env)
    assert caught.value.problems[0].allowed


@pytest.mark.parametrize(
    ("name", "value", "read"),
    [
        ("listen", "[::1]:8470", Listen("::1", 8470)),
        ("listen", "0.0.0.0:0", Listen("0.0.0.0", 0)),
        ("retention", "1h30m", 5_400_000),
        ("kill_grace", "500ms", 500),
        ("server", "http://a:1/, https://b", ("http://a:1", "https://b")),
        ("server", ["http://[::1]:8470"], ("http://[::1]:8470",)),
    ],
)
def test_what_a_setting_may_be_is_read(
    env: dict[str, str], name: str, value: object, read: object
) -> None:
    assert getattr(load_config({name: value}, env), name) == read


def test_with_port_0_the_node_port_is_free_as_well() -> None:
    assert Listen("h", 0).node_port == 0
    assert str(Listen("::1", 5)) == "[::1]:5"
