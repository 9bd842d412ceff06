"""The composition root: it creates the running services from the settings. No other package imports every adapter."""
