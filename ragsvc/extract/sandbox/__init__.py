"""Takes away from a process what it does not need: files, the network, signals, other processes (Linux)."""
