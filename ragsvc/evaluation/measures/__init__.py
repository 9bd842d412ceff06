"""Pure functions: measures of rankings and answers, gold spans, intervals and significance. No I/O."""
