import sys

import jax
import numpy as np
import pytest

from qlstm_jax.data import digits
from qlstm_jax.data.rows import DataError

RNG = np.random.default_rng(0)
IMAGES, LABELS = RNG.uniform(size=(5, 8, 8)).astype(np.float32), np.array([3, 1, 4, 1, 9], np.int32)


def test_the_images_of_scikit_learn():
    images, labels = digits.load()
    assert images.shape == (1797, 8, 8) and images.dtype == np.float32 and labels.dtype == np.int32
    assert images.min() == 0 and images.max() == 1 and set(labels.tolist()) == set(range(10))
    from sklearn.datasets import load_digits

    np.testing.assert_allclose(images.reshape(1797, 64) * 16, load_digits().data)


def test_a_missing_scikit_learn_is_told_with_its_mend(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(DataError, match="not installed; pip install scikit-learn"):
        digits.load()


def test_parts_are_disjoint_whole_and_by_seed():
    images, labels = np.arange(50)[:, None], np.arange(50) % 10
    parts, same, other = (digits.split(images, labels, validation=0.1, test=0.2, seed=s) for s in (0, 0, 1))
    assert {name: len(part[0]) for name, part in parts.items()} == {"test": 10, "validation": 5, "train": 35}
    assert sorted(np.concatenate([part[0][:, 0] for part in parts.values()])) == list(range(50))
    for name, (found, labelled) in parts.items():
        np.testing.assert_array_equal(labelled, found[:, 0] % 10)
        np.testing.assert_array_equal(found, same[name][0])
    assert not np.array_equal(parts["test"][0], other["test"][0])


@pytest.mark.parametrize(
    ("shares", "message"), [((0, 0.2), "shares above 0"), ((0.01, 0.2), "left for the validation")]
)
def test_shares_that_leave_nothing(shares, message):
    with pytest.raises(DataError, match=message):
        digits.split(IMAGES, LABELS, validation=shares[0], test=shares[1], seed=0)


def test_pixels_come_row_by_row_from_images_drawn_alike():
    task = digits.Pixels()
    batch = jax.jit(task.sample, static_argnums=1)(jax.random.key(0), 1000, IMAGES, LABELS)
    rows = {tuple(image.reshape(64).tolist()): n for n, image in enumerate(IMAGES)}
    chosen = [rows[tuple(row[:, 0].tolist())] for row in np.asarray(batch.inputs)]
    np.testing.assert_array_equal(batch.labels, LABELS[chosen])
    assert np.abs(np.bincount(chosen) - 200).max() < 70  # deviation 13
    assert batch.inputs.shape == (1000, task.length, task.channels)


def way(start, velocity, frames, reach):
    """A ball's positions between walls at 0 and `reach`, in tiny moves that turn round at a wall."""
    position, direction, positions, pieces = float(start), 1.0, [], 10_000
    for _ in range(frames):
        positions.append(position)
        for _ in range(pieces):
            position += direction * velocity / pieces
            if not 0 <= position <= reach:
                position -= 2 * direction * velocity / pieces
                direction = -direction
    return positions


def placed(image, row, column, canvas):
    """Each pixel split over the four of the canvas that it lies on."""
    frame = np.zeros((canvas + 1, canvas + 1))
    for i in range(8):
        for j in range(8):
            y, x = row + i, column + j
            a, b = int(np.floor(y)), int(np.floor(x))
            for dy, share_y in ((0, 1 - (y - a)), (1, y - a)):
                for dx, share_x in ((0, 1 - (x - b)), (1, x - b)):
                    frame[a + dy, b + dx] += share_y * share_x * image[i, j]
    return frame[:canvas, :canvas]


@pytest.mark.parametrize("speed", [0.0, 1.7])
def test_clips_bounce_and_the_brighter_pixel_shows(speed):
    task = digits.Clips(frames=6, canvas=12, speed=speed)
    start = np.array([[[0.0, 2.5], [3.25, 4.0]]], np.float32)
    velocity = speed * np.array([[[0.6, -0.8], [-1.0, 0.0]]], np.float32)
    frames = np.asarray(jax.jit(task.render)(IMAGES[None, :2], start, velocity))
    assert frames.shape == (1, 6, task.channels) == (1, 6, 144)
    drawn = []
    for digit in range(2):
        ways = [way(start[0, digit, axis], velocity[0, digit, axis], 6, 4) for axis in range(2)]
        drawn.append([placed(IMAGES[digit], y, x, 12) for y, x in zip(*ways, strict=True)])
    np.testing.assert_allclose(frames[0].reshape(6, 12, 12), np.max(drawn, axis=0), atol=2e-3)


def test_labels_of_clips_are_sums_and_keys_decide():
    task = digits.Clips(frames=3, canvas=10)
    sample = jax.jit(task.sample, static_argnums=1)
    one, same, other = (sample(jax.random.key(seed), 40, IMAGES, LABELS) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.inputs, same.inputs)
    assert not np.array_equal(one.inputs, other.inputs)
    sums = {int(a) + int(b) for a in LABELS for b in LABELS}
    assert set(np.asarray(one.labels).tolist()) <= sums and len(set(np.asarray(one.labels).tolist())) > 3
    assert one.inputs.min() >= 0 and one.inputs.max() <= 1
    # A label says which two images were drawn where its sum is one of a kind: 9 + 9 is the last image twice.
    alone = np.flatnonzero(np.asarray(one.labels) == 18)
    assert len(alone)
    assert np.asarray(one.inputs)[alone].max() <= IMAGES[4].max() + 1e-6
