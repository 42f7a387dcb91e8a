//! The component host: loads balancers and asks them.
