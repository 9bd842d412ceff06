"""SQLite, the truth: tables, one write thread, statements by subject; and the files that rows point to."""
