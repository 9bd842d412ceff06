"""The system of record: SQLite tables, statements by subject, one write thread; and the files that rows refer to."""
