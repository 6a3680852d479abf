"""What an attempt is given, what it gives back, and what is said of it."""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
from pathlib import Path

import pytest
from warden_ground import ALL_KINDS, KINDS, Ground, descriptors, play

from grampus.worker.orders import Ended, Started
from grampus.worker.process_tree import children

both = pytest.mark.parametrize("kind", KINDS)
each = pytest.mark.parametrize("kind", ALL_KINDS)


def ignored(mask: str) -> set[int]:
    """Signals of a mask in /proc, without the two that the C library keeps for itself."""
    return {n for n in range(1, 65) if int(mask, 16) >> (n - 1) & 1} - {32, 33}


@each
def test_exit_codes_and_signals_are_told_apart(kind: str, tmp_path: Path) -> None:
    async def story(ground: Ground) -> None:
        ground.sh(1, "exit 0")
        ground.sh(2, "exit 3")
        ground.sh(3, "exit 255")
        ground.sh(4, "kill -KILL $$")
        ground.sh(5, "kill -TERM $$")
        got = [await ground.ended(n) for n in range(1, 6)]
        assert [e.exit for e in got] == [0, 3, 255, -signal.SIGKILL, -signal.SIGTERM]
        assert {e.cause for e in got} == {"exit"}
        assert {e.error for e in got} == {""}

    play(story, tmp_path, kind)


@both
def test_started_comes_before_ended_and_times_are_in_order(kind: str, tmp_path: Path) -> None:
    async def story(ground: Ground) -> None:
        for n in range(1, 9):
            ground.sh(n, "true")
        for n in range(1, 9):
            end, start = await ground.ended(n), await ground.wait(Started, n)
            assert ground.said.index(start) < ground.said.index(end)
            assert 0 <= end.at - start.at < 15_000
            assert start.ticks <= end.ticks
            assert end.took is not None
            assert 0 <= end.took <= end.ticks - start.ticks + 1
            assert 0 <= start.slot < 4

    play(story, tmp_path, kind)


def test_what_does_not_fit_waits_in_order_and_takes_as_many_slots_as_it_needs(
    tmp_path: Path,
) -> None:
    async def story(ground: Ground) -> None:
        gates = [tmp_path / f"gate{n}" for n in range(6)]
        script = "echo; until [ -e {} ]; do sleep 0.01; done"

        def launch(n: int, slots: int) -> None:
            ground.launch(n, "/bin/sh", "-c", script.format(gates[n]), slots=slots)

        for n, slots in ((1, 3), (2, 2), (3, 1), (4, 1), (5, 9)):
            launch(n, slots)
        assert "9 slots of 4" in (await ground.ended(5)).error
        await ground.wait(Started, 1)
        gates[3].touch()
        gates[1].touch()
        # The third would have fitted beside the first; it waits behind the second.
        await ground.ended(1)
        await ground.ended(3)
        starts = [notice.n for notice in ground.said if isinstance(notice, Started)]
        assert starts[:3] == [1, 2, 3]
        assert ground.count(Ended, 2) == 0
        ground.end(4)
        gates[2].touch()
        assert (await ground.ended(2)).exit == 0
        await ground.ended(4)

    play(story, tmp_path, "subreaper")


@both
def test_output_is_kept_byte_for_byte_under_the_name_of_the_attempt(
    kind: str, tmp_path: Path
) -> None:
    program = (
        "import os, sys; os.write(1, bytes(range(256)) * 300); os.write(2, b'\\xff\\x00e');"
        "open(os.environ['GRAMPUS_OUTPUT'], 'wb').write(b'a=1\\n')"
    )

    async def story(ground: Ground) -> None:
        ground.launch(1, sys.executable, "-c", program)
        end = await ground.ended(1)
        assert (end.exit, end.stdout, end.stderr, end.output) == (0, 256 * 300, 3, True)
        assert ground.file(1, "out").read_bytes() == bytes(range(256)) * 300
        assert ground.file(1, "err").read_bytes() == b"\xff\x00e"
        assert end.small == b"a=1\n"
        ground.sh(2, "yes '' | head -c 5000 >$GRAMPUS_OUTPUT")
        end = await ground.ended(2)
        assert (end.exit, end.output, end.small) == (0, True, None)
        assert ground.file(2, "output").read_bytes() == b"\n" * 5000
        assert {p.stat().st_mode & 0o777 for p in ground.attempts.rglob("*.*")} <= {0o600}
        ground.sh(3, "cat $GRAMPUS_OUTPUT; echo b=2 >>$GRAMPUS_OUTPUT")
        end = await ground.ended(3)
        assert (end.stdout, end.small) == (0, b"b=2\n")
        ground.sh(4, f"cd {tmp_path}; cat $GRAMPUS_OUTPUT; echo c=3 >new; mv new $GRAMPUS_OUTPUT")
        end = await ground.ended(4)
        assert (end.stdout, end.small) == (0, b"c=3\n")
        (tmp_path / "mine").write_text("precious")
        ground.sh(5, f"cat $GRAMPUS_OUTPUT; ln -f {tmp_path}/mine $GRAMPUS_OUTPUT")
        ground.sh(6, "cat $GRAMPUS_OUTPUT")
        assert (await ground.ended(5)).small == b"precious"
        end = await ground.ended(6)
        assert (end.stdout, end.output) == (0, False)
        assert (tmp_path / "mine").read_text() == "precious"

    play(story, tmp_path, kind)


