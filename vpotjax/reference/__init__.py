"""Labels from PySCF."""
