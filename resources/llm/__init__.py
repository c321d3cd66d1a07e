"""Paid answers: every request is priced, reserved, sent once, and stored before anyone reads it.

`ask` is the front door: questions in, answers out, from the cache, live or in batches. Knows no room.
"""
