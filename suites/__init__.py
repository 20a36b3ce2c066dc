"""A file for each published post or question: its figures, its variants, its tables, its pictures."""
