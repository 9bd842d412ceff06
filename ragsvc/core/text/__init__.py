"""Text: sentences, languages, words, chunking and what of a passage is embedded."""
