"""The five components of a model (TencentPretrain section 3): one folder each, one dictionary a
folder."""
