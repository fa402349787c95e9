"""The cells' equations in float64 numpy, one sequence and one token at a time: x (T, D) to every y_t (T, H).

`p` maps the names of a cell's parameters to arrays. Written from the equations, and slow on purpose. `case` registers
an oracle for its cell with options: each goes through every test of `tests.cells.cases.CASES`, a main one through the
dearer tests too.
"""

import numpy as np

CASES = []  # (name, cell, oracle, options, main)


def case(cell, name=None, /, *, main=True, **options):
    """Makes the function below the oracle of a cell of `qlstm_jax.cells` with these options."""

    def register(oracle):
        CASES.append((name or cell, cell, oracle, tuple(options.items()), main))
        return oracle

    return register


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


@case("rnn")
def rnn(p, x):
    h, ys = np.zeros(p["bias"].shape), []
    for x_t in x:
        h = np.tanh(x_t @ p["input_kernel"] + h @ p["recurrent_kernel"] + p["bias"])
        ys.append(h)
    return ys


@case("lstm")
def lstm(p, x):
    h = c = np.zeros(p["recurrent_kernel"].shape[0])
    ys = []
    for x_t in x:
        i, f, g, o = np.split(x_t @ p["input_kernel"] + h @ p["recurrent_kernel"] + p["bias"], 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        ys.append(h)
    return ys


@case("gru")
def gru(p, x):
    h, ys = np.zeros(p["recurrent_bias"].shape), []
    for x_t in x:
        a_r, a_z, a_n = np.split(x_t @ p["input_kernel"] + p["bias"], 3)
        u_r, u_z, u_n = np.split(h @ p["recurrent_kernel"], 3)
        r, z = sigmoid(a_r + u_r), sigmoid(a_z + u_z)
        n = np.tanh(a_n + r * (u_n + p["recurrent_bias"]))
        h = (1 - z) * n + z * h
        ys.append(h)
    return ys


def by_heads(h, kernel):
    """h times a block-diagonal kernel (N, K, G·K): the gates side by side, within a gate the heads."""
    heads, size, width = kernel.shape
    products = [h[n * size :][:size] @ kernel[n] for n in range(heads)]
    return np.concatenate([products[n][g * size :][:size] for g in range(width // size) for n in range(heads)])


@case("ql_lstm", "ql_lstm-full-skip4", sharing="full", skip=True, block_size=4, epsilon=0.3)
@case("ql_lstm", "ql_lstm-gates-skip4", main=False, sharing="gates", skip=True, block_size=4, epsilon=0.3)
@case("ql_lstm", "ql_lstm-none-skip4", main=False, sharing="none", skip=True, block_size=4, epsilon=0.3)
@case("ql_lstm", "ql_lstm-full-skip1", main=False, sharing="full", skip=True, block_size=1, epsilon=0.3)
@case("ql_lstm", "ql_lstm-full-skip6", main=False, sharing="full", skip=True, block_size=6, epsilon=0.3)
@case("ql_lstm", "ql_lstm-full-plain", main=False, sharing="full", skip=False, block_size=6)
@case("ql_lstm", "ql_lstm-gates-plain", main=False, sharing="gates", skip=False, block_size=6)
@case("ql_lstm", "ql_lstm-none-plain", main=False, sharing="none", skip=False, block_size=6)
@case("ql_lstm", "ql_lstm-gates-5heads", main=False, sharing="gates", block_size=4, epsilon=0.3, num_heads=5)
def ql_lstm(p, x, *, sharing="full", skip=True, block_size=32, epsilon=1.0, num_heads=1):
    hidden = p["gate_bias"].shape[1]
    map_of = {"full": "0000", "gates": "0010", "none": "0123"}[sharing]
    h = c = memory = np.zeros(hidden)
    block, ys = [], []
    for x_t in x:
        s = p["read_scale"] * memory / np.sqrt(epsilon + np.mean(memory**2)) if skip else np.zeros(hidden)
        kernel = p["recurrent_kernel"]
        u = x_t @ p["input_kernel"] + ((h + s) @ kernel if num_heads == 1 else by_heads(h + s, kernel))
        z = []
        for j in range(4):
            u_j = u[int(map_of[j]) * hidden :][:hidden]
            z.append((1 if sharing == "none" else p["gate_scale"][j]) * u_j + p["gate_bias"][j])
        c = sigmoid(z[1]) * c + sigmoid(z[0]) * np.tanh(z[2])
        h = sigmoid(z[3]) * np.tanh(c)
        ys.append(h + s)
        block.append(h)
        if skip and len(block) == block_size:
            v = np.mean(block, axis=0) @ p["summary_kernel"] + s @ p["memory_kernel"]
            write, value = (p["write_scale"][j] * v + p["write_bias"][j] for j in range(2))
            memory = memory + sigmoid(write) * np.tanh(value)
            block = []
    return ys


def pr_leaf(p, x_t, cell):
    z = x_t @ p["leaf_kernel"] + p["leaf_bias"]
    return (z, None) if cell == "rnn" else pr_gates(z, ())


def pr_gates(z, cells):
    i, g, o, *forget = np.split(z, 3 + len(cells))
    c = sigmoid(i) * np.tanh(g) + sum(sigmoid(f) * child for f, child in zip(forget, cells, strict=True))
    return sigmoid(o) * np.tanh(c), c


def pr_cell(kernel, bias, children, cell):
    z = np.concatenate([h for h, _ in children]) @ kernel + bias
    return (np.maximum(z, 0), None) if cell == "rnn" else pr_gates(z, [c for _, c in children])


def pr_combine(p, left, right, cell):
    state = pr_cell(p["merge_kernel"], p["merge_bias"], [left, right], cell)
    for kernel, bias in zip(p["refine_kernel"], p["refine_bias"], strict=True):
        state = pr_cell(kernel, bias, [state], cell)
    return state


def balanced(combine, states):
    """The perfectly balanced tree over a power of two of states."""
    if len(states) == 1:
        return states[0]
    half = len(states) // 2
    return combine(balanced(combine, states[:half]), balanced(combine, states[half:]))


def prefix(combine, states):
    """The state of them all: the left fold of `combine` over the blocks of their number's binary expansion."""
    start, state = 0, None
    for bit in reversed(range(len(states).bit_length())):
        if len(states) >> bit & 1:
            block = balanced(combine, states[start : start + 2**bit])
            state = block if start == 0 else combine(state, block)
            start += 2**bit
    return state


def pr_state(p, x, *, cell="lstm"):
    """(h, c) of a whole sequence of one token or more."""
    leaves = [pr_leaf(p, x_t, cell) for x_t in x]
    return prefix(lambda left, right: pr_combine(p, left, right, cell), leaves)


@case("pr_lstm", "pr_lstm-0r", main=False, cell="lstm", refinements=0)
@case("pr_lstm", "pr_lstm-1r", cell="lstm", refinements=1)
@case("pr_lstm", "pr_lstm-2r", main=False, cell="lstm", refinements=2)
@case("pr_lstm", "pr_rnn-0r", main=False, cell="rnn", refinements=0)
@case("pr_lstm", "pr_rnn-1r", cell="rnn", refinements=1)
def pr_lstm(p, x, *, cell="lstm"):
    return [pr_state(p, x[: t + 1], cell=cell)[0] for t in range(len(x))]


def layer_norm(x, scale, bias):
    return scale * (x - x.mean()) / np.sqrt(1e-5 + x.var()) + bias


def gelu(x):
    return x / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def ldru_merge(p, left, right):
    """h (H,) of the union of two spans; each pair of children is one row."""
    both = np.concatenate([left, right])
    gates = gelu(both @ p["merge_kernel"] + p["merge_bias"]) @ p["gate_kernel"] + p["gate_bias"]
    value = (gates * both) @ p["value_kernel"] + p["value_bias"]
    h = layer_norm(value @ p["output_kernel"] + p["output_bias"], p["norm_scale"][0], p["norm_bias"][0])
    for r in range(len(p["refine_bias"])):
        hidden = gelu(h @ p["refine_kernel"][r] + p["refine_bias"][r])
        new = hidden @ p["refine_output_kernel"][r] + p["refine_output_bias"][r]
        h = layer_norm(h + new, p["norm_scale"][r + 1], p["norm_bias"][r + 1])
    return h


def grc_merge(p, left, right):
    hidden = np.maximum(np.concatenate([left, right]) @ p["merge_kernel"] + p["merge_bias"], 0)
    f_left, f_right, i, u = np.split(hidden @ p["gate_kernel"] + p["gate_bias"], 4)
    return layer_norm(
        sigmoid(f_left) * left + sigmoid(f_right) * right + sigmoid(i) * u, p["norm_scale"], p["norm_bias"]
    )


@case("pr_lstm", "ldru-0r", main=False, cell="ldru", refinements=0)
@case("pr_lstm", "ldru-1r", cell="ldru", refinements=1)
@case("pr_lstm", "ldru-2r", main=False, cell="ldru", refinements=2)
@case("pr_lstm", "grc", cell="grc")
def tree_of_vectors(p, x, *, cell):
    merge = {"ldru": ldru_merge, "grc": grc_merge}[cell]
    leaves = list(x @ p["leaf_kernel"] + p["leaf_bias"])
    return [prefix(lambda left, right: merge(p, left, right), leaves[: t + 1]) for t in range(len(x))]


@case("slstm", "slstm-1-sigmoid", num_heads=1, forget_gate="sigmoid")
@case("slstm", "slstm-5-exponential", main=False, num_heads=5, forget_gate="exponential")
def slstm(p, x, *, num_heads=1, forget_gate="sigmoid"):
    y, c, n, m, ys = *np.zeros((4, p["bias"].shape[0] // 4)), []
    assert len(p["recurrent_kernel"]) == num_heads
    for x_t in x:
        i, f, z, o = np.split(x_t @ p["input_kernel"] + p["bias"] + by_heads(y, p["recurrent_kernel"]), 4)
        log_f = m + (-np.logaddexp(0, -f) if forget_gate == "sigmoid" else f)
        m = np.where(n == 0, i, np.maximum(i, log_f))
        write, keep = np.exp(i - m), np.where(n == 0, 0, np.exp(log_f - m))
        c, n = keep * c + write * np.tanh(z), keep * n + write
        y = sigmoid(o) * c / n
        ys.append(y)
    return ys


@case("min_gru")
def min_gru(p, x):
    h, ys = np.zeros(p["bias"].shape[0] // 2), []
    for x_t in x:
        a, b = np.split(x_t @ p["input_kernel"] + p["bias"], 2)
        z, new = sigmoid(a), np.where(b >= 0, b + 0.5, sigmoid(b))
        h = (1 - z) * h + z * new
        ys.append(h)
    return ys


@case("min_lstm", forget_bias=1.0)
def min_lstm(p, x, *, forget_bias):
    h, ys = np.zeros(p["bias"].shape[0] // 3), []
    for x_t in x:
        a, b, d = np.split(x_t @ p["input_kernel"] + p["bias"], 3)
        f, i, new = sigmoid(a), sigmoid(b), np.where(d >= 0, d + 0.5, sigmoid(d))
        h = f / (f + i) * h + i / (f + i) * new
        ys.append(h)
    return ys
