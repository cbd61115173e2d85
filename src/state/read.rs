//! Questions asked of the state, in short reads that never hold up its writer.
