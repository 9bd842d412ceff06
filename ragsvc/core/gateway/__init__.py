"""The model gateway: chat requests, endpoint families, provider settings, circuit breaker, metering."""
