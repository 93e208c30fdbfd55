"""simswitch: a SIM switching engine for services whose terminals carry no SIM of their own."""

__version__ = "0.1.0"
