"""From sources on disk to batches: sources, processors, masking, collation and the mixture of
tasks."""
