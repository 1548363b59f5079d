"""Finetuning: the script, its recipes and its launch files."""
