"""The checker of annotations in the tests: beartype, with an int where a float is expected, as PEP 484 has it.

`make shapes` runs the tests of cells and models so, by `--jaxtyping-packages=...,tests.typechecker.check`.
"""

import beartype

check = beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))
