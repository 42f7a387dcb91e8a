//! Measurements only: see README.md.
