"""Measurements of the engine against a reference in the same run (``python -m benches.run``)."""
