//! An empty library: each guest is a file in `examples/`, so that one command builds them all.
