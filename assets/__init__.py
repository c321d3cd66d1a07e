"""One room per artifact of the paper, left to right; see `dagster_project/rooms.py` for the order."""
