"""Values, ports and algorithms. This package does no I/O and imports no other package of ragsvc."""
