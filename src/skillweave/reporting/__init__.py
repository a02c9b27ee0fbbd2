"""What people look at: the report page, plots and tables on the terminal."""
