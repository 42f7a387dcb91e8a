//! Nothing: the guests are in `examples/`, one file each, so that one command builds them all.
