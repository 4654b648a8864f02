import os
from pathlib import Path

import pytest

from epp.discovery import directory
from epp.discovery.directory import Entry, read_directories, scan


def names(path: Path) -> list[str]:
    return [Path(entry.path).name for entry in scan([path])]


def test_files_that_count(tmp_path: Path) -> None:
    for name in ("b.yaml", "a.json", "c.yml", ".hidden.yaml", "d.yaml~", "e.txt", "YAML"):
        (tmp_path / name).write_text("x")
    inner = tmp_path / "inner"
    inner.mkdir()
    (inner / "f.yaml").write_text("x")
    assert names(tmp_path) == ["a.json", "b.yaml", "c.yml"]


def test_directories_are_read_in_the_order_given(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.yaml").write_text(name)
    found = read_directories([tmp_path / "two", tmp_path / "one"])
    assert [file.data for file in found.files] == [b"two", b"one"]
    assert found.problems == ()


def test_a_snapshot_is_equal_when_the_bytes_are(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("one")
    first = read_directories([tmp_path])
    file.unlink()
    file.write_text("one")
    os.utime(file, ns=(1, 1))
    second = read_directories([tmp_path])
    assert first.signature != second.signature
    assert first.digest == second.digest
    file.rename(tmp_path / "b.yaml")
    third = read_directories([tmp_path])
    assert third.digest != second.digest


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "one").write_text("1")
    (tmp_path / "two").write_text("2")
    link = tmp_path / "a.yaml"
    link.symlink_to("one")
    before = read_directories([tmp_path])
    link.unlink()
    link.symlink_to("two")
    after = read_directories([tmp_path])
    assert before.signature != after.signature
    assert [file.data for file in (*before.files, *after.files)] == [b"1", b"2"]


def test_what_cannot_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory, "_MAX_FILE_BYTES", 10)
    (tmp_path / "a.yaml").write_text("x" * 11)
    (tmp_path / "b.yaml").mkdir()
    (tmp_path / "c.yaml").symlink_to("nowhere")
    os.mkfifo(tmp_path / "d.yaml")
    (tmp_path / "e.yaml").write_text("x" * 10)
    found = read_directories([tmp_path, tmp_path / "none", tmp_path / "e.yaml"])
    assert [file.data for file in found.files] == [b"x" * 10]
    assert found.problems == (
        f"{tmp_path}/a.yaml: found 11 bytes; expected up to 10",
        f"{tmp_path}/b.yaml: not a regular file; expected a file with manifests",
        f"{tmp_path}/c.yaml: cannot be read: No such file or directory",
        f"{tmp_path}/d.yaml: not a regular file; expected a file with manifests",
        f"{tmp_path}/none: cannot be read: No such file or directory",
        f"{tmp_path}/e.yaml: cannot be read: Not a directory",
    )


def test_the_number_of_files_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory, "_MAX_FILES", 2)
    for name in "abc":
        (tmp_path / f"{name}.yaml").write_text("x")
    assert read_directories([tmp_path]).problems == (
        f"{tmp_path}: found 3 manifest files; expected up to 2",
    )


def test_the_size_of_all_files_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory, "_MAX_TOTAL_BYTES", 10)
    for name in "ab":
        (tmp_path / f"{name}.yaml").write_text("x" * 6)
    found = read_directories([tmp_path])
    assert found.files == ()
    assert found.problems == ("found 12 bytes in all files; expected up to 10",)


def test_a_file_that_vanishes_after_the_scan_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ghost = Entry(str(tmp_path / "a.yaml"), size_bytes=1)
    monkeypatch.setattr(directory, "scan", lambda _directories: (ghost,))
    assert read_directories([tmp_path]).problems == (
        f"{tmp_path}/a.yaml: cannot be read: No such file or directory",
    )


def test_a_file_that_changes_while_it_is_read_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("first")
    real_read = directory._read
    reads = 0

    def read(entries: tuple[Entry, ...]) -> object:
        nonlocal reads
        reads += 1
        found = real_read(entries)
        if reads == 1:
            file.write_text("second, longer")
        return found

    monkeypatch.setattr(directory, "_read", read)
    found = read_directories([tmp_path])
    assert [file.data for file in found.files] == [b"second, longer"]
    assert found.signature == scan([tmp_path])
    assert reads == 2


def test_files_that_never_stand_still_are_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("")
    real_read = directory._read

    def read(entries: tuple[Entry, ...]) -> object:
        file.write_text(file.read_text() + "x")
        return real_read(entries)

    monkeypatch.setattr(directory, "_read", read)
    found = read_directories([tmp_path])
    assert found.files == ()
    assert found.problems == (f"{tmp_path}: the files change faster than they can be read",)
