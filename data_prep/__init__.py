"""Scripts that write posed data sets and turn them into Parquet."""
