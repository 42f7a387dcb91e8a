//! Settings as written (flags, environment, file) and as checked.
