"""Faults on purpose, in a network of nodes that runs under load: kills, pauses, partitions, bad links, full disks, torn
files; and what must hold after each of them. ``benchmarks/faults.py`` is the command."""
