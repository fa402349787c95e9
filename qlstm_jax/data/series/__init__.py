"""Time series from a csv file: read, split by time, standardised, cut into windows."""

from qlstm_jax.data.rows import DataError as DataError
from qlstm_jax.data.series.conventions import THOUSANDS as THOUSANDS
from qlstm_jax.data.series.gaps import ON_MISSING as ON_MISSING
from qlstm_jax.data.series.sheet import HEADERS as HEADERS
from qlstm_jax.data.series.sheet import SEPARATORS as SEPARATORS
from qlstm_jax.data.series.table import Table as Table
from qlstm_jax.data.series.table import Writing as Writing
from qlstm_jax.data.series.table import choose as choose
from qlstm_jax.data.series.table import read as read
from qlstm_jax.data.series.windows import PARTS as PARTS
from qlstm_jax.data.series.windows import SeriesBatch as SeriesBatch
from qlstm_jax.data.series.windows import Windows as Windows
from qlstm_jax.data.series.windows import last_value as last_value
from qlstm_jax.data.series.windows import scale as scale
from qlstm_jax.data.series.windows import seasonal as seasonal
from qlstm_jax.data.series.windows import split as split
