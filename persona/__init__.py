"""What two or more scripts share, one module a concept. Importing this package imports nothing heavy."""
