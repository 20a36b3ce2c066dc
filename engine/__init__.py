"""What bench.py and sweep.py stand on. Standard library only; imports run downwards only; start reading in model.py."""
