cat >test_squares.py <<'END'
import pytest

@pytest.mark.parametrize("number", range(12))
def test_square(number, tmp_path):
    (tmp_path / "square").write_text(str(number ** 2))
    assert int((tmp_path / "square").read_text()) == number * number
END
python3 -m pytest -n 2 -q
