"""Drawn arguments, meaningful and meaningless, for every public function, and what comes of them.

`values` has what is meaningless for each kind of argument, `outcomes` the kinds of outcome; the other modules list the
functions of one room each, as `Call`s. `scripts/battery_arguments.py` draws as many as it is told.
"""
