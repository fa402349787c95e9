"""The console programs: `qlstm-train`, `qlstm-eval`, `qlstm-generate`, `qlstm-study` and `qlstm-formal`."""
