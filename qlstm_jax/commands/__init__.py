"""The console programs: `qlstm-train`, `-eval`, `-generate`, `-export`, `-study` and `-formal`."""
