"""Generated from proto/simswitch/v1 by proto/generate.py: never edited."""
