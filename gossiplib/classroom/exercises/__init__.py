"""What is asked of the answers to the exercises: a module for each notebook."""
