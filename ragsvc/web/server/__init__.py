"""The HTTP server: bounds on connections and request heads, and the start and end of serving."""
