"""The steps that build the quickstart pack, one module for each Parquet file."""
