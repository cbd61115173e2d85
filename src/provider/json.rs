//! Reading JSON no further than needed.
