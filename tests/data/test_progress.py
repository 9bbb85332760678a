from mmrobust.data import progress
from mmrobust.data.progress import told


def test_only_what_takes_long_is_told(monkeypatch, capsys):
    assert list(told([1, 2, 3], "rows")) == [1, 2, 3]
    assert capsys.readouterr().err == ""
    clock = iter(range(0, 600, 2))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    assert list(told(list(range(6)), "rows")) == [0, 1, 2, 3, 4, 5]
    assert capsys.readouterr().err.splitlines() == ["rows: 2 of 6", "rows: 5 of 6"]
    monkeypatch.setenv("RANK", "1")
    assert list(told([1, 2, 3], "rows")) == [1, 2, 3]
    assert capsys.readouterr().err == ""
