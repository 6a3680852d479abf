"""The environment of tasks is a white list."""

from __future__ import annotations

from grampus.worker.environment import task_environment


def test_only_what_is_on_the_list_passes() -> None:
    env = task_environment(
        {
            "PATH": "/usr/bin",
            "HOME": "/h",
            "LC_ALL": "C",
            "HTTPS_PROXY": "http://p",
            "no_proxy": "x",
            "SSL_CERT_FILE": "/c",
            "GRAMPUS_TOKEN": "secret",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "PYTHONPATH": "/x",
            "LD_PRELOAD": "/x.so",
            "PROXY": "x",
        },
        "/venv/bin/python",
    )
    assert env == {
        "PATH": "/venv/bin:/usr/bin",
        "HOME": "/h",
        "LC_ALL": "C",
        "HTTPS_PROXY": "http://p",
        "no_proxy": "x",
        "SSL_CERT_FILE": "/c",
        "PYTHONUNBUFFERED": "1",
    }


def test_there_is_a_path_even_when_nobody_gave_one() -> None:
    path = task_environment({}, "/usr/bin/python3")["PATH"]
    assert path.split(":")[0] == "/usr/bin"
    assert "/bin" in path.split(":")
