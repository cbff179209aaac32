"""The shipped task families. Each is registered in pyproject as a third party's would be."""
