"""The composition root: settings in, running services out. The only package that knows every adapter."""