@both
def test_what_was_not_written_makes_no_file_and_nothing_leaks_to_the_next(
    kind: str, tmp_path: Path
) -> None:
    async def story(ground: Ground) -> None:
        ground.sh(1, "echo one; echo k=1 >> $GRAMPUS_OUTPUT")
        await ground.ended(1)
        ground.sh(2, "true")
        end = await ground.ended(2)
        assert (end.stdout, end.stderr, end.output) == (0, 0, False)
        ground.sh(3, "echo three >&2; test ! -s $GRAMPUS_OUTPUT")
        end = await ground.ended(3)
        assert (end.exit, end.stdout, end.stderr, end.output) == (0, 0, 6, False)
        kept = sorted(p.name for p in (ground.attempts / "run").iterdir())
        assert kept == ["task.1.out", "task.3.err"]

    play(story, tmp_path, kind, slots=1)


@both
def test_a_program_that_closes_removes_or_replaces_its_files_disturbs_nobody(
    kind: str, tmp_path: Path
) -> None:
    async def story(ground: Ground) -> None:
        scripts = (
            "exec >&- 2>&-; exit 4",
            "rm -f $GRAMPUS_OUTPUT; exit 4",
            "rm -f $GRAMPUS_OUTPUT; mkdir -p $GRAMPUS_OUTPUT/x; exit 4",
            "rm -f $GRAMPUS_OUTPUT; ln -s /etc/hostname $GRAMPUS_OUTPUT; exit 4",
            "rm -f ${GRAMPUS_OUTPUT%put}put ${GRAMPUS_OUTPUT%put*}; echo lost; exit 4",
            "rm -f $(dirname $GRAMPUS_OUTPUT)/slot0.*; exit 4",
        )
        for n, script in enumerate(scripts, 1):
            ground.sh(n, script)
            end = await ground.ended(n)
            assert (end.cause, end.exit, end.output) == ("exit", 4, False), script
        ground.sh(50, "echo well; echo k=1 > $GRAMPUS_OUTPUT")
        end = await ground.ended(50)
        assert (end.exit, end.stdout, end.output) == (0, 5, True)
        assert ground.file(50, "out").read_text() == "well\n"

    play(story, tmp_path, kind, slots=1)


@each
def test_an_attempt_gets_its_folder_its_environment_and_nothing_else(
    kind: str, tmp_path: Path
) -> None:
    show = (
        "import os, signal; print(os.getcwd()); print(sorted(os.environ));"
        "print(sorted(os.listdir('/proc/self/fd'))[:-1]); print(os.readlink('/proc/self/fd/0'));"
        "print(os.getsid(0) == os.getpid(), signal.pthread_sigmask(0, []) == set());"
        "print(open('/proc/self/status').read().split('SigIgn:')[1].split()[0])"
    )

    async def story(ground: Ground) -> None:
        ground.launch(1, sys.executable, "-I", "-S", "-c", show, env={"A": "é"}, cwd="/usr")
        end = await ground.ended(1)
        assert end.exit == 0, ground.file(1, "err").read_text()
        lines = ground.file(1, "out").read_text().splitlines()
        assert lines[0] == "/usr"
        names = {"A", "GRAMPUS_MARK", "GRAMPUS_OUTPUT", "PATH"}
        assert set(eval(lines[1])) - {"LC_CTYPE"} == names
        assert lines[2:5] == ["['0', '1', '2']", "/dev/null", "True True"]
        # Python itself ignores SIGPIPE and SIGXFSZ, nobody else ignored anything.
        assert ignored(lines[5]) == {signal.SIGPIPE, signal.SIGXFSZ}

    play(story, tmp_path, kind)


@both
def test_a_shell_does_not_inherit_ignored_signals(kind: str, tmp_path: Path) -> None:
    async def story(ground: Ground) -> None:
        ground.sh(1, "grep SigIgn /proc/self/status")
        await ground.ended(1)
        assert ignored(ground.file(1, "out").read_text().split()[1]) == set()

    play(story, tmp_path, kind)


def test_in_a_pid_namespace_proc_shows_only_ones_own(tmp_path: Path) -> None:
    async def story(ground: Ground) -> None:
        ground.sh(1, "ls -d /proc/[0-9]* | wc -l; readlink /proc/self/exe >/dev/null && echo $$")
        await ground.ended(1)
        count, pid = map(int, ground.file(1, "out").read_text().split())
        assert count <= 4
        assert pid < 1000
        assert len(os.listdir("/proc")) > 4

    play(story, tmp_path, "pid-namespace")


