"""The Ray Data stages and the run. Everything outside this package works without Ray."""
