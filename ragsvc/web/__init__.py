"""HTTP: routes, wire formats, access control, the mapping of errors to statuses."""
