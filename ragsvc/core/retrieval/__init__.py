"""Search: queries, filters, ranking, and whether the evidence answers the question."""
