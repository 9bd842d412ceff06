"""How good retrieval and answers are on questions with known answers, and whether a difference is noise."""
