"""The console programs: `qlstm-train`, `qlstm-eval`, `qlstm-generate`, `qlstm-export`, `qlstm-study` and `qlstm-formal`."""
