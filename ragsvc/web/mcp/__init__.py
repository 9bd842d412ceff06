"""The Model Context Protocol at ``/mcp``: documents as tools and resources for agents."""
