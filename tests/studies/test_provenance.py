import json
import re

from qlstm_jax.studies.provenance import command, provenance, without_folders


def test_a_record_says_where_it_comes_from():
    record = json.loads(json.dumps(provenance()))
    assert set(record) >= {"command", "python", "jax", "flax", "qlstm_jax", "processor", "cores", "commit"}
    assert record["commit"] is None or re.fullmatch(r"[0-9a-f]{12}\+?", record["commit"])
    assert record["cores"] >= 1 and record["processor"]


def test_folders_of_a_machine_are_left_out():
    assert without_folders("text.path=/home/me/data/my.csv") == "text.path=my.csv"
    assert without_folders("--out results/imdb") == "--out results/imdb"
    argv = ["/somewhere/qlstm_jax/studies/study.py", "imdb", "--set", "text.path=/a/b/aclImdb", "lm.length=64"]
    assert command(argv) == "python -m qlstm_jax.studies.study imdb --set text.path=aclImdb lm.length=64"
