"""PR-LSTM and PR-RNN (arXiv 2605.17108): an LSTM composed over a balanced tree, in logarithmic depth.

The state of a span of tokens is (h, c). Leaf, each token alone:

    [i, g, o] = split3(x_t W_leaf + b_leaf);  c = σ(i) ⊙ tanh(g);  h = σ(o) ⊙ tanh(c)          W_leaf (D, 3H)

N-ary LSTM cell over children (h_1, c_1) .. (h_N, c_N), earliest first:

    [i, g, o, f_1 .. f_N] = split(concat(h_1 .. h_N) W + b)                                    W (N·H, (3 + N)·H)
    c = σ(i) ⊙ tanh(g) + Σ_n σ(f_n) ⊙ c_n;   h = σ(o) ⊙ tanh(c)

Merging two spans is the binary cell, then R unary refinement cells, each with weights of its own; one merge is shared
by all nodes of the tree. PR-RNN (`cell="rnn"`): leaf x_t W_leaf + b_leaf, cell relu(concat(h) W + b), no c.

The merge is not associative, so the tree's shape is part of the model: see `qlstm_jax.cells.pr_lstm.tree`. y_t is the h of
the state of tokens 0..t. `step` streams in log2(t) states (`qlstm_jax.cells.pr_lstm.counter`); `unroll` computes all the
prefixes in log2(T) parallel levels; `reduce` computes the last one alone, in half the work. Leaf and merge stand in
`merge.py`, here what a sequence makes of them.
"""

import jax
import jax.numpy as jnp

from qlstm_jax.cells import common
from qlstm_jax.cells.common import where
from qlstm_jax.cells.pr_lstm import counter, extension, tree
from qlstm_jax.cells.pr_lstm.merge import State, leaf, merge

Carry = counter.Counter
MAX_SLOTS = 31  # the count of tokens is an int32


@common.params_dataclass
class Params:
    """Weights; gates side by side in the order i, g, o, f_1, f_2."""

    leaf_kernel: jax.Array  # (D, 3H), rnn (D, H)
    leaf_bias: jax.Array  # (3H,), rnn (H,)
    merge_kernel: jax.Array  # (2H, 5H), rnn (2H, H): rows of the left child first
    merge_bias: jax.Array  # (5H,), rnn (H,)
    refine_kernel: jax.Array  # (R, H, 4H), rnn (R, H, H)
    refine_bias: jax.Array  # (R, 4H), rnn (R, H)
    norm_scale: jax.Array | None = None  # γ (1 + R, H), of the binary cell and each refinement; None without norm
    cell: str = common.static(default="lstm")
    remat: bool = common.static(default=False)
    dtype: str = common.static(default="float32")

    @property
    def hidden_size(self) -> int:
        """H."""
        return self.merge_kernel.shape[0] // 2


def init(
    key,
    input_size: int,
    hidden_size: int,
    *,
    refinements: int = 1,
    cell: str = "lstm",
    norm: str = "none",
    value_init: str = "paper",
    forget_bias: float = 0.0,
    remat: bool = False,
    dtype="float32",
    param_dtype="float32",
) -> Params:
    """Draws parameters: kernels truncated normal of scale 1 / sqrt(fan_in), uncorrected as in the paper; biases 0.

    norm, value_init and forget_bias are not in the paper; by default they change nothing.

    Args:
        key: a PRNG key.
        input_size: D.
        hidden_size: H.
        refinements: R, unary cells after each binary one (the paper's 0R, 1R, 2R).
        cell: "lstm" for PR-LSTM or "rnn" for PR-RNN.
        norm: "rms" divides each cell's new c by its root mean square, times γ, before h is taken from it.
        value_init: "identity" begins with values g that are the mean of the children's h (a refinement's: h itself).
        forget_bias: what the biases of the forget gates begin at.
        remat: whether a gradient computes the merges' gates again instead of keeping them: less memory, more time.
        dtype: of activations and products; gates, sums and c are float32 whatever it is.
        param_dtype: of the stored weights.

    Raises:
        ValueError: for a size that is not a positive integer, negative refinements, an unknown cell, norm or
            value_init, or a norm or forget bias of PR-RNN, which has no c.
    """
    common.check_sizes(input_size=input_size, hidden_size=hidden_size)
    common.check_choice("cell", cell, ("lstm", "rnn"))
    common.check_choice("norm", norm, ("none", "rms"))
    common.check_choice("value_init", value_init, ("paper", "identity"))
    if isinstance(refinements, bool) or not isinstance(refinements, int) or refinements < 0:
        raise ValueError(f"refinements is {refinements!r}; expected an integer, 0 or more")
    if cell == "rnn" and (norm != "none" or forget_bias):
        raise ValueError(f"norm is {norm!r} and forget_bias {forget_bias!r}; expected 'none' and 0 with cell='rnn'")
    leaf, merge, refine = (3, 5, 4) if cell == "lstm" else (1, 1, 1)
    h = hidden_size

    def draw(key, shape):
        scale = shape[-2] ** -0.5
        return (scale * jax.random.truncated_normal(key, -2.0, 2.0, shape)).astype(param_dtype)

    k_leaf, k_merge, k_refine = jax.random.split(key, 3)
    merge_kernel, refine_kernel = draw(k_merge, (2 * h, merge * h)), draw(k_refine, (refinements, h, refine * h))
    if value_init == "identity":
        same, value = jnp.eye(h, dtype=param_dtype), slice(h, 2 * h) if cell == "lstm" else slice(0, h)
        merge_kernel = merge_kernel.at[:, value].set(jnp.concatenate([same, same]) / 2)
        refine_kernel = refine_kernel.at[:, :, value].set(same[None])
    return Params(
        leaf_kernel=draw(k_leaf, (input_size, leaf * h)),
        leaf_bias=jnp.zeros((leaf * h,), param_dtype),
        merge_kernel=merge_kernel,
        merge_bias=jnp.zeros((merge * h,), param_dtype).at[3 * h :].set(forget_bias),
        refine_kernel=refine_kernel,
        refine_bias=jnp.zeros((refinements, refine * h), param_dtype).at[:, 3 * h :].set(forget_bias),
        norm_scale=jnp.ones((1 + refinements, h), param_dtype) if norm == "rms" else None,
        cell=cell,
        remat=bool(remat),
        dtype=jnp.dtype(dtype).name,
    )


