"""The arguments of all programs, and their exit codes."""
