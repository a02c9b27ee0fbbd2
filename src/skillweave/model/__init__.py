"""A model of five components: its configuration, its folder, and the module itself."""
