"""The miniature world: problems, reasoning traces and a tiny Qwen2 on which the paper's effect happens on two CPU cores."""
