"""Every cell is registered, and has what the layers of both front ends call."""

import pkgutil

import pytest

from qlstm_jax import cells

REGISTERED = {cell.__name__.rpartition(".")[2]: cell for cell in cells.CELLS.values()}


def test_every_room_but_common_is_a_registered_cell():
    rooms = {module.name for module in pkgutil.iter_modules(cells.__path__)}
    assert rooms - {"common"} == set(REGISTERED)


@pytest.mark.parametrize("name", REGISTERED)
def test_a_cell_has_what_the_protocol_names(name):
    wanted = {member for member in vars(cells.Cell) if not member.startswith("_")}
    assert {"init", "initial_carry", "step", "unroll", "last", "Params", "Carry"} <= wanted
    assert wanted <= set(dir(REGISTERED[name]))
