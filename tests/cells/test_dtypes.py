"""Every cell in every dtype, a token and a sequence at a time, with its gradient: some products exist for some only."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qlstm_jax.cells import CELLS
from qlstm_jax.describe import config_name

OPTIONS = {"slstm": {"num_heads": 2}, "mlstm": {"num_heads": 2}, "ql_lstm": {"block_size": 2}}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("cell", CELLS.values(), ids=config_name)
def test_step_unroll_and_gradient_run(cell, dtype):
    @jax.jit
    def run(key):
        params = cell.init(key, 3, 4, dtype=dtype, **OPTIONS.get(config_name(cell), {}))
        xs = jax.random.normal(key, (5, 3, 3), dtype)
        _, y = cell.step(params, cell.initial_carry(params, 5), xs[:, 0])

        def loss(params):
            return jnp.sum(cell.unroll(params, xs)[1].astype(jnp.float32) ** 2)

        return y, cell.unroll(params, xs[:, :1])[1][:, 0], jax.grad(loss)(params)

    y, same, grads = run(jax.random.key(0))
    assert y.dtype == same.dtype == dtype
    np.testing.assert_allclose(*(np.asarray(a, np.float32) for a in (y, same)), rtol=0, atol=0.02)
    assert all(np.isfinite(np.asarray(g, np.float32)).all() for g in jax.tree.leaves(grads))
