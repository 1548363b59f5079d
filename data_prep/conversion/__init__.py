"""A data set on disk to Parquet shards with a card: read, cut, encode, written shard by shard, resumable."""
