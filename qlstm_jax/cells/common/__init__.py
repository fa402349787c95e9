"""Shared by several cells: params, products, masks, checks of arguments, initial values, recurrences."""

from qlstm_jax.cells.common.axes import varying_as
from qlstm_jax.cells.common.checks import (
    Sequence,
    check_carry,
    check_choice,
    check_known_length,
    check_lengths,
    check_numbers,
    check_sequence,
    check_sizes,
    check_step,
    check_time_scale,
    step_carry,
    unroll_carry,
)
from qlstm_jax.cells.common.gated_sum import gated_sum, log_positive
from qlstm_jax.cells.common.initializers import chrono_bias, lecun_normal, orthogonal
from qlstm_jax.cells.common.masks import (
    at_position,
    last_valid,
    reverse,
    shift_left,
    shift_right,
    time_major,
    valid_mask,
    where,
    zero_padding,
)
from qlstm_jax.cells.common.params import params_dataclass, static
from qlstm_jax.cells.common.pieces import find_pieces, gather, last_piece, reversed_resets, scatter
from qlstm_jax.cells.common.products import accumulator, affine, kernel_gradient, matmul, row
from qlstm_jax.cells.common.protocol import COMMON_KEYWORDS, Cell, cell_options, last_by_unroll, option_docs
from qlstm_jax.cells.common.recurrence import recurrence, recurrence_time_major
from qlstm_jax.cells.common.scan import scan, scan_time_major

__all__ = [
    "COMMON_KEYWORDS",
    "Cell",
    "Sequence",
    "accumulator",
    "affine",
    "at_position",
    "cell_options",
    "check_carry",
    "check_choice",
    "check_known_length",
    "check_lengths",
    "check_numbers",
    "check_sequence",
    "check_sizes",
    "check_step",
    "check_time_scale",
    "chrono_bias",
    "find_pieces",
    "gated_sum",
    "gather",
    "kernel_gradient",
    "last_by_unroll",
    "last_piece",
    "last_valid",
    "lecun_normal",
    "log_positive",
    "matmul",
    "option_docs",
    "orthogonal",
    "params_dataclass",
    "recurrence",
    "recurrence_time_major",
    "reverse",
    "reversed_resets",
    "row",
    "scan",
    "scan_time_major",
    "scatter",
    "shift_left",
    "shift_right",
    "static",
    "step_carry",
    "time_major",
    "unroll_carry",
    "valid_mask",
    "varying_as",
    "where",
    "zero_padding",
]
