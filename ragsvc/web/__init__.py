"""The HTTP layer: routes, request and response formats, access control, the mapping of errors to statuses."""
