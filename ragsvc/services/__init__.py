"""What ragsvc does for its callers, on the ports of the core."""
