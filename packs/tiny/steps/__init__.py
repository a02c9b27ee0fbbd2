"""The steps that make the data of skillweave/tiny, one file for each kind of data."""
