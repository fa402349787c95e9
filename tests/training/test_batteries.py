"""The batteries of scripts/battery.py in short: a run is killed in and between its saves, checkpoints are damaged."""

from scripts import battery


def test_killed_runs_lose_nothing(tmp_path):
    fell, lost = battery.kills(1, 5, tmp_path, kinds=("lm",))
    assert lost == []
    assert sum(number for place, number in fell.items() if "compared" not in place) == 1


def test_damaged_checkpoints_are_known(tmp_path):
    outcomes, lost = battery.checkpoints(6, 2, tmp_path)
    assert lost == []
    assert sum(outcomes.values()) == 6
    assert len({what.rpartition(": ")[2] for what in outcomes}) >= 3  # identical, the one before, refused