def initial_carry(params: Params, batch_size: int, *, max_length: int = 2**MAX_SLOTS - 1) -> Carry:
    """A stream before its first token: no states yet, room for those of max_length tokens.

    Args:
        params: from `init`.
        batch_size: B.
        max_length: tokens that the stream may grow to; log2(max_length + 1) slots are allocated. Beyond it, outputs
            are NaN.

    Raises:
        ValueError: unless 1 <= max_length < 2**31.
    """
    if not 1 <= max_length < 2**MAX_SLOTS:
        raise ValueError(f"max_length is {max_length}; expected 1 to {2**MAX_SLOTS - 1}")
    shape = (batch_size, params.hidden_size)
    c = jnp.zeros(shape, common.accumulator(params.dtype)) if params.cell == "lstm" else None
    return counter.empty(State(h=jnp.zeros(shape, params.dtype), c=c), max_length.bit_length())


def step(params: Params, carry: Carry, x):
    """One token of a stream: x (B, D) to y (B, H), with the next carry first.

    After t tokens a stream holds ceil(log2(t + 1)) states; a token costs two merges on average, whatever t.

    Raises:
        ValueError: if x is not (B, D).
    """
    common.check_step(x, params.leaf_kernel.shape[0])
    carry, prefix = counter.push(merge(params), carry, leaf(params, x))
    return carry, prefix.h


def unroll(params: Params, xs, *, seq_lengths=None, carry: Carry | None = None):
    """A whole sequence: xs (B, T, D) to (carry, ys (B, T, H)), equal to folding `step`, level by level in parallel.

    Args:
        params: from `init`.
        xs: (B, T, D).
        seq_lengths: optional (B,) number of valid positions; outputs beyond are 0 and the carry is that after the last.
        carry: where to continue from; default `initial_carry`. The rows of a carry may have seen different numbers
            of tokens.

    Raises:
        ValueError: if a shape does not fit, or a length lies outside 0..T.
    """
    xs, seq_lengths, valid = common.check_sequence(xs, seq_lengths, params.leaf_kernel.shape[0])
    leaves, both = leaf(params, xs), merge(params)
    if carry is not None or xs.shape[1] == 0:
        carry = initial_carry(params, xs.shape[0]) if carry is None else carry
        carry, states = extension.extend(both, carry, leaves, seq_lengths)
    else:
        levels = tree.blocks(both, leaves)
        ends = tree.prefixes(both, levels)
        count = jnp.full(xs.shape[:1], xs.shape[1], jnp.int32) if seq_lengths is None else seq_lengths
        states, carry = ends[0], extension.from_tree(levels, ends, count, MAX_SLOTS)
    ys = states.h if valid is None else where(valid, states.h, jnp.zeros_like(states.h))
    return carry, ys


def reduce(params: Params, xs, *, seq_lengths=None) -> State:
    """The state (h, c) of the whole sequence alone, each (B, H), in T − 1 merges where `unroll` takes about 2T.

    Args:
        params: from `init`.
        xs: (B, T, D).
        seq_lengths: optional (B,) number of valid positions; a row of length 0 gives zeros. Rows shorter than T cost at
            most log2(T) more merges.

    Raises:
        ValueError: if a shape does not fit, or a length lies outside 0..T.
    """
    xs, seq_lengths, _ = common.check_sequence(xs, seq_lengths, params.leaf_kernel.shape[0])
    return tree.reduce(merge(params), leaf(params, xs), seq_lengths)


def last(params: Params, xs, *, seq_lengths=None):
    """The output at each row's last valid position, (B, H), as `reduce` computes it; zeros at length 0."""
    return reduce(params, xs, seq_lengths=seq_lengths).h
