"""Short runs on a small data set."""

from tests.short_runs import data_dir, recipe, run  # noqa: F401  fixtures
