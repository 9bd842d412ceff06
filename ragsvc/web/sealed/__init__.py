"""End-to-end encrypted requests: recognised, opened, run as plain requests, and answered encrypted.

``recognition`` and ``plain_requests`` are pure. ``openers`` has one class per mode; so have ``responses`` (HPKE, EHBP)
and ``rvenc_response``. ``request_bodies`` reads from the connection. ``middleware`` connects the parts.
"""