@each
def test_what_cannot_be_started_says_why(kind: str, tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("no program")
    (tmp_path / "plain").chmod(0o600)
    (tmp_path / "text").write_text("echo hello\n")
    (tmp_path / "text").chmod(0o755)
    cases: list[tuple[list[str], str, str]] = [
        (["no-such-program"], "/", "no such program in PATH"),
        (["/no/such/program"], "/", "No such file or directory"),
        (["true"], "/no/such/folder", "cannot enter the folder '/no/such/folder'"),
        ([str(tmp_path / "plain")], "/", "Permission denied"),
        ([str(tmp_path / "text")], "/", "Exec format error"),
        (["true", "a\0b"], "/", "null"),
        ([], "/", "the command is empty"),
        (["/bin/true", "x" * 200_000], "/", "Argument list too long"),
        (["/usr"], "/", "Permission denied"),
    ]

    async def story(ground: Ground) -> None:
        for n, (argv, cwd, _) in enumerate(cases):
            ground.launch(n, *argv, cwd=cwd)
        for n, (argv, _, reason) in enumerate(cases):
            end = await ground.ended(n)
            assert (end.cause, end.exit) == ("spawn", None), argv[:1]
            assert reason in end.error
            assert len(end.error) < 500
        ground.sh(100, "exit 7")
        assert (await ground.ended(100)).exit == 7

    play(story, tmp_path, kind, slots=2)


@both
def test_a_stem_that_leaves_the_folder_is_refused(kind: str, tmp_path: Path) -> None:
    from grampus.worker.orders import Launch

    async def story(ground: Ground) -> None:
        for n, stem in enumerate(("../x", "/etc/x", "a//b", "", "a/./b", "a\0b")):
            ground.client.send(Launch(n, ["/bin/echo", "hi"], {}, "/", None, 0, stem))
            end = await ground.ended(n)
            assert end.cause == "unable"
            assert "cannot name files" in end.error

    play(story, tmp_path, kind)


@both
def test_a_large_environment_and_many_arguments_pass(kind: str, tmp_path: Path) -> None:
    async def story(ground: Ground) -> None:
        env = {f"V{k}": "x" * 100_000 for k in range(8)}
        ground.launch(1, "/bin/sh", "-c", "echo $# ${#V7}", "sh", *(["a"] * 20_000), env=env)
        assert (await ground.ended(1)).error == ""
        assert ground.file(1, "out").read_text() == "20000 100000\n"

    play(story, tmp_path, kind)


@each
def test_launches_beyond_the_slots_wait_and_a_used_number_starts_nothing(
    kind: str, tmp_path: Path
) -> None:
    async def story(ground: Ground) -> None:
        ground.sh(1, "sleep 0.2; echo first")
        ground.sh(1, "echo twin")
        ground.sh(2, "echo second")
        ground.sh(2, "echo twin")
        assert (await ground.ended(2)).exit == 0
        assert ground.file(1, "out").read_text() == "first\n"
        assert ground.file(2, "out").read_text() == "second\n"
        assert (ground.count(Ended, 1), ground.count(Ended, 2)) == (1, 1)
        ground.sh(1, "echo again > $(dirname $GRAMPUS_OUTPUT)/ran")
        ground.sh(3, "true")
        await ground.ended(3)
        late = [x for x in ground.said if isinstance(x, Ended) and x.n == 1]
        assert (late[1].cause, late[1].error) == ("unable", "number 1 was used before")
        assert not (ground.attempts / "ran").exists()

    play(story, tmp_path, kind, slots=1)


@each
def test_a_thousand_attempts_leave_no_descriptor_and_no_process(kind: str, tmp_path: Path) -> None:
    async def story(ground: Ground) -> None:
        def census() -> list[int]:
            shims = children(ground.client.pid)
            return [descriptors(p) for p in (ground.client.pid, *sorted(shims))]

        for n in range(1, 51):
            ground.launch(n, "/bin/true")
            if n % 4 == 0:
                await ground.ended(n)
        for n in range(1, 51):
            await ground.ended(n)
        before = census()
        launched = 50
        for n in range(51, 1051):
            while launched < min(n + 3, 1050):
                launched += 1
                ground.launch(launched, "/bin/true")
            end = await ground.ended(n)
            assert (end.cause, end.exit) == ("exit", 0)
            ground.said.remove(end)
        assert census() == before
        assert all(not children(shim) for shim in children(ground.client.pid))

    play(story, tmp_path, kind)


@pytest.mark.skipif(importlib.util.find_spec("numpy") is None, reason="numpy is not installed")
@both
def test_numpy_computes_in_an_attempt(kind: str, tmp_path: Path) -> None:
    program = "import numpy as np; a = np.ones((500, 500)); print(int((a @ a)[0, 0]))"

    async def story(ground: Ground) -> None:
        env = {"PYTHONPATH": ":".join(p for p in sys.path if p)}
        for n in (1, 2):
            ground.launch(n, sys.executable, "-c", program, env=env, timeout=20_000)
            end = await ground.ended(n, 25)
            assert (end.cause, end.exit) == ("exit", 0), ground.file(n, "err").read_text()
            assert ground.file(n, "out").read_text() == "500\n"

    play(story, tmp_path, kind)
