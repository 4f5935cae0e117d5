"""Files: data sets and run folders."""
