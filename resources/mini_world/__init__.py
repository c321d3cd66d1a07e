"""The miniature world: problems, traces and a tiny Qwen2 on which the paper's effect happens on two CPU cores."""
