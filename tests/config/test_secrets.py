from pathlib import Path

import pytest

from epp.config.secrets import Secrets


def test_a_key_file_is_read_once_without_blanks_at_its_ends(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"0123456789abcdef\n")
    secrets = Secrets()
    assert secrets.get(str(path)) == b"0123456789abcdef"
    path.unlink()
    assert secrets.get(str(path)) == b"0123456789abcdef"
    assert repr(secrets) == "Secrets(1)"


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b" 0123456789abcde\n", "found 15 bytes in the key file "),
        (b"x" * 4097, "found more bytes in the key file "),
    ],
)
def test_a_key_of_another_size_is_refused(data: bytes, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=f"^{problem}.*; expected 16 to 4096$"):
        Secrets().get(str(path))


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^cannot read the key file .*/no: No such file"):
        Secrets().get(str(tmp_path / "no"))
    with pytest.raises(ValueError, match=r"^cannot read the key file "):
        Secrets().get("a\0b")
