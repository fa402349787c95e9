"""One `get_config()` a file; the header says the command and the result measured with it."""
