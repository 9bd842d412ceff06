"""Retrieval: queries from conversations, metadata filters, search, ranking, and the judgement of answerability."""
