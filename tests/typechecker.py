"""The checker of annotations in the tests: beartype, with an int where a float is expected, as PEP 484 has it.

`pytest --jaxtyping-packages=qlstm_jax.cells,qlstm_jax.models,tests.typechecker.check tests/cells tests/models`
"""

import beartype

check = beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))
