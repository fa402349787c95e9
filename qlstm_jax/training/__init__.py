"""From a config to a trained, evaluated run: config → problem → step → loop → checkpoints → report."""
