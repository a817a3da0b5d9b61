"""`spectrafuse.io.atomic`: a target is the old one or the whole new one, whatever happens in between."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from spectrafuse.io.atomic import atomic_folder, atomic_write


def tree(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()}


def stop_halfway(path: Path, error: type[BaseException]) -> None:
    path.write_text("half")
    raise error


def test_write_makes_folders_and_replaces(tmp_path: Path) -> None:
    target = tmp_path / "a" / "b" / "x.txt"
    for text in ("first", "second"):
        with atomic_write(target) as temporary:
            assert temporary.parent == target.parent
            assert temporary.suffix == ".txt"
            temporary.write_text(text)
            assert not target.exists() or target.read_text() == "first"
        assert target.read_text() == text
    assert tree(tmp_path) == {"a/b/x.txt": "second"}


@pytest.mark.parametrize("name", ["x.npy", "x.npz", "no_suffix", "a" * 250 + ".npy", ".hidden"])
def test_write_with_any_name(tmp_path: Path, name: str) -> None:
    with atomic_write(tmp_path / name) as temporary, temporary.open("wb") as file:
        np.save(file, np.arange(3))
    assert [p.name for p in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_failed_write_leaves_the_old_file(tmp_path: Path, error: type[BaseException]) -> None:
    target = tmp_path / "x.txt"
    target.write_text("old")
    with pytest.raises(error), atomic_write(target) as temporary:
        stop_halfway(temporary, error)
    assert tree(tmp_path) == {"x.txt": "old"}


def test_write_without_writing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="Nothing was written"), atomic_write(tmp_path / "x.txt"):
        pass
    assert tree(tmp_path) == {}


def test_write_over_a_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError, match="is a folder"), atomic_write(tmp_path):
        pass


def test_write_follows_links_and_keeps_permissions(tmp_path: Path) -> None:
    real, link = tmp_path / "real.txt", tmp_path / "link.txt"
    real.write_text("old")
    real.chmod(0o640)
    link.symlink_to(real)
    with atomic_write(link) as temporary:
        temporary.write_text("new")
    assert link.is_symlink()
    assert real.read_text() == "new"
    assert real.stat().st_mode & 0o777 == 0o640


def test_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    target = tmp_path / "model.v1"
    for round_ in range(2):
        with atomic_folder(target) as temporary:
            (temporary / "inner").mkdir()
            (temporary / "inner" / f"{round_}.txt").write_text(str(round_))
            assert target.exists() == (round_ == 1)
    assert tree(tmp_path) == {"model.v1/inner/1.txt": "1"}
    assert [p.name for p in tmp_path.iterdir()] == ["model.v1"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("existing", [True, False])
def test_failed_folder_leaves_the_old_one(tmp_path: Path, existing: bool, error: type[BaseException]) -> None:
    target = tmp_path / "model"
    if existing:
        target.mkdir()
        (target / "x").write_text("old")
    with pytest.raises(error), atomic_folder(target) as temporary:
        stop_halfway(temporary / "x", error)
    assert tree(tmp_path) == ({"model/x": "old"} if existing else {})
    assert len(list(tmp_path.iterdir())) == int(existing)


def test_folder_comes_back_when_the_second_rename_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "model"
    target.mkdir()
    (target / "x").write_text("old")
    rename, calls = os.rename, []

    def failing(old: str, new: str) -> None:
        calls.append(new)
        if len(calls) == 2:
            raise OSError("no space")
        rename(old, new)

    monkeypatch.setattr(os, "rename", failing)
    with pytest.raises(OSError, match="no space"), atomic_folder(target) as temporary:
        (temporary / "x").write_text("new")
    assert tree(tmp_path) == {"model/x": "old"}
    assert len(list(tmp_path.iterdir())) == 1


def test_folder_over_a_file_is_an_error(tmp_path: Path) -> None:
    target = tmp_path / "x"
    target.write_text("old")
    with pytest.raises(NotADirectoryError, match="is a file"), atomic_folder(target):
        pass
    assert tree(tmp_path) == {"x": "old"}


@pytest.mark.process
def test_a_killed_writer_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "x.txt"
    target.write_text("old")
    script = (
        "import os, signal, sys\n"
        "from spectrafuse.io.atomic import atomic_write\n"
        "with atomic_write(sys.argv[1]) as temporary:\n"
        "    temporary.write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(target)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert target.read_text() == "old"
