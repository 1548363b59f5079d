"""What ``train/ablations.py`` compares: the variants, how the product is changed for them, and the tables."""
