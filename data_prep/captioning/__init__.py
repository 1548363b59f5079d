"""Captions with <pose> marks: templates, released files, and a language model's answers."""
