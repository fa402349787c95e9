import jax
import numpy as np
import pytest

from qlstm_jax.data.formal import TASKS

from . import oracles
from .compiled import label, mixed

NAMES = list(TASKS)
SHORT = [*range(1, 13), 40, 41]
LONG = [127, 300, 499, 500]

TABLE = {
    "even_pairs": ("regular", 2, 2),
    "parity_check": ("regular", 2, 2),
    "modular_arithmetic": ("regular", 9, 5),
    "cycle_navigation": ("regular", 3, 5),
    "modular_arithmetic_brackets": ("dcf", 11, 5),
    "solve_equation": ("dcf", 11, 5),
    "stack_manipulation": ("dcf", 5, 3),
    "reverse_string": ("dcf", 2, 2),
    "duplicate_string": ("cs", 2, 2),
    "missing_duplicate_string": ("cs", 4, 2),
    "odds_first": ("cs", 2, 2),
    "binary_addition": ("cs", 3, 3),
    "binary_multiplication": ("cs", 3, 3),
    "compute_sqrt": ("cs", 2, 2),
    "bucket_sort": ("cs", 5, 5),
}

# input, output, mask where it is not all ones; a dot separates symbols of two digits.
LITERALS = {
    "even_pairs": [("0", "0"), ("10", "1"), ("0110", "0"), ("01011", "1"), ("0011111011", "1")],
    "parity_check": [("1", "1"), ("11", "0"), ("0111", "1"), ("1011100", "0"), ("1010101100", "1")],
    "modular_arithmetic": [("3", "3"), ("270", "0"), ("165", "1"), ("35460", "2"), ("46372", "3")],
    "cycle_navigation": [("0", "4"), ("22", "2"), ("011", "4"), ("1110221", "1"), ("1210220122", "3")],
    "modular_arithmetic_brackets": [
        ("3", "3"),
        ("61", "4"),
        ("829", "2"),
        ("8629", "3"),
        ("84729", "3"),
        ("8829709", "0"),
        ("8637629", "1"),
        ("8809586499", "1"),
    ],
    "solve_equation": [
        ("0", "0"),
        ("0.0", "0"),
        ("9.10.2", "2"),
        ("6.9.10.3", "2"),
        ("7.9.8.10.4", "4"),
        ("7.6.9.8.10.4", "1"),
        ("7.0.6.9.8.10.2", "3"),
        ("7.9.6.7.6.0.8.8.10.1", "1"),
    ],
    "stack_manipulation": [
        ("1", "12"),
        ("12", "200", "100"),
        ("03", "002"),
        ("122", "2000", "1000"),
        ("1224", "12000", "11000"),
        ("12242", "200000", "100000"),
        ("1000001004", "10010000012"),
        ("1332243", "01120000", "11110000"),
    ],
    "reverse_string": [("1", "1"), ("10", "01"), ("0110100", "0010110")],
    "duplicate_string": [("1", "11"), ("10", "1010"), ("01011", "0101101011")],
    "missing_duplicate_string": [
        ("1", "1"),
        ("12", "1"),
        ("20", "0"),
        ("123", "1"),
        ("2101", "0"),
        ("1021010110", "1"),
        ("11213", "1"),
    ],
    "odds_first": [("1", "1"), ("10", "01"), ("011", "101"), ("1011100001", "0100111100")],
    "binary_addition": [
        ("0", "02"),
        ("00", "020", "110"),
        ("10", "120", "110"),
        ("01", "012"),
        ("121", "0120", "1110"),
        ("1021", "01200", "11100"),
        ("12111", "000120", "111110"),
        ("0121", "11200", "11100"),
    ],
    "binary_multiplication": [
        ("0", "2"),
        ("01", "02"),
        ("121", "120", "110"),
        ("0121", "0120", "1110"),
        ("11211", "10012"),
        ("10121", "10120", "11110"),
    ],
    "compute_sqrt": [
        ("1", "1"),
        ("10", "1"),
        ("101", "10"),
        ("1001", "11"),
        ("10100", "100"),
        ("01000", "010"),
    ],
    "bucket_sort": [("3", "3"), ("42", "24"), ("040", "004"), ("41430", "01344")],
}


def parse(text):
    return [int(symbol) for symbol in (text.split(".") if "." in text else text)]


def pad(rows, width):
    return np.array([list(row) + [0] * (width - len(row)) for row in rows], np.int32)


def rows(batch):
    """The rows of a batch without their padding, as lists: (ids, targets, mask)."""
    for ids, n, targets, m, mask in zip(
        batch.ids, batch.lengths, batch.targets, batch.target_lengths, batch.mask, strict=True
    ):
        assert not ids[n:].any() and not targets[m:].any() and not mask[m:].any()
        yield ids[:n].tolist(), targets[:m].tolist(), mask[:m].tolist()


def test_the_table_of_tasks():
    assert {name: (task.level, task.input_size, task.output_size) for name, task in TASKS.items()} == TABLE
    assert all(task.name == name for name, task in TASKS.items())


