"""A stand-in for cuDNN's LSTM on a CPU: JAX's calls of it, lowered to JAX's own reference of the same equations.

What is tested so is all that this library does around the calls. Like the calls themselves the stand-in has no rules
for vmap and derivatives, so that a test fails where the library leaves these to it.
"""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
from jax.experimental import rnn
from jax.interpreters import mlir

from qlstm_jax.cells.lstm import cudnn

RESERVED = 3  # numbers that the forward call keeps, as the real one keeps some


def reference(x, h_0, c_0, weights, lengths, sizes):
    """JAX's own LSTM, over cuDNN's vector of weights."""
    unpacked = rnn.unpack_lstm_weights(weights, *sizes, 1, False)
    return rnn.lstm_ref(x, h_0, c_0, *unpacked, lengths, *sizes, 1, 0.0, False)


def install(monkeypatch):
    """Lets JAX believe until the test ends that its calls of cuDNN run on this CPU; returns a list of those lowered."""
    lowered = []

    def forward(x, h_0, c_0, weights, lengths, *, input_size, hidden_size, **_):
        lowered.append("forward")
        ys, h, c = reference(x, h_0, c_0, weights, lengths, (input_size, hidden_size))
        return ys, h, c, jnp.zeros(RESERVED, jnp.float32)

    def backward(dys, dh, dc, x, h_0, c_0, weights, ys, reserve, lengths, *, input_size, hidden_size, **_):
        lowered.append("backward")

        def run(*arrays):
            return reference(*arrays, lengths, (input_size, hidden_size))

        return jax.vjp(run, x, h_0, c_0, weights)[1]((dys, dh, dc))

    sizes = SimpleNamespace(compute_rnn_workspace_reserve_space_sizes=lambda *_: (0, RESERVED))
    monkeypatch.setattr(rnn, "gpu_rnn", sizes)
    monkeypatch.setattr(cudnn, "has_gpu", lambda: True)
    for call, rule in ((rnn.rnn_fwd_p, forward), (rnn.rnn_bwd_p, backward)):
        mlir.register_lowering(call, mlir.lower_fun(rule, multiple_results=True), platform="cpu")
    return lowered
