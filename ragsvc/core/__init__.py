"""The pure heart: values, ports and algorithms. Does no I/O and imports nothing of ragsvc outside itself."""