@pytest.mark.parametrize("name", NAMES)
def test_output_length_of_ints_and_arrays(name):
    task, lengths = TASKS[name], [1, 2, 3, 4, 7, 40, 41]
    expected = [oracles.output_length(name, n) for n in lengths]
    assert [task.output_length(n) for n in lengths] == expected
    assert all(type(task.output_length(n)) is int for n in lengths)
    np.testing.assert_array_equal(jax.jit(task.output_length)(np.array(lengths, np.int32)), expected)


@pytest.mark.parametrize("name", NAMES)
def test_literal_strings(name):
    cases = [[parse(part) for part in case] for case in LITERALS[name]]
    inputs, outputs = [case[0] for case in cases], [case[1] for case in cases]
    lengths = [len(ids) for ids in inputs]
    targets, target_lengths = label(name, pad(inputs, max(lengths)), lengths)
    np.testing.assert_array_equal(targets, pad(outputs, targets.shape[1]))
    np.testing.assert_array_equal(target_lengths, [len(output) for output in outputs])
    mask = np.asarray(TASKS[name].accuracy_mask(targets))
    for row, case in enumerate(cases):
        counted = case[2] if len(case) == 3 else [1] * len(case[1])
        np.testing.assert_array_equal(mask[row, : len(counted)], counted)


@pytest.mark.parametrize("name", NAMES)
def test_reference_vectors(name, goldens):
    vectors, task = np.load(goldens / f"task_{name}.npz"), TASKS[name]
    nominal = sorted(int(key.removeprefix("in_ids_L")) for key in vectors if key.startswith("in_ids_L"))
    inputs = [vectors[f"in_ids_L{n}"] for n in nominal]
    width = max(ids.shape[1] for ids in inputs)
    padded = np.concatenate([pad(ids, width) for ids in inputs])
    lengths = np.concatenate([np.full(len(ids), ids.shape[1], np.int32) for ids in inputs])
    targets, target_lengths = label(name, padded, lengths)
    masks = np.asarray(task.accuracy_mask(targets))
    start = 0
    for n, ids in zip(nominal, inputs, strict=True):
        m = task.output_length(ids.shape[1])
        here = slice(start, start + len(ids))
        np.testing.assert_array_equal(targets[here, :m], vectors[f"out_ids_L{n}"].reshape(-1, m))
        np.testing.assert_array_equal(masks[here, :m], vectors[f"mask_L{n}"].reshape(-1, m))
        np.testing.assert_array_equal(target_lengths[here], m)
        assert task.input_length(n) == ids.shape[1]
        start += len(ids)
    assert start == len(targets) > 0


@pytest.mark.parametrize("lengths", [SHORT, LONG], ids=["short", "long"])
@pytest.mark.parametrize("name", NAMES)
def test_samples_are_valid_and_labelled_as_in_plain_python(name, lengths):
    batch = mixed(name, tuple(lengths), 256 if lengths is SHORT else 24)
    expected_lengths = [TASKS[name].input_length(n) for n in lengths]
    np.testing.assert_array_equal(batch.lengths, np.resize(expected_lengths, len(batch.lengths)))
    assert batch.ids.shape[1] == max(lengths)
    assert batch.targets.shape[1] == TASKS[name].output_length(max(lengths))
    for ids, targets, mask in rows(batch):
        assert oracles.valid(name, ids), ids
        assert targets == getattr(oracles, name)(ids), ids
        assert mask == oracles.mask(name, targets), ids


@pytest.mark.parametrize("name", NAMES)
def test_padding_says_nothing(name):
    task, batch = TASKS[name], mixed(name, tuple(SHORT))
    rng = np.random.default_rng(0)
    padding = np.arange(batch.ids.shape[1])[None] >= batch.lengths[:, None]
    noise = rng.integers(0, task.input_size, batch.ids.shape).astype(np.int32)
    targets, target_lengths = label(name, np.where(padding, noise, batch.ids), batch.lengths)
    np.testing.assert_array_equal(targets, batch.targets)
    np.testing.assert_array_equal(target_lengths, batch.target_lengths)


@pytest.mark.parametrize("name", NAMES)
def test_target_of_exact_rows_equals_label_of_padded_rows(name):
    task, batch = TASKS[name], mixed(name, tuple(SHORT))
    lengths = [1, 7 if name == "modular_arithmetic" else 8]
    here = [batch.lengths == n for n in lengths]
    inputs = [batch.ids[rows_n, :n] for rows_n, n in zip(here, lengths, strict=True)]
    outputs = jax.jit(lambda *strings: [task.target(ids) for ids in strings])(*inputs)
    for rows_n, n, output in zip(here, lengths, outputs, strict=True):
        m = task.output_length(n)
        assert rows_n.sum() >= 16 and output.shape == (rows_n.sum(), m) and output.dtype == np.int32
        np.testing.assert_array_equal(output, batch.targets[rows_n, :m])


@pytest.mark.parametrize("name", ["bucket_sort", "solve_equation"])
def test_eager_labels_equal_compiled_ones(name):
    batch = mixed(name, tuple(SHORT))
    targets, target_lengths = TASKS[name].label(batch.ids, batch.lengths)
    np.testing.assert_array_equal(targets, batch.targets)
    np.testing.assert_array_equal(target_lengths, batch.target_lengths)
